"""What a run will need, measured in a few real steps before it starts: memory per network, time per stage."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from didi_core.progress import Silent
from didi_core.run import Run
from didi_core.training.components import Component, in_gib, largest_gradients
from didi_core.training.engine import Engine
from didi_core.training.objective import Batch, Learner, Objective, Scalars, Slice, Terms
from didi_core.training.parallel import Parallel
from didi_core.training.settings import TrainingSettings
from didi_core.training.state import Stateful
from didi_core.training.trainee import Trainee

TIMED = 3  # steps that are timed, after a first one that is not
WAITING = 2  # steps of the warm-up of the result that are made, of which the last is timed
GRADIENTS = "gradients, of one network at a time"


@dataclass(frozen=True)
class Stage:
    """A stage of a run: number of units of work, and seconds per unit."""

    name: str
    units: float
    seconds_each: float

    @property
    def seconds(self) -> float:
        return self.units * self.seconds_each


@dataclass(frozen=True)
class Plan:
    """The measurements.

    peak: bytes on the accelerator, or of the whole process on a CPU. before: of the whole process when it held the
    networks and their averages, before the first step; 0 on an accelerator, whose peak is of tensors alone.
    """

    machine: str
    components: tuple[Component, ...]
    peak: int
    before: int
    batch: int
    tokens: float  # positions of one optimiser step
    stages: tuple[Stage, ...]

    @property
    def process(self) -> int:
        """What the process takes without networks and averages: Python, its libraries and the data."""
        return max(self.before - sum(one.weights + one.ema for one in self.components), 0)

    @property
    def gradients(self) -> int:
        return largest_gradients(self.components)

    @property
    def activations(self) -> int:
        """What is left of the peak: activations, buffers, and what the allocator holds between the steps."""
        return max(self.peak - self.process - self.gradients - sum(one.kept for one in self.components), 0)


@dataclass(frozen=True)
class Resident:
    """Memory of this process in bytes: now, and the most so far.

    Linux counts both for the program. What ``getrusage`` gives elsewhere, the most alone, begins in a child of a large
    process with what that one had.
    """

    now: int
    most: int

    @classmethod
    def read(cls, status: Path = Path("/proc/self/status")) -> Resident:
        found = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.is_file() else {}
        if {"VmRSS", "VmHWM"} <= {*found}:
            return cls(*(int(found[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM")))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return cls(most, most)


def forget_peak(device: torch.device) -> None:
    """Let peaks be counted from now on, where the system can: what a file took while it was read is not of the run."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # only Linux has it, and not every container
        Path("/proc/self/clear_refs").write_text("5")


