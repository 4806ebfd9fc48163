"""Where the host's time of an update goes: the part ``hosts`` of ``gpu_measure.py``.

Three looks at the same update: torch.profiler's operators, the lines of ours that wait for the device, and the lines at
which a second thread finds the first one, every two milliseconds.
"""

from __future__ import annotations

import copy
import linecache
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from gpu_language import engine
from gpu_table import Table, is_ours
from gpu_updates import WORDS, objective, setting
from torch.utils._python_dispatch import TorchDispatchMode

from didi_core.device import Machine
from didi_core.objectives.base import Materials
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.planning import Stopwatch
from didi_core.training.settings import TrainingSettings
from didi_protein.domain import ProteinDomain

SYNCHRONISING = "called a synchronizing CUDA operation"  # how torch's warning begins
PERIOD = 0.002  # seconds between two looks of the sampler
STEP = 1  # the same update for all looks: the next one may draw another number of calls


def hosts(table: Table) -> None:
    """An update of the default objective and of ``didi`` at MDLM's size, and of the bundled protein teacher's."""
    language = setting(table)
    for label, make in {
        "169M, few_calls": lambda: engine(language, objective(*WORDS["few_calls"])),
        "169M, didi": lambda: engine(language, objective(*WORDS["didi"])),
        "bundled protein teacher, few_calls, batch 64": lambda: protein(table),
    }.items():
        table.attempt(f"host of {label}", partial(_looks, table, label, make))


def protein(table: Table) -> Engine:
    """A distillation of the bundled protein teacher by the default objective, past its warm-up."""
    domain, batch = ProteinDomain(), 4 if table.quick else 64
    teacher = domain.teacher().to(table.device).eval().requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    template = domain.template(domain.lengths(batch, generator(0, "lengths")))
    drawn = torch.randint(4, 24, template.shape, generator=generator(0, "residues"))
    samples = torch.where(template == domain.vocabulary.mask, drawn, template)
    run = Run(domain, Machine(table.device, "bf16" if table.cuda else "fp32"))
    training = TrainingSettings(batch_size=batch, lr=1e-6, warmup=1)
    materials = Materials(run, training, student, teacher, lambda num, steps: samples)
    made = objective("domain=protein").prepare(materials)
    return Engine(made, run, training, Stopwatch(table.device), "step", partial(run.stream, "distill"))


def _looks(table: Table, label: str, make: Callable[[], Engine]) -> None:
    run = make()

    def one() -> None:
        run.step(STEP)
        if table.cuda:
            torch.cuda.synchronize()

    one()
    watched = Sampler()
    with watched:
        took = table.milliseconds(one, 1, warm=0)
    table.add(f"{label}: update", took, "ms")
    table.add(f"{label}: looks at the host", watched.looks)
    table.text(f"{label}: lines at which the host was", watched.lines())
    waits = waits_of(one, table.cuda)
    table.add(f"{label}: waits for the device", sum(waits.values()))
    table.text(f"{label}: lines that wait for the device", [f"{n:6d}  {line}" for line, n in waits.most_common(30)])
    table.text(f"{label}: operators", operators(one, table.cuda))


# --- operators


def operators(action: Callable[[], object], cuda: bool) -> list[str]:
    """By their own time on the host, by their time on the device, and by count."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=kinds) as profile:
        action()
    events: list[Any] = list(profile.key_averages())
    lines = []
    for title, size, worth in (
        ("by own time on the host", 25, lambda e: e.self_cpu_time_total),
        ("by own time on the device", 25, lambda e: e.self_device_time_total),
        ("by count", 15, lambda e: e.count),
    ):
        lines.append(f"{title:<60} {'count':>7} {'host ms':>9} {'device ms':>9}")
        for event in sorted(events, key=worth, reverse=True)[:size]:
            host, device = event.self_cpu_time_total / 1e3, event.self_device_time_total / 1e3
            lines.append(f"{event.key[:60]:<60} {event.count:>7} {host:>9.2f} {device:>9.2f}")
    return lines


# --- waits


def waits_of(action: Callable[[], object], cuda: bool) -> Counter[str]:
    """How often each line of ours waits for the device: by torch's own warnings, or by the operators on a CPU."""
    found: Counter[str] = Counter()
    with noting(found) if cuda else Hosted(found):
        action()
    return found


@contextmanager
def noting(found: Counter[str]) -> Iterator[None]:
    """Count torch's warnings of a wait by the line of ours that is running."""

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        if SYNCHRONISING in str(message):
            found[place(sys._getframe())] += 1

    with warnings.catch_warnings(), _sync_debug():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def _sync_debug() -> Any:
    return _Debug() if torch.cuda.is_available() else nullcontext()


class _Debug:
    """torch's mode that warns of waits."""

    def __enter__(self) -> None:
        torch.cuda.set_sync_debug_mode("warn")

    def __exit__(self, *exception: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


class Hosted(TorchDispatchMode):
    """Counts the operators that would wait for a device, on a CPU, where nothing does. It does not see ``tolist``."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        masked = name == "aten::index" and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if masked or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::masked_select"):
            self.found[f"{place(sys._getframe())}  [{name}]"] += 1
        return func(*args, **(kwargs or {}))


def place(frame: FrameType | None) -> str:
    """The innermost line of ours of a stack, with its text and the line of another file that led to it."""
    stack = []
    while frame is not None:
        if is_ours(frame.f_code.co_filename):
            stack.append(frame)
        frame = frame.f_back
    if not stack:
        return "outside of the project (a backward pass, or this script)"
    first = stack[0]
    text = linecache.getline(first.f_code.co_filename, first.f_lineno or 0).strip()
    above = next((f for f in stack if f.f_code.co_filename != first.f_code.co_filename), None)
    return f"{at(first)}  {text[:100]}" + (f"  < {at(above)}" if above else "")


def at(frame: FrameType) -> str:
    """File and line, from the package on."""
    parts = Path(frame.f_code.co_filename).parts
    start = max(i for i, part in enumerate(parts[:-1]) if part.startswith("didi_"))
    return f"{'/'.join(parts[start:])}:{frame.f_lineno}"


# --- samples


class Sampler:
    """A thread that looks where the thread that made it is. Blocks as in ``with Sampler() as s``."""

    def __init__(self) -> None:
        self.watched, self.over = threading.get_ident(), threading.Event()
        self.here: Counter[str] = Counter()
        self.within: Counter[str] = Counter()
        self.looks = 0
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Sampler:
        self.interval = sys.getswitchinterval()
        sys.setswitchinterval(PERIOD / 4)  # so that the thread gets its turn within Python code
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self.thread.join()
        sys.setswitchinterval(self.interval)

    def _look(self) -> None:
        while not self.over.is_set():
            frame = sys._current_frames().get(self.watched)
            if frame is not None:
                self.looks += 1
                self.here[place(frame)] += 1
                self.within.update(_functions(frame))
            time.sleep(PERIOD)

    def lines(self) -> list[str]:
        """Shares of the looks: by innermost line of ours, and by function with what it calls."""
        total = max(self.looks, 1)
        rows = [f"{100 * n / total:5.1f} %  {line}" for line, n in self.here.most_common(24)]
        rows += ["", "with what they call:"]
        return rows + [f"{100 * n / total:5.1f} %  {name}" for name, n in self.within.most_common(24)]


def _functions(frame: FrameType | None) -> set[str]:
    found = set()
    while frame is not None:
        if is_ours(frame.f_code.co_filename):
            found.add(f"{at(frame).rpartition(':')[0]} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return found
