"""``evaluate``: compare a student with its teacher over steps, or measure files of samples, with reference rows.

Without keys it is the comparison at the end of the run once more, and gives the numbers of the run's own report.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from didi_core.checkpoints.card import domain_name, load_denoiser, load_scorer, model_folder, read_card
from didi_core.commands.common import (
    CommonSettings,
    load_teacher,
    make_domain,
    make_run,
    note_data,
    note_machine,
    open_run,
)
from didi_core.commands.comparison import (
    AUTO,
    MODEL,
    PLAN_KEYS,
    STUDENT,
    Compared,
    PlanSettings,
    compare_models,
    plan_of,
    publish,
)
from didi_core.commands.compiling import Blocks, CompileSettings, sampling_calls
from didi_core.commands.grammar import written
from didi_core.commands.places import placed_config
from didi_core.config import Choice, build
from didi_core.device import Machine
from didi_core.errors import InputError
from didi_core.evaluation.contenders import Measuring
from didi_core.evaluation.evaluate import evaluate_files
from didi_core.metrics.judge import JudgePerplexity
from didi_core.processes import current
from didi_core.run import Run
from didi_core.sampling.autoregressive import CausalGenerator, load_generator, same_weights
from didi_core.sampling.batching import length_ranges
from didi_core.sampling.generate import COMPARED, trained_with
from didi_core.sampling.laying_out import check_reach
from didi_core.storage.files import inside
from didi_core.storage.run_dir import RECORD, read_record
from didi_core.storage.sample_files import read_samples, read_sets
from didi_core.types import Domain

FEWER = {128: 200}  # num_at where neither the command nor a comparison at the end of the run says otherwise


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings, CompileSettings):
    """``configs/evaluate.yaml``. ``domain`` and ``data`` are read from the run; with ``samples`` they must be given.

    labels: one for each file of samples; files with the same label form one set.
    reference: a file of natural samples to compare with, instead of the domain's held-out ones.
    judge: used instead of ``data.judge``.
    num ... power: keys of ``PlanSettings``; what is None, or ``auto``, is as in the comparison at the end of the run.
    """

    run: Path | None = None
    samples: tuple[Path, ...] | None = None
    labels: tuple[str, ...] = ()
    reference: Path | None = None
    teacher: str | None = None
    autoregressive: str | None = None
    judge: str | None = None
    domain: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None
    length: str | None = None
    num: int | None = None
    num_at: dict[Any, Any] = field(default_factory=lambda: dict(FEWER))
    batch_size: int | None = None
    seeds: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None
    teacher_steps: tuple[int, ...] | None = None
    legacy_steps: tuple[int, ...] | None = None
    temperatures: tuple[float, ...] | None = None
    samplers: tuple[Choice, ...] | None = None
    laws: tuple[Choice, ...] = (AUTO,)
    grids: tuple[Choice, ...] = (AUTO,)
    power: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.run is None) == (not self.samples):
            raise InputError("give either run=<run directory of distill> or samples=<file> (with domain=<name>).")
        if self.labels and not self.samples:
            raise InputError("labels name files of samples: give samples=[...] too.")
        if self.samples and self.domain is None:
            raise InputError("samples are read by a domain: give domain=<name>.")
        self.plan({})

    def judged(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The keys of a domain, with the judge that is asked for."""
        return data if self.judge is None else {**data, "judge": self.judge}

    def given(self) -> dict[str, Any]:
        """The keys of the plan that have a value of their own; ``auto`` is none."""
        values = plan_of(self)
        return {name: value for name, value in values.items() if value not in (None, (AUTO,), FEWER)}

    def plan(self, card: Mapping[str, Any]) -> PlanSettings:
        """What is compared: these settings, and for the others those of the comparison at the end of the run.

        Args:
            card: of the student, with that comparison where there was one.
        """
        law, grid = trained_with(card)
        compared = card.get(COMPARED) or {}
        own = {"num_at": FEWER, "laws": [law], "grids": [grid]} | {n: compared[n] for n in PLAN_KEYS if n in compared}
        if self.num is not None:
            own["num_at"] = FEWER
        made = replace(build(PlanSettings, own), **self.given())
        return replace(
            made,
            laws=tuple(law if one == AUTO else one for one in made.laws),
            grids=tuple(grid if one == AUTO else one for one in made.grids),
        )


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Measure, write report.json, report.html and plots, and print the tables. Returns the folder."""
    measure = _evaluate_files if settings.samples else _evaluate_run
    return measure(settings, config, command_line)


def _evaluate_files(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Files of samples beside held-out data."""
    run = make_run(settings, make_domain(settings.domain or "", settings.judged(settings.data)))
    sets = read_sets(run.domain, settings.samples or (), settings.labels)
    reference = read_samples(run.domain, settings.reference) if settings.reference else ()
    with (
        open_run("evaluate", run.domain.name, settings.out, config, command_line, "out") as opened,
        opened.stage("evaluation"),
    ):
        note_data(opened, run.domain)
        if not run.processes.first:  # nothing is sampled, so there is nothing to share
            return opened.path
        kept = opened.path / "evaluation"
        plan = settings.plan({})
        how = Measuring(plan.num, seeds=plan.seeds[:1], reference=reference, cache_dir=kept)
        publish(opened.path, evaluate_files(run, sets, how), opened.record)
    return opened.path