@dataclass
class Stopwatch:
    """A keeper that writes nothing and notes the time of each step (``didi_core.training.state.Keeper``)."""

    device: torch.device
    marks: list[float] = field(default_factory=list)

    def restore(self, state: Mapping[str, Stateful]) -> int:
        return 0

    def save(self, step: int, state: Mapping[str, Stateful]) -> None:
        """Nothing."""

    def record(self, step: int, scalars: Scalars) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append(time.perf_counter())

    def each(self, first: int, last: int = -1) -> float:
        """Mean seconds of the steps after ``first`` up to ``last``, counted from 0."""
        marks = self.marks[first : len(self.marks) if last < 0 else last + 1]
        return (marks[-1] - marks[0]) / (len(marks) - 1)

    def peak(self) -> int:
        """Peak memory in bytes."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return Resident.read().most


@dataclass
class DryRun(Objective[Batch]):
    """An objective with a short warm-up, and without check and validation."""

    objective: Objective[Batch]

    def learners(self) -> list[Learner]:
        return [replace(learner, warmup=min(learner.warmup, WAITING)) for learner in self.objective.learners()]

    def batch(self, slice: Slice) -> Batch:
        return self.objective.batch(self._of_run(slice))

    def loss(self, learner: str, batch: Batch, slice: Slice) -> Terms:
        return self.objective.loss(learner, batch, self._of_run(slice))

    @cached_property
    def left_out(self) -> int:
        """Steps of the warm-up that are not made."""
        return max(self.objective.learners()[-1].warmup - WAITING, 0)

    def _of_run(self, slice: Slice) -> Slice:
        """The slice as the run will have it: after the short warm-up, what comes after the whole."""
        return replace(slice, step=slice.step + (self.left_out if slice.step >= WAITING else 0))


@dataclass(frozen=True)
class Measured:
    """A few measured steps: stages of the training, peak memory in bytes, the trained networks.

    before: memory of the process before the first step, when it held the networks and their averages.
    """

    stages: tuple[Stage, ...]
    peak: int
    before: int
    trainees: Sequence[Trainee]


def time_steps(
    objective: Objective[Any],
    run: Run,
    training: TrainingSettings,
    parallel: Parallel | None = None,
    begin: Callable[[Sequence[Trainee]], None] | None = None,
) -> Measured:
    """Measure a few steps of an objective; nothing is written. ``begin`` is told what learns, before the first step."""
    watch, quiet = Stopwatch(run.device), replace(run, reporter=Silent())
    short = replace(training, steps=TIMED + 1, seconds=0.0, log_every=1)
    stream = partial(run.stream, "dry run")
    engine = Engine(DryRun(objective), quiet, short, watch, "dry run", stream, parallel)
    before = 0 if run.device.type == "cuda" else Resident.read().now
    if begin is not None:
        begin(engine.trainees)
    engine.train()
    wait = objective.learners()[-1].warmup
    made = min(wait, WAITING)
    each = watch.each(made)
    stages = [Stage("training steps", training.steps, each)]
    if wait:
        stages[:0] = [Stage("warm-up steps", wait, watch.each(0, 1) if made == WAITING else each)]
    if training.seconds:
        stages = list(_within(training.seconds, stages))
    return Measured(tuple(stages), watch.peak(), before, engine.trainees)


def _within(seconds: float, stages: Sequence[Stage]) -> Iterator[Stage]:
    """As many steps of each stage as the time is enough for."""
    for stage in stages:
        units = min(stage.units, math.ceil(seconds / stage.seconds_each))
        seconds = max(seconds - units * stage.seconds_each, 0.0)
        yield replace(stage, units=units)


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Two tables: memory by network, time by stage."""
    console = console or Console(markup=False)
    memory = memory_table(f"memory in GiB ({plan.machine})", plan.components)
    memory.add_section()
    beside = {
        GRADIENTS: plan.gradients,
        "activations and buffers": plan.activations,
        "Python, libraries, data": plan.process,
    }
    for name, size in beside.items():
        if size:
            memory.add_row(name, *[""] * 5, in_gib(size))
    memory.add_row("peak", *[""] * 5, in_gib(plan.peak), style="bold")
    console.print(memory)
    console.print("The peak is measured, in a few steps. It does not count the comparison at the end.")
    stages = _table("time", ("stage", "units", "seconds each", "about"))
    for stage in plan.stages:
        stages.add_row(stage.name, f"{stage.units:,.0f}", f"{stage.seconds_each:.4g}", duration(stage.seconds))
    stages.add_section()
    stages.add_row("together", "", "", duration(sum(s.seconds for s in plan.stages)), style="bold")
    console.print(stages)
    step = next(s for s in plan.stages if s.name == "training steps")
    console.print(
        f"{plan.batch} sequences, {plan.tokens:,.0f} tokens a step, {plan.tokens / step.seconds_each:,.0f} a second. "
        "Metrics and the first compilation of kernels are not counted. Nothing was written."
    )


def memory_table(title: str, networks: Sequence[Component]) -> Table:
    """Networks and what each holds, in GiB."""
    headers = ("network", "size", "trained", "weights", "AdamW", "EMA", "together")
    memory = _table(title, headers)
    for one in networks:
        sizes = (one.weights, one.optimiser, one.ema, one.kept)
        memory.add_row(one.name, _millions(one.parameters), _millions(one.trainable), *map(in_gib, sizes))
    return memory


def duration(seconds: float) -> str:
    """``3 h 20 min``, ``5 min 10 s``, ``2.5 s``."""
    if seconds >= 86_400:
        return f"{seconds / 86_400:.1f} days"
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.2g} s"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count else "–"


def _table(title: str, headers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left")
    return table
