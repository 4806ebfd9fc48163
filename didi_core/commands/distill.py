"""``distill``: teacher to few-step student, saved, then compared with the teacher."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from didi_core.checkpoints.card import save_model, save_scorer
from didi_core.commands.common import (
    NOTHING,
    RunSettings,
    about_domain,
    load_teacher,
    make_domain,
    make_keeper,
    make_reporter,
    make_run,
    note_machine,
    open_run,
)
from didi_core.commands.comparison import Compared, PlanSettings, compare_models, publish
from didi_core.device import Machine, autocast
from didi_core.domain.abilities import HasSampleCache
from didi_core.evaluation.cache import SampleCache
from didi_core.evaluation.held_out import check_reference
from didi_core.models.scorer import TokenScorer
from didi_core.objectives.distill import DistillSettings, distill
from didi_core.objectives.reward_kinds import Materials
from didi_core.objectives.rewards import DataReference, Reference, Reward, SampleReference
from didi_core.plugins import registry
from didi_core.processes import current
from didi_core.progress import Bar, Silent, counting
from didi_core.sampling.generate import Generated, SamplerSettings, generate
from didi_core.storage.fingerprint import model_hash
from didi_core.storage.run_dir import RunDirectory
from didi_core.streams import derive_seed, generator, seeded
from didi_core.training.planning import TIMED, Plan, Stage, Stopwatch, components, print_plan
from didi_core.types import Denoiser, Domain, Sample


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(PlanSettings):
    """The comparison at the end of a run."""

    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings, DistillSettings):
    """``configs/distill.yaml``.

    cache: folder of drawn samples and their statistics; by default ``<run_dir>/reference`` and
    ``<run_dir>/evaluation``. The runs of a multirun share one, so that the teacher is drawn once for all of them.
    """

    teacher: str = "bundled"
    cache: Path | None = None
    evaluate: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        DistillSettings.__post_init__(self)


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path | Plan:
    """Distil, write ``student/``, and compare with the teacher unless ``evaluate.enabled=false``."""
    machine, processes = Machine.of(settings.device, settings.precision), current()
    processes.check_device(machine.device)
    settings.part(processes.size)
    domain = make_domain(settings.domain, settings.data)
    teacher = load_teacher(domain, settings.teacher).to(machine.device).eval().requires_grad_(False)
    if settings.dry_run:
        found = plan(settings, domain, teacher, machine)
        print_plan(found)
        return found
    if settings.evaluate.enabled and processes.first:
        check_reference(domain)
    with open_run("distill", settings.domain, settings.run_dir, config, command_line) as opened:
        note_machine(opened, machine, teacher)
        student = copy.deepcopy(teacher).requires_grad_(True)
        with opened.stage("reference"):
            kept = settings.cache or opened.path / "reference"
            reward = make_reward(settings, domain, teacher, machine, kept)
        with opened.stage("training"):
            distill(
                domain,
                teacher,
                student,
                reward,
                settings,
                seed=settings.seed,
                keeper=make_keeper(opened, settings.resume),
                reporter=make_reporter(),
                device=machine.device,
                precision=machine.precision,
                processes=processes,
            )
        if not processes.first:
            return opened.path
        learnt = reward.parts().get("scorer")
        scorer = learnt if isinstance(learnt, TokenScorer) else None
        save_student(settings, domain, student, scorer, teacher, opened)
        print(f"student: {opened.path / 'student'}")
        if settings.evaluate.enabled:
            with opened.stage("evaluation"):
                networks = Compared(student=student, scorer=scorer, teacher=teacher)
                cache = settings.cache or opened.path / "evaluation"
                measured = compare_models(
                    make_run(settings, domain, machine), networks, settings.evaluate, cache_dir=cache
                )
                publish(opened.path, measured, opened.record, opened.path)
                _write_samples(domain, measured.examples, opened)
    return opened.path


def plan(settings: Settings, domain: Domain, teacher: Denoiser, machine: Machine) -> Plan:
    """Memory and time of the run, from a few steps of it on a reference made in one call; nothing is written."""
    training, rules = settings.training, settings.objective
    few = replace(
        settings,
        objective=replace(
            rules, reference_samples=training.batch_size, reference_steps=1, reward=replace(rules.reward, warmup=1)
        ),
        training=replace(training, steps=TIMED, log_every=1),
        collapse=0.0,
    )
    watch, student = Stopwatch(machine.device), copy.deepcopy(teacher).requires_grad_(True)
    distill(
        domain, teacher, student, make_reward(few, domain, teacher, machine, None), few, seed=settings.seed,
        keeper=watch, reporter=Silent(), device=machine.device, precision=machine.precision,
    )  # fmt: skip
    peak, found = watch.peak(), components({"teacher": teacher}, watch.parts)
    call = seconds_per_call(settings, domain, teacher, machine)
    stages = [Stage("training steps", rules.reward.warmup + training.steps, watch.seconds)]
    if rules.reference == "teacher":
        calls = rules.reference_samples * rules.reference_steps
        stages.insert(0, Stage("reference, unless kept: calls x samples", calls, call))
    if settings.evaluate.enabled:
        stages.append(Stage("evaluation: calls x samples", settings.evaluate.calls(), call))
    lengths = domain.lengths(1000, generator(settings.seed, "plan"))
    tokens = training.batch_size * sum(lengths) / len(lengths)
    return Plan(f"{machine.label}, {machine.precision}", found, peak, training.batch_size, tokens, tuple(stages))


def seconds_per_call(settings: Settings, domain: Domain, teacher: Denoiser, machine: Machine) -> float:
    """Of one sample: the first call of a generation, which all samples share, is as good as free."""
    num = settings.training.batch_size
    with autocast(machine.device, machine.precision):
        made = generate(domain, teacher, settings=SamplerSettings(steps=3), num=num, batch_size=num)
    return made.seconds / (2 * num)


def make_reward(
    settings: Settings, domain: Domain, teacher: Denoiser, machine: Machine, kept: Path | None
) -> Reward:
    """The reward that the objective asks for, with its networks on the machine. kept: folder of reference samples."""
    rules = settings.objective.reward

    def fresh_scorer() -> nn.Module:
        with seeded(settings.seed, "scorer"):
            return domain.scorer(teacher, rules.trainable_blocks).to(machine.device)

    materials = Materials(
        teacher,
        fresh_scorer,
        lambda: make_reference(settings, domain, teacher, machine, kept),
        rules.optimiser,
        smoothing=rules.smoothing,
        clip=rules.clip,
    )
    return rules.make_kind().make(materials)


def make_reference(
    settings: Settings, domain: Domain, teacher: Denoiser, machine: Machine, kept: Path | None
) -> Reference:
    """What the scorer calls real: the domain's data, or the teacher's samples, made once and kept with the run.

    They are the teacher's, not the run's: every seed sees the same ones, and a domain may carry those of its bundled
    teacher.
    """
    objective = settings.objective
    if objective.reference == "data":
        return DataReference(lambda n, first: domain.batches("train", n, settings.seed, start=first))
    pad = domain.vocabulary.pad
    if not current().first:
        return SampleReference(current().tell(NOTHING), settings.seed, pad)
    sampler = SamplerSettings(steps=objective.reference_steps)
    seed, batch_size = derive_seed(0, "reference"), 64
    cache = SampleCache(kept)
    carried = SampleCache(domain.sample_cache if isinstance(domain, HasSampleCache) else None)
    making = {
        "domain": domain.name,
        "model": model_hash(teacher),
        "settings": sampler.record(),
        "num": objective.reference_samples,
        "seed": seed,
        "batch_size": batch_size,
    }
    made = carried.load(making) or cache.load(making)
    if made is None:
        made = _draw_reference(domain, teacher, sampler, objective.reference_samples, seed, batch_size, machine)
        cache.save(making, made)
    rows = [torch.tensor(sample.tokens) for sample in made.samples]
    sequences = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0 if pad is None else pad)
    return SampleReference(current().tell(sequences), settings.seed, pad)


def _draw_reference(
    domain: Domain,
    teacher: Denoiser,
    sampler: SamplerSettings,
    num: int,
    seed: int,
    batch_size: int,
    machine: Machine,
) -> Generated:
    bar = Bar()
    bar.start(f"reference samples of the teacher ({sampler.steps} steps)", num)
    with autocast(machine.device, machine.precision):
        made = generate(
            domain, teacher, settings=sampler, num=num, seed=seed, batch_size=batch_size, progress=counting(bar)
        )
    bar.stop()
    return made


def save_student(
    settings: Settings,
    domain: Domain,
    student: Denoiser,
    scorer: TokenScorer | None,
    teacher: Denoiser,
    opened: RunDirectory,
) -> None:
    """``student/``: weights, scorer and the card that ``sample`` reads."""
    about = {
        **about_domain(domain, settings.data),
        "schedule": settings.objective.schedule,
        "teacher": {"name": settings.teacher, "hash": model_hash(teacher)},
        "training": {
            "objective": settings.objective.name,
            "reference": settings.objective.reference,
            "reward": settings.objective.reward.kind,
            "rollout_law": settings.objective.rollout.law,
            "rollout_grid": settings.objective.rollout.grid,
            "steps": settings.training.steps,
            "batch_size": settings.training.batch_size,
            "lr": settings.training.lr,
            "seed": settings.seed,
        },
        "git_commit": opened.record["git_commit"],
    }
    folder = opened.path / "student"
    card = save_model(folder, student, about)
    hashes = {"teacher": model_hash(teacher), "student": card["sha256"]}
    if scorer is not None:
        save_scorer(folder, scorer)
    opened.note(hashes=hashes)


def _write_samples(domain: Domain, examples: Mapping[str, Any], opened: RunDirectory) -> None:
    """The student's sequences to read: printed, and written as samples of the run."""
    chosen: list[Sample] = []
    for label, samples in examples.items():
        if label.startswith("student"):
            print(f"{label}:", *(f"  {sample.text}" for sample in samples), sep="\n")
            chosen += [
                Sample(s.text, f"{s.id}_{len(chosen) + i}", s.tokens, {**s.info, "made_by": label.replace(" ", "_")})
                for i, s in enumerate(samples, start=1)
            ]
    path: Path = opened.path / f"samples{domain.suffix}"
    if chosen:
        domain.write(path, chosen)
        registry().notify("samples", run_dir=opened.path, samples=chosen, record={"file": path.name})
    sys.stdout.flush()
