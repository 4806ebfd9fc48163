"""Common code of the commands: shared keys, run directories, and hooks that listen to training."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from didi_core.checkpoints.card import architecture_of
from didi_core.checkpoints.importers.parts import check_vocabulary
from didi_core.commands.places import FILES, KEPT, with_places
from didi_core.device import PRECISIONS, Machine, check_device
from didi_core.domain.data_report import describe
from didi_core.errors import InputError, unknown
from didi_core.models.attention import resolve_backend
from didi_core.plugins import registry
from didi_core.processes import current
from didi_core.progress import Bar, Reporter, Silent, print_path
from didi_core.run import Run
from didi_core.storage.run_dir import RunDirectory, named
from didi_core.streams import generator
from didi_core.training.objective import Objective, Scalars
from didi_core.training.parallel import AUTO, PARALLEL, SHARD, Parallel
from didi_core.training.placement import chosen
from didi_core.training.state import FolderKeeper, Keeper
from didi_core.types import Denoiser, Domain

LENGTHS_IN_CARD = 2000
TRAINING = ("distill", "pretrain")  # commands whose batches are cut into slices for so many processes
AT_ONCE = ("filter",)  # commands that end at once, and then say where their folder is
RESUME = ("latest", "previous")
DATA_REPORT = "data_report"  # entry of a run's record
NOTHING: Any = None  # placeholder that receiving processes pass to a broadcast


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """The keys of every command."""

    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_device(self.device)
        self.check_precision(PRECISIONS)
        if self.seed < 0:
            raise InputError(f"seed={self.seed} is out of range: it must not be negative.")

    def check_precision(self, known: tuple[str, ...]) -> None:
        """Raise InputError for a precision that the command does not know."""
        if self.precision == "legacy_fp32":
            raise InputError(
                "precision=legacy_fp32 is a sampler now: give sampler=joint_fp32 (evaluate: samplers=[joint_fp32])."
            )
        if self.precision not in known:
            raise unknown("precision", self.precision, known)


@dataclass(frozen=True, kw_only=True)
class RunSettings(CommonSettings):
    """The keys of commands that train in a run directory.

    parallel: what several processes hold: ``replicate`` (all networks each), ``shard`` (a part each), or ``auto``
        (``shard`` where it fits and ``replicate`` does not).
    """

    domain: str
    data: dict[str, Any] = field(default_factory=dict)
    run_dir: Path | None = None
    resume: str = "latest"
    dry_run: bool = False
    parallel: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume not in RESUME:
            raise unknown("resume", self.resume, RESUME)
        if self.parallel not in PARALLEL:
            raise unknown("parallel", self.parallel, PARALLEL)


def make_domain(name: str, data: Mapping[str, Any]) -> Domain:
    """The domain of that name with the settings of the config node ``data``."""
    return registry().domain(name, data)


def load_teacher(domain: Domain, name: str) -> Denoiser:
    """The domain's teacher of that name. Raises InputError where its tokens are not the domain's."""
    teacher = domain.teacher(name)
    check_vocabulary(teacher.vocabulary, domain.vocabulary, f"teacher={name}")
    return teacher


def default_run_dir(command: str, domain: str) -> Path:
    """``outputs/<command>/<domain>/<time>``, with a number if that folder exists."""
    base = Path("outputs") / command / domain / time.strftime("%Y-%m-%d_%H-%M-%S")
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}_{number}")
    return path


def make_run(settings: CommonSettings, domain: Domain, machine: Machine | None = None) -> Run:
    """The context of a command, before it has a folder.

    Args:
        machine: overrides ``device`` and ``precision``.
    """
    machine = machine or Machine.of(settings.device, settings.precision)
    return Run(domain, machine, settings.seed, None, current(), make_reporter())


@contextmanager
def open_run(
    command: str,
    domain: str,
    run_dir: Path | None,
    config: Mapping[str, Any],
    command_line: tuple[str, ...],
    key: str = "run_dir",
    upgraded: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Iterator[RunDirectory]:
    """The run directory of a command. At a successful end, plugins are notified; refused before anything else was
    written, it is left free for other settings.

    key, upgraded: as in ``RunDirectory.open``.

    Process 0 opens the directory and broadcasts its path to the others.
    """
    processes = current()
    if not processes.first:
        followed = RunDirectory.follow(*processes.broadcast(NOTHING))
        with named(followed.path):
            yield followed
        return
    path = run_dir or default_run_dir(command, domain)
    whole = {"command": command, **config}
    bound = command in TRAINING
    with RunDirectory.open(path, whole, command_line, processes.size, key, upgraded, bound) as run:
        processes.broadcast((run.path, run.record))
        if command not in AT_ONCE:
            print_path("run directory", run.path)
        yield run
        run.note(finished=True)
        registry().notify("run_end", run_dir=run.path, record=run.record)


def note_machine(run: RunDirectory, machine: Machine, model: nn.Module) -> None:
    """Record device, precision and attention backend of the run.

    Raises:
        InputError: the run was begun in another precision, as where ``precision=auto`` means another on this machine.
    """
    before = run.record.get("precision", machine.precision)
    if before != machine.precision:
        raise InputError(
            f"{run.path} was begun in {before}, and here, on {machine.label}, precision=auto is {machine.precision}. "
            "Continue it on a device such as it began on (device=...), or name another place."
        )
    run.note(
        device=machine.label,
        precision=machine.precision,
        attention=attention_label(model, machine),
        backend=current().backend(machine.device),
    )


def note_data(run: RunDirectory, domain: Domain) -> None:
    """Print what the domain did with the user's data, and put it into the run's record.

    Raises:
        InputError: the run was begun with data of which other numbers were read or used.
    """
    report = describe(domain)
    if report is None or not current().first:
        return
    print(report, flush=True)
    found, before = report.record(), run.record.get(DATA_REPORT)
    if before is not None and before != found:
        changes = [f"{key}: {before.get(key)}, now {value}" for key, value in found.items() if before.get(key) != value]
        raise InputError(
            f"{', '.join(report.files)}: the data are not those with which {run.path} was begun "
            f"({'; '.join(changes)}). Restore them, or begin another run."
        )
    run.note(**{DATA_REPORT: found})


def make_parallel(
    wanted: str,
    about: Run,
    objective: Objective[Any],
    frozen: Sequence[nn.Module] = (),
    run: RunDirectory | None = None,
) -> Parallel:
    """How the processes share the networks of a run: in its record, and in a message where there are several."""
    made, reason = chosen(wanted, about, objective.learners(), frozen)
    if wanted == SHARD or about.processes.size > 1:
        about.reporter.message(f"parallel={made.name} ({reason})")
    if run is not None:
        run.note(parallel=f"{made.name} ({reason})")
    return made


def make_keeper(run: RunDirectory, resume: str) -> Keeper:
    """The keeper of a run's checkpoints and metrics, which notifies plugins of every logged step."""

    def announce(step: int, scalars: Scalars) -> None:
        registry().notify("step", run_dir=run.path, step=step, scalars=scalars)

    return FolderKeeper(run.path, resume, str(run.record.get("id", "")), current(), announce)


def make_reporter() -> Reporter:
    """A progress bar in process 0; nothing in the others."""
    return Bar() if current().first else Silent()


def attention_label(model: nn.Module, machine: Machine) -> str:
    """The attention backend that a network uses on that machine, and why."""
    if architecture_of(model) is None:
        return "the network's own"
    backend = resolve_backend(model.config.attention, machine.device, machine.dtype)  # type: ignore[union-attr, arg-type]
    return f"{backend.name} ({backend.reason})"


def about_domain(domain: Domain, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a card for sampling without the training data: the domain's settings, a histogram of lengths.

    A tokenizer or a judge of this machine is named by its whole path, so that the model is read from any folder.
    """
    kept = with_places(data, KEPT, Path.cwd())
    report = describe(domain)
    drawn = Counter(domain.lengths(LENGTHS_IN_CARD, generator(0, "lengths in card")))
    return {
        "domain": domain.name,
        "data": {key: value for key, value in kept.items() if key not in FILES},
        "lengths": {str(length): drawn[length] for length in sorted(drawn)},
        **({} if report is None else {"data_report": report.record()}),
    }
