"""``distill``: make a few-step student from a teacher, save it, and compare the two."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from didi_core.checkpoints.card import save_model, save_scorer
from didi_core.commands.common import (
    RunSettings,
    about_domain,
    load_teacher,
    make_domain,
    make_keeper,
    make_parallel,
    make_run,
    note_data,
    note_machine,
    open_run,
)
from didi_core.commands.comparison import Compared, PlanSettings, compare_models, plan_of, publish, write_examples
from didi_core.commands.compiling import DISTILLED, Blocks, CompileSettings, check_compile, training_calls
from didi_core.commands.reference import REFERENCE_BATCH, teacher_samples
from didi_core.commands.sizing import PlannedRun, plan_of_sizes, seconds_per_call
from didi_core.device import Machine
from didi_core.domain.data_report import describe
from didi_core.errors import InputError
from didi_core.evaluation.held_out import check_reference
from didi_core.models.adapter import AdapterSettings, Network, adapt, merged
from didi_core.models.dropout import without_dropout
from didi_core.models.masters import with_master_weights
from didi_core.models.noise import check_noise, learning, with_noise
from didi_core.models.scorer import TokenScorer
from didi_core.objectives.base import Adapting, Materials, ObjectiveSettings
from didi_core.objectives.older import upgraded
from didi_core.objectives.registry import read_objective
from didi_core.processes import current
from didi_core.progress import print_path
from didi_core.run import Run
from didi_core.sampling.generate import COMPARED
from didi_core.storage.fingerprint import model_hash
from didi_core.storage.run_dir import RunDirectory
from didi_core.streams import generator
from didi_core.training.components import components
from didi_core.training.engine import Engine
from didi_core.training.memory import Watch, memory_advice
from didi_core.training.objective import Objective
from didi_core.training.outlines import is_outline, outlined
from didi_core.training.parallel import SHARD
from didi_core.training.placement import outlines
from didi_core.training.planning import Plan, Stage, forget_peak, print_plan, time_steps
from didi_core.training.settings import TrainingSettings
from didi_core.training.sizing import Sized
from didi_core.types import Denoiser

ADAPTED = "adapter=lora holds the weights once for all networks, with a fraction of the gradients and of AdamW."


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(PlanSettings):
    """The comparison at the end of a run."""

    enabled: bool = True


@dataclass(frozen=True)
class StudentSettings:
    """How the student differs from a copy of the teacher.

    noise: normal numbers that each sequence is given at every call, through which the tokens of one call can depend on
        each other; 0 for none.
    noise_once: they are read only where nothing is written yet, so in the first call.
    first_blocks: that call has blocks of its own, so that what it learns changes no later call.
    """

    noise: int = 0
    noise_once: bool = False
    first_blocks: bool = False

    def __post_init__(self) -> None:
        check_noise("student.", self.noise, self.noise_once, self.first_blocks)


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings, CompileSettings):
    """``configs/distill.yaml``.

    objective: ``kind``, and the keys of that kind. training: length, batch and optimiser.
    collapse: the run stops when the student's entropy falls below this fraction of the teacher's at the same states.
    adapter: None where the networks that learn are full copies of the teacher.
    cache: folder of drawn samples and their statistics; by default ``<run_dir>/reference`` and
        ``<run_dir>/evaluation``. The runs of a multirun share one, so the teacher is sampled only once for all of them.
    """

    objective: dict[str, Any] | str
    training: TrainingSettings
    collapse: float = 0.1
    teacher: str = "bundled"
    cache: Path | None = None
    adapter: AdapterSettings | None = None
    student: StudentSettings = field(default_factory=StudentSettings)
    evaluate: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.collapse < 1:
            raise InputError(f"collapse={self.collapse} is out of range: it must be in [0, 1).")
        self.rules.check(self.training, 1)
        check_compile(self.compile, self.parallel, self.training)
        if self.parallel == SHARD and self.adapter is not None:
            raise InputError(
                "parallel=shard and adapter cannot be used together: adapters share one frozen trunk, which shards of "
                "several networks cannot. Leave parallel out, or train in full without the adapter."
            )

    @cached_property
    def rules(self) -> ObjectiveSettings:
        """The settings of the objective."""
        return read_objective(self.objective, "distill")


@dataclass(frozen=True)
class Distilled:
    """What a training leaves: the student with its averaged weights, the scorer if one was trained, and the teacher.

    about: the student's card; empty in processes that do not write it.
    """

    student: Denoiser
    scorer: TokenScorer | None
    teacher: Denoiser
    about: Mapping[str, Any]


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path | Plan | Sized:
    """Distil, write ``student/``, and compare with the teacher unless ``evaluate.enabled=false``.

    Returns:
        the run directory; with ``dry_run``, which writes nothing, the plan of memory and time that it prints. For a
        large teacher the plan is of memory alone, and computed.
    """
    machine, processes = Machine.of(settings.device, settings.precision), current()
    processes.check_device(machine.device)
    processes.allow_silence(60 * settings.training.timeout)
    settings.rules.check(settings.training, processes.size)
    if settings.adapter is not None:
        settings.adapter.check_installed()
    domain = make_domain(settings.domain, settings.data)
    about = make_run(settings, domain, machine)
    if settings.dry_run and (computed := computed_plan(settings, about)) is not None:
        return computed
    teacher = without_dropout(load_teacher(domain, settings.teacher)).to(machine.device).eval().requires_grad_(False)
    lighter = "" if settings.adapter is not None else ADAPTED
    within = partial(memory_advice, settings.training, machine, processes.size, settings.rules.check, lighter)
    if settings.dry_run:
        with within() as watch:
            print_plan(planned := plan(settings, about, teacher, watch))
        return planned
    if settings.evaluate.enabled and processes.first:
        check_reference(domain)
    describe(domain)  # report faults in the data before a folder is made
    recorded = {**config, "objective": settings.rules.resolved()}
    with (
        open_run("distill", settings.domain, settings.run_dir, recorded, command_line, upgraded=upgraded) as opened,
        ExitStack() as stack,
    ):
        note_beginning(settings, about, teacher, opened)
        about = replace(about, folder=opened.path)
        student = make_student(settings, origin(settings, about, teacher), teacher)
        tried = teacher.requires_grad_(True) if is_outline(student) else student
        calls = training_calls(settings.training, DISTILLED)
        blocks = Blocks.of(settings.compile, about, tried, calls, settings.training.seconds, settings.parallel)
        stack.enter_context(blocks.running(opened))
        teacher.requires_grad_(False)
        with opened.stage("reference"):
            objective = settings.rules.prepare(materials(settings, about, teacher, student))
        with opened.stage("training"), within() as watch:
            parallel = make_parallel(settings.parallel, about, objective, [teacher], opened)
            blocks.stop(parallel.name, settings.training)
            keeper, stream = make_keeper(opened, settings.resume), partial(about.stream, "distill")
            engine = Engine(objective, about, settings.training, keeper, "distill", stream, parallel)
            watch.begin(engine.trainees, forget=True)
            engine.train()
        blocks.note(opened)  # the card has it too
        made = distilled(settings, engine, teacher, student, opened)
        del objective, engine, parallel  # and with them the networks that are needed no more
        if processes.first:
            save_student(made, opened)
            print_path("student", opened.path / "student")
        if settings.evaluate.enabled:
            compare(settings, about, made, opened)
    return opened.path


def note_beginning(settings: Settings, about: Run, teacher: Denoiser, opened: RunDirectory) -> None:
    """Print and record what the run begins with: its teacher, its data, its machine."""
    if about.processes.first:
        size = sum(parameter.numel() for parameter in teacher.parameters()) / 1e6
        print(f"teacher: {settings.teacher}, {size:.1f} M parameters, on {about.machine.label}", flush=True)
    note_data(opened, about.domain)
    note_machine(opened, about.machine, teacher)


def distilled(
    settings: Settings, engine: Engine, teacher: Denoiser, student: Denoiser, opened: RunDirectory
) -> Distilled:
    """The networks of a finished training, whole. AdamW, averages and all shards are given up."""
    opened.note(updates=engine.updates)
    engine.release()
    parallel, networks = engine.parallel, [trainee.learner.network for trainee in engine.trainees]
    teacher, student = parallel.whole(teacher), parallel.whole(student)
    scorer = next((parallel.whole(network) for network in networks if isinstance(network, TokenScorer)), None)
    parallel.close()
    student, scorer = merged(student), merged(scorer) if scorer is not None else None
    return Distilled(student, scorer, teacher, card(settings, engine, teacher, opened) if opened.writes else {})


def compare(settings: Settings, about: Run, made: Distilled, opened: RunDirectory) -> None:
    """Compare the student with the teacher: write the report, and samples to read."""
    with opened.stage("evaluation"):
        networks = Compared(student=made.student, scorer=made.scorer, teacher=made.teacher)
        cache = settings.cache or opened.path / "evaluation"
        found = compare_models(about, networks, settings.evaluate, cache_dir=cache)
        if found is not None:
            write_examples(about.domain, found.examples, opened.path)
            publish(opened.path, found, opened.record, opened.path)
            print(f"next: didi sample {shlex.quote(f'run={opened.path}')} num=100 steps=4")


def origin(settings: Settings, about: Run, teacher: Denoiser) -> Denoiser:
    """What copies of the teacher are made of: the teacher, or its outline where they may be sharded."""
    return outlined(teacher) if settings.adapter is None and outlines(settings.parallel, about) else teacher


def make_student(settings: Settings, teacher: Denoiser, like: Denoiser | None = None) -> Denoiser:
    """A copy of the teacher that learns, in full or by an adapter, with the noise that it is to read.

    like: the teacher with its values, where the one that is copied is an outline.
    """
    wanted = settings.student
    noisy = with_noise(teacher, wanted.noise, settings.seed, like, wanted.noise_once, wanted.first_blocks)
    made = learning(without_dropout(noisy))
    adapting = adapter(settings, teacher)
    return with_master_weights(made) if adapting is None else adapting(made, "student")


def adapter(settings: Settings, teacher: Denoiser) -> Adapting | None:
    """What makes adapters of copies of the teacher; None where they learn in full."""
    if settings.adapter is None:
        return None
    return partial(_adapted, teacher=teacher, how=settings.adapter, seed=settings.seed)


def _adapted(network: Network, name: str, *, teacher: Denoiser, how: AdapterSettings, seed: int) -> Network:
    return adapt(network, teacher, how, seed, name)


def materials(settings: Settings, about: Run, teacher: Denoiser, student: Denoiser) -> Materials:
    """What the objective is made of. student: of ``make_student``."""
    kept = settings.cache or (about.folder / "reference" if about.folder else None)
    return Materials(
        about,
        settings.training,
        student,
        teacher,
        lambda num, steps: teacher_samples(about, teacher, num, steps, kept),
        settings.collapse,
        adapter(settings, teacher),
        outline=outlined(teacher) if is_outline(student) else None,
    )


def computed_plan(settings: Settings, about: Run) -> Sized | None:
    """What the run will hold, computed; None where the teacher is small enough to be tried."""

    def prepare(run: Run, teacher: Denoiser) -> Objective[Any]:
        given = materials(settings, run, teacher, make_student(settings, teacher))
        domain, num = run.domain, settings.training.batch_size
        masked = domain.template(domain.lengths(num, generator(settings.seed, "plan")))
        return settings.rules.prepare(replace(given, teacher_samples=lambda *_: masked.clamp_max(1)))

    size, parallel = about.processes.size, settings.parallel
    asked = PlannedRun(settings.domain, settings.data, settings.teacher, settings.training, size, parallel, prepare)
    return plan_of_sizes(asked, about.domain, about)


def plan(settings: Settings, about: Run, teacher: Denoiser, watch: Watch | None = None) -> Plan:
    """Memory and time of the run, measured in a few steps on one batch of the reference. Nothing is written.

    The reference is made in two calls: all rows of the first are equal and computed once, the second is as any other.
    """
    training, asked = settings.training, []
    forget_peak(about.device)

    def few(num: int, steps: int) -> Int[Tensor, "S L"]:
        asked.append((num, steps))
        return teacher_samples(about, teacher, max(training.batch_size, min(num, REFERENCE_BATCH)), 2, None)

    student = make_student(settings, origin(settings, about, teacher), teacher)
    given = replace(materials(settings, about, teacher, student), teacher_samples=few)
    objective = settings.rules.prepare(given)
    parallel = make_parallel(settings.parallel, about, objective, [teacher])
    measured = time_steps(objective, about, training, parallel, watch.begin if watch else None)
    held, teacher = components({"teacher": teacher}, measured.trainees), parallel.whole(teacher)
    call = seconds_per_call(about, teacher, training.batch_size)
    stages = [*measured.stages]
    stages[:0] = [Stage("reference, unless kept: calls x samples", num * steps, call) for num, steps in asked]
    if settings.evaluate.enabled:
        stages.append(Stage("evaluation: calls x samples", settings.evaluate.calls(), call))
    lengths = about.domain.lengths(1000, generator(settings.seed, "plan"))
    return Plan(
        f"{about.machine.label}, {about.machine.precision}",
        held,
        measured.peak,
        measured.before,
        training.batch_size,
        training.batch_size * sum(lengths) / len(lengths),
        tuple(stages),
    )


def card(settings: Settings, engine: Engine, teacher: Denoiser, opened: RunDirectory) -> dict[str, Any]:
    """The student's card."""
    training = settings.training
    return {
        **about_domain(engine.run.domain, settings.data),
        "teacher": {"name": settings.teacher, "hash": model_hash(teacher)},
        "training": {
            "objective": settings.rules.name,
            **engine.objective.record(),
            "steps": engine.updates,
            "batch_size": training.batch_size,
            "lr": training.lr,
            "seed": settings.seed,
            **({} if settings.adapter is None else {"adapter": settings.adapter.record()}),
            "compile": opened.record["compile"],
        },
        COMPARED: plan_of(settings.evaluate),
        "git_commit": opened.record["git_commit"],
    }


def save_student(made: Distilled, opened: RunDirectory) -> None:
    """Write ``student/``: weights, scorer and the card that ``sample`` reads."""
    folder = opened.path / "student"
    written = save_model(folder, made.student, made.about)
    if made.scorer is not None:
        save_scorer(folder, made.scorer)
    opened.note(hashes={"teacher": made.about["teacher"]["hash"], "student": written["sha256"]})
