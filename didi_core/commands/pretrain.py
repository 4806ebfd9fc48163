"""``pretrain``: train a teacher (objective=nelbo) or a judge (objective=autoregressive) on a domain's data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from didi_core.checkpoints.card import save_model
from didi_core.checkpoints.judge import save_judge
from didi_core.commands.common import (
    RunSettings,
    about_domain,
    make_domain,
    make_keeper,
    make_parallel,
    make_run,
    note_data,
    note_machine,
    open_run,
)
from didi_core.commands.compiling import GRAPHS, PRETRAINED, Blocks, CompileSettings, check_compile, training_calls
from didi_core.config import build
from didi_core.device import Machine
from didi_core.domain.data_report import describe
from didi_core.errors import InputError, at_least, unknown
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.older import upgraded
from didi_core.objectives.registry import read_objective
from didi_core.processes import current
from didi_core.progress import print_path
from didi_core.report.pretraining import write_pretraining
from didi_core.run import Run
from didi_core.storage.run_dir import RunDirectory
from didi_core.streams import generator, seeded
from didi_core.training.components import components
from didi_core.training.engine import Engine
from didi_core.training.memory import Watch, memory_advice
from didi_core.training.planning import Plan, forget_peak, print_plan, time_steps
from didi_core.training.settings import TrainingSettings
from didi_core.types import Domain

CONFIGS = {"dit": DiTConfig, "gpt2": JudgeConfig}


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings, CompileSettings):
    """``configs/pretrain.yaml``.

    objective: ``kind``, and the keys of that kind. training: length, batch and optimiser.
    model: ``architecture`` and the sizes of that architecture.
    validate_every: steps between estimates of the validation loss, on ``validation_batches`` fixed batches at fixed
        times.
    """

    objective: dict[str, Any] | str
    model: dict[str, Any]
    training: TrainingSettings
    validate_every: int = 200
    validation_batches: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, validate_every=self.validate_every, validation_batches=self.validation_batches)
        wanted, given = self.rules.architecture, self.model.get("architecture")
        if not isinstance(given, str) or given not in CONFIGS:
            raise unknown("architecture", str(given), CONFIGS, "model.architecture")
        if given != wanted:
            fix = "model=judge" if wanted == "gpt2" else "model=tiny"
            raise InputError(f"objective={self.rules.name} trains a {wanted}, and the model is a {given}: set {fix}.")
        check_compile(self.compile, self.parallel, self.training)
        if self.compile == GRAPHS:
            raise InputError(f"compile={GRAPHS} replays calls without gradients, and pretrain makes few: leave it out.")
        self.sizes  # noqa: B018  # raises for wrong sizes before anything is made

    @cached_property
    def rules(self) -> ObjectiveSettings:
        """The settings of the objective."""
        return read_objective(self.objective, "pretrain")

    @cached_property
    def sizes(self) -> DiTConfig | JudgeConfig:
        """Configuration of the network."""
        given = {key: value for key, value in self.model.items() if key != "architecture"}
        made: DiTConfig | JudgeConfig = build(CONFIGS[self.model["architecture"]], given, "model")
        return made


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path | Plan:
    """Train, and write ``model/`` (a teacher) or ``judge/`` into the run directory.

    Returns:
        the run directory; with ``dry_run``, which writes nothing, the plan of memory and time that it prints.
    """
    machine, processes = Machine.of(settings.device, settings.precision), current()
    processes.check_device(machine.device)
    processes.allow_silence(60 * settings.training.timeout)
    settings.rules.check(settings.training, processes.size)
    domain = make_domain(settings.domain, settings.data)
    about = make_run(settings, domain, machine)
    within = partial(memory_advice, settings.training, machine, processes.size, settings.rules.check)
    if settings.dry_run:
        with within() as watch:
            planned = plan(settings, about, watch)
        print_plan(planned)
        return planned
    describe(domain)  # report faults in the data before a folder is made
    recorded = {**config, "objective": settings.rules.resolved()}
    with open_run("pretrain", settings.domain, settings.run_dir, recorded, command_line, upgraded=upgraded) as opened:
        note_data(opened, domain)
        about = replace(about, folder=opened.path)
        network = new_model(settings.sizes, domain, settings.seed).to(machine.device)
        note_machine(opened, machine, network)
        calls = training_calls(settings.training, PRETRAINED)
        blocks = Blocks.of(settings.compile, about, network, calls, settings.training.seconds, settings.parallel)
        with opened.stage("training"), within() as watch, blocks.running(opened):
            objective, keeper = (
                settings.rules.prepare(materials(settings, about, network)),
                make_keeper(opened, settings.resume),
            )
            # Slices of pretraining draw from CPU streams on every machine.
            stream = partial(generator, settings.seed, "train")
            parallel = make_parallel(settings.parallel, about, objective, run=opened)
            blocks.stop(parallel.name, settings.training)
            engine = Engine(objective, about, settings.training, keeper, "pretrain", stream, parallel)
            watch.begin(engine.trainees, forget=True)
            curve = engine.train()
            engine.release()
            network = parallel.whole(network)
            parallel.close()
        opened.note(updates=engine.updates)
        if processes.first:
            folder = save(network, card(settings, engine, opened), opened)
            made = f"{'Judge' if isinstance(network, Judge) else 'Teacher'}: {settings.domain}"
            page = write_pretraining(opened.path, made, curve, opened.record)
            print(f"validation loss: {list(curve.values())[-1]:.4f} nats per position")
            print_path("model", folder)
            print_path("report", page)
    return opened.path


def materials(settings: Settings, about: Run, network: DiT | Judge) -> Materials:
    """The inputs of the objective. network: one with fresh weights."""
    return Materials(
        about,
        settings.training,
        network,
        validate_every=settings.validate_every,
        validation_batches=settings.validation_batches,
    )


def plan(settings: Settings, about: Run, watch: Watch | None = None) -> Plan:
    """Memory and time of the run, measured in a few steps. Nothing is written."""
    training = settings.training
    forget_peak(about.device)
    network = new_model(settings.sizes, about.domain, settings.seed).to(about.device)
    given = replace(materials(settings, about, network), validation_batches=1)
    objective = settings.rules.prepare(given)
    parallel = make_parallel(settings.parallel, about, objective)
    measured = time_steps(objective, about, training, parallel, watch.begin if watch else None)
    batch = next(about.domain.batches("train", training.batch_size, settings.seed))
    return Plan(
        f"{about.machine.label}, {about.machine.precision}",
        components({}, measured.trainees),
        measured.peak,
        measured.before,
        len(batch),
        batch.numel(),
        measured.stages,
    )


def new_model(sizes: DiTConfig | JudgeConfig, domain: Domain, seed: int) -> DiT | Judge:
    """A network whose weights are drawn from their own stream."""
    with seeded(seed, "weights"):
        return DiT(sizes, domain.vocabulary) if isinstance(sizes, DiTConfig) else Judge(sizes, domain.vocabulary)


def card(settings: Settings, engine: Engine, opened: RunDirectory) -> dict[str, Any]:
    """The card of the finished network."""
    return {
        **about_domain(engine.run.domain, settings.data),
        "training": {
            "objective": settings.rules.name,
            **engine.objective.record(),
            "seed": settings.seed,
            **asdict(settings.training),
            "steps": engine.updates,
            "compile": opened.record["compile"],
        },
        "command": shlex.join(["python", "-m", "didi_core", *opened.record["command_line"]]),
        "versions": opened.record["versions"],
        "validation": {str(step): round(value, 5) for step, value in engine.curve.values.items()},
        "git_commit": opened.record["git_commit"],
    }


def save(network: DiT | Judge, about: dict[str, Any], opened: RunDirectory) -> Path:
    """Write ``judge/`` or ``model/``: the network with its card. Returns the folder."""
    if isinstance(network, Judge):
        save_judge(opened.path / "judge", network, about)
        return opened.path / "judge"
    written = save_model(opened.path / "model", network, about)
    opened.note(hashes={"model": written["sha256"]})
    return opened.path / "model"
