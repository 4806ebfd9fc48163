"""The rows of a measurement on a GPU: times by CUDA events, peaks, counts of kernels and host synchronisations."""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
PEAK = 989e12  # bf16 of an H100 SXM, dense, by its data sheet
TURN = "GPU_TURN"  # variable with a file: a part that is started ahead of its turn waits until that file is there
LETTERS = 60_000  # of all texts of a table


@dataclass
class Table:
    """Rows in a file, rewritten after each."""

    out: Path
    device: torch.device
    quick: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    peak: float = PEAK

    def add(self, what: str, value: float | str, unit: str = "", predicted: str = "") -> None:
        """One figure."""
        shown = round(value, 4 if abs(value) < 10 else 1) if isinstance(value, float) else value
        self.rows.append({"what": what, "value": shown, "unit": unit, "predicted": predicted})
        self.write()
        print(f"{what}: {shown} {unit} {predicted and f'(predicted {predicted})'}", flush=True)

    def text(self, name: str, lines: Sequence[str]) -> None:
        """Lines that belong to no single figure; cut where the texts of the table have become long."""
        room = LETTERS - sum(map(len, self.texts.values()))
        self.texts[name] = "\n".join(lines)[: max(room, 0)]
        self.write()
        print(f"\n-- {name}\n{self.texts[name]}\n", flush=True)

    def write(self) -> None:
        """The file, complete or as before."""
        record = {"device": _name(self.device), "rows": self.rows, "texts": self.texts}
        partial = self.out.with_name(f".{self.out.name}.part")
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.replace(self.out)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def milliseconds(self, action: Callable[[], object], repeats: int, warm: int = 2) -> float:
        """Median of repeats after warm-up, by CUDA events (host time on a CPU)."""
        times = []
        for i in range(warm + repeats):
            if not self.cuda:
                started = time.perf_counter()
                action()
                elapsed = 1e3 * (time.perf_counter() - started)
            else:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda.synchronize()
                begin.record()
                action()
                end.record()
                torch.cuda.synchronize()
                elapsed = begin.elapsed_time(end)
            if i >= warm:
                times.append(elapsed)
        return statistics.median(times)

    def peak_gigabytes(self, action: Callable[[], object]) -> float:
        """Peak of the whole process while that runs, weights included."""
        if not self.cuda:
            action()
            return 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        action()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 1e9

    def attempt(self, label: str, action: Callable[[], object]) -> None:
        """Run a stretch of measurements; what goes wrong there is a row, and the rest still runs."""
        try:
            action()
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.add(label, f"failed: {(str(error).splitlines() or [repr(error)])[0][:200]}")
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()

    def counts(self, action: Callable[[], object]) -> dict[str, float]:
        """Kernels, host synchronisations, copies to the host, and milliseconds of kernels in one run."""
        found = {"kernels": 0.0, "syncs": 0.0, "copies to the host": 0.0, "kernel ms": 0.0, "aten calls": 0.0}
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if self.cuda else []
        with torch.profiler.profile(activities=kinds) as profile:
            action()
            if self.cuda:
                torch.cuda.synchronize()
        for event in profile.key_averages():
            on_device = event.self_device_time_total > 0 and event.device_type != torch.autograd.DeviceType.CPU
            if on_device and "Memcpy" not in event.key and "Memset" not in event.key:
                found["kernels"] += event.count
                found["kernel ms"] += event.self_device_time_total / 1e3
            if on_device and "Memcpy DtoH" in event.key:
                found["copies to the host"] += event.count
            found["syncs"] += event.count if event.key in SYNCS else 0
            found["aten calls"] += event.count if event.key.startswith("aten::") else 0
        return found


def wait_for_turn() -> None:
    """Where ``gpu.py`` has started this part while another one runs: wait until it is this one's turn."""
    turn, parent = os.environ.get(TURN), os.getppid()
    while turn and not Path(turn).exists():
        if os.getppid() != parent:
            sys.exit("gpu.py has ended before it was this part's turn.")
        time.sleep(0.05)


def is_ours(filename: str) -> bool:
    """Whether a file belongs to a package of the project."""
    folders = Path(filename).parts[-4:-1]
    return any(part.startswith("didi_") for part in folders) and folders[-1] != "benchmarks"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
