"""What distilling and sampling a DPLM-sized protein model costs on a CUDA device.

    python benchmarks/gpu_protein.py [--size 150m] [--batch 32] [--out gpu_protein.json]

Weights are random: times and memory do not depend on them. Part one: forward and backward of the denoiser, padding
dropped (packed) against padding computed, for every attention backend that runs. Part two: one whole step of distill
(rollout, scorer, fake denoiser, student). Part three: samples per second of the student in 8, 16 and 32 calls against
DPLM's own decoder in 500. ``--quick`` runs tiny sizes on any machine and shows that the script works.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from didi_core.device import Machine, autocast
from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import Iid
from didi_core.models.attention import available_backends
from didi_core.models.esm import Esm, EsmConfig
from didi_core.objectives.advantage import BaselineSettings
from didi_core.objectives.base import Materials
from didi_core.objectives.didi import Didi
from didi_core.objectives.rewards.base import CriticSettings
from didi_core.run import Run
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.sampling.reparameterised import Dplm
from didi_core.training.engine import Engine
from didi_core.training.planning import Stopwatch
from didi_core.training.settings import TrainingSettings
from didi_protein.domain import ProteinDomain
from didi_protein.vocabulary import PAD, VOCABULARY

SIZES = {
    "150m": EsmConfig(),
    "650m": EsmConfig(hidden=1280, layers=33, heads=20, intermediate=5120),
    "tiny": EsmConfig(hidden=32, layers=2, heads=4, intermediate=48),
}
COLUMNS = {
    "ms": "milliseconds",
    "tokens/s": "tokens_per_second",
    "samples/s": "samples_per_second",
    "GB": "peak_gigabytes",
}


@dataclass(frozen=True)
class Setting:
    """What is run: sizes, batch, numbers of residues by label, repeats, iterations of DPLM's decoder."""

    size: str
    device: torch.device
    precision: str
    batch: int
    lengths: dict[str, tuple[int, ...]]
    repeats: int
    steps: tuple[int, ...]
    iterations: int

    @classmethod
    def of(cls, size: str, device: torch.device, batch: int, repeats: int) -> Setting:
        mixed = tuple(round(50 + 450 * (i / 15) ** 2) for i in range(16))  # many short proteins, few long ones
        lengths = {"100": (100,), "200": (200,), "500": (500,), "mixed": mixed}
        return cls(size, device, "bf16", batch, lengths, repeats, (8, 16, 32), 500)

    @classmethod
    def quick(cls, device: torch.device) -> Setting:
        return cls("tiny", device, "fp32", 4, {"6": (6,), "mixed": (4, 9)}, 1, (2,), 4)

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def template(self, label: str) -> Tensor:
        """A batch to fill, of the lengths of that label in turn."""
        chosen = self.lengths[label]
        return ProteinDomain().template([chosen[i % len(chosen)] for i in range(self.batch)]).to(self.device)


@dataclass(frozen=True)
class Row:
    """One measurement; None where it was not made, with the reason in ``problem``."""

    part: str
    what: str
    lengths: str
    backend: str
    milliseconds: float | None = None
    tokens_per_second: float | None = None
    samples_per_second: float | None = None
    peak_gigabytes: float | None = None
    problem: str = ""


class OfLengths(ProteinDomain):
    """Proteins of given lengths, in turn."""

    def __init__(self, chosen: Sequence[int]) -> None:
        super().__init__()
        self.chosen = tuple(chosen)

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        return [self.chosen[i % len(self.chosen)] for i in range(n)]


def network(setting: Setting, backend: str, packed: bool = True) -> Esm:
    """Random weights. Without a pad id in its vocabulary a network computes padding like everything else."""
    torch.manual_seed(0)
    vocabulary = VOCABULARY if packed else replace(VOCABULARY, pad=None)
    return Esm(replace(SIZES[setting.size], attention=backend), vocabulary).to(setting.device).eval()


def backends(setting: Setting) -> dict[str, str]:
    """Backends worth timing, each with ``ok`` or why it does not run here."""
    found = available_backends(setting.device, setting.dtype)
    return {name: problem for name, problem in found.items() if name != "eager"}


def running(setting: Setting) -> list[str]:
    """Those that run here."""
    return [name for name, problem in backends(setting).items() if problem == "ok"]


