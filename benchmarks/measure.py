"""Two ways to the same result, measured in turns: ratios of CPU time in one process, peak memory in fresh ones.

Absolute times belong to a machine and an hour; ratios of interleaved pairs survive a busy machine, so these are what is
reported. A script lists its cases and calls ``main``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from didi_core.models.dit import DiT, DiTConfig
from didi_core.types import Vocabulary

PROTEIN = Vocabulary(size=32, pad=1, bos=0, eos=2, forbidden=(3, *range(24, 32)))  # 33 rows with the mask
TEXT = Vocabulary(size=50_257)  # GPT-2's, 50,258 rows with the mask


@dataclass(frozen=True)
class Case:
    """The plain way, ours, and whether their results are the same."""

    plain: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    same: Callable[[Tensor, Tensor], bool]


Build = Callable[[bool], Case]  # True for sizes that only show that it runs


@dataclass(frozen=True)
class Comparison:
    """Plain over ours. ``time_ratio`` is the median over pairs, ``low`` and ``high`` the extremes; memory is the peak
    above what the process held before, None where it was not measured."""

    name: str
    time_ratio: float
    low: float
    high: float
    plain_seconds: float
    our_seconds: float
    plain_megabytes: float | None = None
    our_megabytes: float | None = None


def network(vocabulary: Vocabulary, hidden: int, layers: int) -> DiT:
    """An untrained network, the same at every call."""
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=hidden, layers=layers, heads=4, attention="sdpa"), vocabulary).eval()


def close(plain: Tensor, ours: Tensor) -> bool:
    """Equal up to the order of fp32 sums, whose rounding follows the size of the terms: that of the largest entry."""
    return plain.shape == ours.shape and bool((plain - ours).abs().max() <= 1e-3 * plain.abs().max())


def compare(name: str, case: Case, repeats: int) -> Comparison:
    """Run both in turns. The first pair warms up and is checked, not counted.

    Raises:
        RuntimeError: the two ways gave different results, so their times say nothing.
    """
    if not case.same(case.plain(), case.ours()):
        raise RuntimeError(f"{name}: the two ways gave different results.")
    pairs = [(seconds(case.plain), seconds(case.ours)) for _ in range(repeats)]
    ratios = [plain / ours for plain, ours in pairs]
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Comparison(name, statistics.median(ratios), min(ratios), max(ratios), plain, ours)


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of one run, all threads of the process together; waiting for a shared core is not counted."""
    started = time.process_time()
    action()
    return time.process_time() - started


def peak_bytes(action: Callable[[], object]) -> int:
    """Peak resident memory during ``action`` above what was resident before it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    gc.collect()  # what is freed during the action would hide as much of its peak
    before = resident("VmRSS")
    action()
    return max(resident("VmHWM") - before, 0)


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status; elsewhere than on Linux the peak of the process's life.

    Not getrusage on Linux: a new process inherits the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(found.split()[1]) * 1024


def peak_of(build: Build, way: str) -> int:
    """Peak of one way at full size. A run at quick sizes before it loads what torch loads late."""
    getattr(build(True), way)()
    return peak_bytes(getattr(build(False), way))


def main(
    script: str,
    title: str,
    cases: Mapping[str, Build],
    arguments: Sequence[str] | None = None,
    instead: Mapping[str, Callable[[float], None]] | None = None,
) -> None:
    """Command line of a benchmark: measure every case, print a table, write JSON.

    instead: functions that are called in place of that, with the number that their flag is given.
    """
    parser = argparse.ArgumentParser(prog=Path(script).name, description=title)
    for name, function in (instead or {}).items():
        parser.add_argument(f"--{name}", type=float, help=(function.__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one pair, no memory: shows that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="pairs that are counted")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)  # the fresh process
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats}: at least one pair is needed.")
    for name, function in (instead or {}).items():
        if (number := getattr(given, name)) is not None:
            function(number)
            return
    if given.peak:
        print(peak_of(cases[given.peak[0]], given.peak[1]))
        return
    rows = []
    for name, build in cases.items():
        row = compare(name, build(given.quick), 1 if given.quick else given.repeats)
        if not given.quick:
            plain, ours = (_peak_in_fresh_process(script, name, way) for way in ("plain", "ours"))
            row = replace(row, plain_megabytes=plain, our_megabytes=ours)
        rows.append(row)
    conditions = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2),
        "quick": given.quick,
    }
    Console().print(table(title, rows, conditions))
    if given.out:
        given.out.write_text(json.dumps({**conditions, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


def _peak_in_fresh_process(script: str, case: str, way: str) -> float:
    """Megabytes; a process of its own, because memory once freed is not given back."""
    command = [sys.executable, script, "--peak", case, way]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e6


def table(title: str, rows: Sequence[Comparison], conditions: Mapping[str, object]) -> Table:
    """One row a case; seconds are only in the JSON, as they belong to the machine."""
    caption = ", ".join(f"{key} {value}" for key, value in conditions.items())
    made = Table(title=title, caption=caption, box=SIMPLE, pad_edge=False)
    for header in ("", "time ratio", "range", "memory ratio", "peak MB"):
        made.add_column(header, justify="right" if header else "left", no_wrap=True)
    for row in rows:
        plain, ours = row.plain_megabytes, row.our_megabytes
        memory = ("-", "-") if plain is None or not ours else (f"{plain / ours:.2f}", f"{plain:.0f} / {ours:.0f}")
        made.add_row(row.name, f"{row.time_ratio:.2f}", f"{row.low:.2f}-{row.high:.2f}", *memory)
    return made
