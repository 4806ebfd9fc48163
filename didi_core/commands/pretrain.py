"""``pretrain``: a teacher (objective=nelbo) or a judge (objective=autoregressive) from a domain's data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from didi_core.checkpoints.card import save_model
from didi_core.checkpoints.judge import save_judge
from didi_core.commands.common import (
    RunSettings,
    about_domain,
    make_domain,
    make_keeper,
    make_reporter,
    note_machine,
    open_run,
)
from didi_core.config import build
from didi_core.device import Machine
from didi_core.errors import InputError, unknown
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.objectives.autoregressive import autoregressive_loss
from didi_core.objectives.pretrain import Loss, nelbo_loss, pretrain
from didi_core.processes import current
from didi_core.progress import Silent
from didi_core.storage.run_dir import RunDirectory
from didi_core.streams import seeded
from didi_core.training.planning import TIMED, Plan, Stage, Stopwatch, components, print_plan
from didi_core.training.settings import PretrainSettings
from didi_core.types import Domain

ARCHITECTURES = {"nelbo": "dit", "autoregressive": "gpt2"}
CONFIGS = {"dit": DiTConfig, "gpt2": JudgeConfig}


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings, PretrainSettings):
    """``configs/pretrain.yaml``. ``model`` is ``architecture`` and the sizes of that architecture."""

    model: dict[str, Any]

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        PretrainSettings.__post_init__(self)
        wanted = ARCHITECTURES[self.objective]
        given = self.model.get("architecture")
        if given not in CONFIGS:
            raise unknown("architecture", str(given), CONFIGS, "model.architecture")
        if given != wanted:
            fix = "model=judge" if wanted == "gpt2" else "model=tiny"
            raise InputError(f"objective={self.objective} trains a {wanted}, and the model is a {given}: set {fix}.")
        self.sizes  # noqa: B018  # refuse wrong sizes before anything is made

    @cached_property
    def sizes(self) -> DiTConfig | JudgeConfig:
        """Config of the network."""
        given = {key: value for key, value in self.model.items() if key != "architecture"}
        made: DiTConfig | JudgeConfig = build(CONFIGS[self.model["architecture"]], given, "model")
        return made


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path | Plan:
    """Train, and write ``model/`` (a teacher) or ``judge/`` into the run directory."""
    machine, processes = Machine.of(settings.device, settings.precision), current()
    processes.check_device(machine.device)
    settings.training.part(processes.size)
    domain = make_domain(settings.domain, settings.data)
    if settings.dry_run:
        found = plan(settings, domain, machine)
        print_plan(found)
        return found
    with open_run("pretrain", settings.domain, settings.run_dir, config, command_line) as opened:
        model = new_model(settings.sizes, domain, settings.seed)
        note_machine(opened, machine, model)
        loss = make_loss(settings)
        with opened.stage("training"):
            curve = pretrain(
                domain,
                model,
                loss,
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
        folder = _save(settings, domain, model, curve, opened)
        print(f"validation loss {list(curve.values())[-1]:.4f} nats per position. Model: {folder}")
    return opened.path


def make_loss(settings: Settings) -> Loss:
    """What the objective minimises."""
    return nelbo_loss(settings.schedule, settings.weight_clip) if settings.objective == "nelbo" else autoregressive_loss


def plan(settings: Settings, domain: Domain, machine: Machine) -> Plan:
    """Memory and time of the run, from a few steps of it; nothing is written."""
    training = settings.training
    few = replace(
        settings,
        training=replace(training, steps=TIMED + 1, log_every=1),
        validate_every=TIMED + 2,
        validation_batches=1,
    )
    watch, model = Stopwatch(machine.device), new_model(settings.sizes, domain, settings.seed)
    pretrain(
        domain, model, make_loss(settings), few, seed=settings.seed,
        keeper=watch, reporter=Silent(), device=machine.device, precision=machine.precision,
    )  # fmt: skip
    batch = next(domain.batches("train", training.batch_size, settings.seed))
    found = components({}, watch.parts)
    stages = (Stage("training steps", training.steps, watch.seconds),)
    return Plan(f"{machine.label}, {machine.precision}", found, watch.peak(), len(batch), batch.numel(), stages)


def new_model(sizes: DiTConfig | JudgeConfig, domain: Domain, seed: int) -> DiT | Judge:
    """A network with weights drawn from a stream of its own."""
    with seeded(seed, "weights"):
        return DiT(sizes, domain.vocabulary) if isinstance(sizes, DiTConfig) else Judge(sizes, domain.vocabulary)


def _save(
    settings: Settings, domain: Domain, model: DiT | Judge, curve: Mapping[int, float], opened: RunDirectory
) -> Path:
    """The finished network with its card."""
    about = {
        **about_domain(domain, settings.data),
        "schedule": settings.schedule,
        "training": {
            "objective": settings.objective,
            "weight_clip": settings.weight_clip,
            "seed": settings.seed,
            **asdict(settings.training),
        },
        "command": shlex.join(["python", "-m", "didi_core", *opened.record["command_line"]]),
        "versions": opened.record["versions"],
        "validation": {str(step): round(value, 5) for step, value in curve.items()},
        "git_commit": opened.record["git_commit"],
    }
    if isinstance(model, Judge):
        save_judge(opened.path / "judge", model, about)
        return opened.path / "judge"
    card = save_model(opened.path / "model", model, about)
    opened.note(hashes={"model": card["sha256"]})
    return opened.path / "model"