@dataclass(frozen=True)
class Opened:
    """A run to evaluate: its folder of networks, its card and configuration, and the networks.

    made_by: the configuration of its run; empty for a model without a run.
    """

    folder: Path
    card: Mapping[str, Any]
    made_by: Mapping[str, Any]
    run: Run
    networks: Compared

    @classmethod
    def of(cls, settings: Settings) -> Opened:
        """Load the networks of the settings."""
        folder = model_folder(settings.run or Path())
        made_by = _made_by(folder)
        known = made_by.get("evaluate", {})
        compared = {name: known[name] for name in PLAN_KEYS if name in known}
        card = {COMPARED: compared} | read_card(folder)  # the cards of older runs do not have it
        name = domain_name(card, str(folder))
        if settings.domain not in (None, name):
            raise InputError(
                f"domain={settings.domain}, but {folder} holds a model of domain {name}. "
                "Leave domain out."
            )
        if settings.length is not None:
            check_reach([high for _, high in length_ranges(settings.length)], card)
        data = settings.data or made_by.get("data") or card.get("data") or {}
        domain = make_domain(name, settings.judged(data))
        named = settings.teacher or made_by.get("teacher")
        networks = Compared(
            student=load_denoiser(folder),
            scorer=load_scorer(folder),
            teacher=load_teacher(domain, named) if named else None,
            autoregressive=_causal(settings.autoregressive, domain) if settings.autoregressive else None,
            name=STUDENT if named or folder.name == STUDENT else MODEL,
        )
        machine = Machine.of(settings.device, settings.precision)
        current().check_device(machine.device)
        return cls(folder, card, made_by, make_run(settings, domain, machine), networks)


def _evaluate_run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Compare the networks of a run with their teacher."""
    source = Opened.of(settings)
    run = source.run
    reference = read_samples(run.domain, settings.reference) if settings.reference else ()
    with open_run("evaluate", run.domain.name, settings.out, config, command_line, "out") as opened:
        note_machine(opened, run.machine, source.networks.student)
        note_data(opened, run.domain)
        opened.note(hashes={"student": source.card["sha256"]})
        plan = settings.plan(source.card)
        _print_plan(settings, plan, source.card)
        calls = sampling_calls(plan.calls(), plan.batch_size, 1)
        blocks = Blocks.of(settings.compile, run, source.networks.student.to(run.device), calls)
        with opened.stage("evaluation"), blocks.running(opened):
            found = compare_models(
                run,
                source.networks,
                plan,
                cache_dir=_cache_dir(source.folder, source.made_by.get("cache"), opened.path),
                reference=reference,
                length=settings.length,
            )
            if found is not None:
                publish(opened.path, found, opened.record, source.folder.parent)
    return opened.path


def _print_plan(settings: Settings, plan: PlanSettings, card: Mapping[str, Any]) -> None:
    """Print what the student's training and its own comparison decided."""
    trained = dict(zip(("laws", "grids"), ((choice,) for choice in trained_with(card)), strict=True))
    usual = plan_of(PlanSettings()) | dict.fromkeys(trained)
    names = [name for name in usual if name not in settings.given()]
    found = {name: value for name in names if (value := getattr(plan, name)) not in (usual[name], FEWER)}
    by_training = {name: value for name, value in found.items() if trained.get(name) == value}
    if by_training and (card.get("training") or {}).get("rollout_law"):
        print(f"{_written(by_training)}: as the student was trained", flush=True)
        found = {name: value for name, value in found.items() if name not in by_training}
    if card.get(COMPARED) and found:
        print(f"{_written(found)}: as in the run's own comparison", flush=True)


def _written(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={written(list(v) if isinstance(v, tuple) else v)}" for name, v in values.items())


def _causal(name: str, domain: Domain) -> CausalGenerator:
    """The autoregressive model for comparison. Raises InputError for the judge itself."""
    made = load_generator(name, domain.vocabulary)
    for metric in domain.metrics():
        judge = metric.judge if isinstance(metric, JudgePerplexity) else None
        if isinstance(judge, nn.Module) and same_weights(judge.network, made.network):
            raise InputError(
                f"autoregressive={name} is the judge of this comparison: it would be measured by its own likelihood. "
                "Give another model, or another judge."
            )
    return made


def _cache_dir(model: Path, shared: str | None, out: Path) -> Path:
    """Folder of cached samples: in the run of the model, or shared by the runs of its multirun.

    Later evaluations do not draw them again.
    """
    run = model.parent
    if shared and os.access(shared, os.W_OK):
        return Path(shared)
    kept = run if (run / RECORD).is_file() and os.access(run, os.W_OK) else out
    return inside(kept, "evaluation")


def _made_by(folder: Path) -> dict[str, Any]:
    """The configuration of the run that contains the model; empty for a model without a run."""
    path = folder.parent / RECORD
    return placed_config(read_record(path)) if path.is_file() else {}