def measured(row: Row, action: Callable[[], object], setting: Setting, residues: int = 0, samples: int = 0) -> Row:
    """The row with the median time of an action after one run that warms up, and its peak memory."""
    on_gpu = setting.device.type == "cuda"
    times = []
    try:
        for i in range(setting.repeats + 1):
            if on_gpu:
                torch.cuda.synchronize(setting.device)
            started = time.perf_counter()
            action()
            if on_gpu:
                torch.cuda.synchronize(setting.device)
            if i == 0 and on_gpu:
                torch.cuda.reset_peak_memory_stats(setting.device)
            if i:
                times.append(time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return replace(row, problem="out of memory")
    seconds = statistics.median(times)
    return replace(
        row,
        milliseconds=1e3 * seconds,
        tokens_per_second=residues / seconds if residues else None,
        samples_per_second=samples / seconds if samples else None,
        peak_gigabytes=torch.cuda.max_memory_allocated(setting.device) / 1e9 if on_gpu else None,
    )


def passes(setting: Setting) -> list[Row]:
    """Forward and backward of the denoiser, packed and padded, per backend."""
    rows = []
    for label in setting.lengths:
        tokens = setting.template(label)
        for backend, form in itertools.product(running(setting), ("packed", "padded")):
            model = network(setting, backend, form == "packed")

            def step(model: Esm = model, tokens: Tensor = tokens) -> None:
                model.zero_grad(set_to_none=True)
                with autocast(setting.device, setting.precision):
                    loss = model(tokens).float().square().mean()
                loss.backward()

            row = Row("forward and backward", form, label, backend)
            rows.append(measured(row, step, setting, residues=int((tokens != PAD).sum())))
    return rows


def distillation(setting: Setting, label: str, backend: str) -> Engine:
    """A distillation with both rewards, as ``objective=didi`` sets it up, past its warm-up."""
    teacher = network(setting, backend).requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    both = ("scorer", {"kind": "log_ratio", "credit": "expected"})
    rules = Didi(reward=both, critic=CriticSettings(warmup=0), baseline=BaselineSettings(group=4))
    run = Run(OfLengths(setting.lengths[label]), Machine(setting.device, setting.precision))
    template = setting.template(label)
    drawn = torch.randint(4, 24, template.shape, generator=torch.Generator().manual_seed(1)).to(setting.device)
    samples = torch.where(template == VOCABULARY.mask, drawn, template)
    training = TrainingSettings(batch_size=setting.batch)
    objective = rules.prepare(Materials(run, training, student, teacher, lambda num, steps: samples))
    return Engine(objective, run, training, Stopwatch(setting.device), "step", partial(run.stream, "distill"))


def training_steps(setting: Setting) -> list[Row]:
    """A whole step of distill per backend and length."""
    rows = []
    for label in setting.lengths:
        residues = int((setting.template(label) != PAD).sum())
        for backend in running(setting):
            run, numbers = distillation(setting, label, backend), itertools.count()

            def step(run: Engine = run, numbers: Iterator[int] = numbers) -> None:
                run.step(next(numbers))

            row = Row("step of distill", f"batch {setting.batch}", label, backend)
            rows.append(measured(row, step, setting, residues=residues))
    return rows


def sampling(setting: Setting) -> list[Row]:
    """Few calls of the ancestral sampler against the many of DPLM's decoder, on the backend that ``auto`` takes."""
    model = network(setting, "auto")
    rows = []
    for label in setting.lengths:
        template = setting.template(label)

        def few(steps: int, template: Tensor = template) -> None:
            with autocast(setting.device, setting.precision):
                stream = torch.Generator(setting.device).manual_seed(0)
                Ancestral().sample(SampleRequest(model, template, Uniform().shares(steps), Iid(), stream))

        def many(template: Tensor = template) -> None:
            with autocast(setting.device, setting.precision):
                stream = torch.Generator(setting.device).manual_seed(0)
                # Random weights repeat tokens more or less at will: without the redraw the number of calls is known.
                shares = Uniform().shares(setting.iterations)
                Dplm(resample=1.0).sample(SampleRequest(model, template, shares, Iid(), stream))

        with autocast(setting.device, setting.precision):
            backend = model.backend().name
        for steps in setting.steps:
            row = Row("sampling", f"{steps} calls", label, backend)
            rows.append(measured(row, partial(few, steps), setting, samples=setting.batch))
        row = Row("sampling", f"DPLM's decoder, {setting.iterations} calls", label, backend)
        rows.append(measured(row, many, replace(setting, repeats=1), samples=setting.batch))
    return rows


def show(rows: Sequence[Row], title: str) -> None:
    """One table a part."""
    for part in dict.fromkeys(row.part for row in rows):
        table = Table(title=f"{part} ({title})", box=SIMPLE, pad_edge=False)
        for header in ("residues", "", "backend", *COLUMNS, ""):
            table.add_column(header, justify="right" if header in COLUMNS else "left")
        for row in (row for row in rows if row.part == part):
            values = (getattr(row, name) for name in COLUMNS.values())
            shown = ("-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in values)
            table.add_row(row.lengths, row.what, row.backend, *shown, row.problem)
        Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=[name for name in SIZES if name != "tiny"], default="150m")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes on the CPU: shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args(arguments)
    if min(given.batch, given.repeats) < 1 or given.batch % 4:
        parser.error("--batch must be a multiple of 4 and --repeats at least 1.")
    device = torch.device("cpu" if given.quick else given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: run this on a machine with one, or show that it runs with --quick.")
        return 2
    setting = Setting.quick(device) if given.quick else Setting.of(given.size, device, given.batch, given.repeats)
    rows = [*passes(setting), *training_steps(setting), *sampling(setting)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    missing = {name: problem for name, problem in backends(setting).items() if problem != "ok"}
    show(rows, f"{setting.size}, batch {setting.batch}, {setting.precision}, {name}")
    for backend, problem in missing.items():
        print(f"not measured: {backend}: {problem}")
    if given.out:
        record = {
            "device": name,
            "torch": torch.__version__,
            "size": setting.size,
            "batch": setting.batch,
            "precision": setting.precision,
            "lengths": setting.lengths,
            "not_measured": missing,
            "rows": [asdict(row) for row in rows],
        }
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
