"""Attention backends against each other and packed against padded batches, on a CUDA device.

    python benchmarks/gpu_attention.py [--out gpu_attention.json]

Part one: every backend that runs, forward and backward on ragged lengths, relative error against explicit softmax in
fp64. Part two: seconds of a training step of the DiT on protein-like lengths, padding dropped (packed) against padding
computed like any other position (padded, the key mask not even paid for). Exit code 0: all agreed; 1: one did not; 2:
no CUDA device.
``--device cpu --tiny`` runs the same logic at toy sizes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from didi_core.models.attention import Layout, attention, available_backends
from didi_core.models.dit import DiT, DiTConfig
from didi_core.types import Vocabulary

PAD, V = 0, 32
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}  # TF32 rounds fp32 products to 11 bits
SIZES = {"12x768": DiTConfig(hidden=768, layers=12, heads=12), "4x192": DiTConfig(hidden=192, layers=4, heads=3)}
TINY = {"2x32": DiTConfig(hidden=32, layers=2, heads=2)}


@dataclass(frozen=True)
class Agreement:
    """Relative error (2-norm) of one backend's output and gradient; ``problem`` where it did not run."""

    backend: str
    dtype: str
    forward: float | None = None
    backward: float | None = None
    problem: str = ""
    ok: bool = True


@dataclass(frozen=True)
class Timing:
    """Median seconds of a forward and backward pass of one model on one batch."""

    model: str
    backend: str
    form: str
    seconds: float | None = None
    tokens_per_second: float | None = None  # real tokens: padding is not counted
    peak_gigabytes: float | None = None
    problem: str = ""


def ragged(rows: int, low: int, high: int) -> list[int]:
    """Lengths spread like those of proteins: many short, few long; the longest and the shortest are always there."""
    generator = torch.Generator().manual_seed(0)
    skewed = torch.rand(rows, generator=generator) ** 2
    skewed[0], skewed[-1] = 1.0, 0.0
    return [low + round((high - low) * share) for share in skewed.tolist()]


def relative(ours: Tensor, exact: Tensor) -> float:
    return ((ours.double() - exact).norm() / exact.norm()).item()


def run_attention(leaf: Tensor, layout: Layout, backend: str) -> tuple[Tensor, Tensor]:
    """Output and the gradient of a fixed nonlinear functional of it."""
    leaf = leaf.detach().requires_grad_(True)
    out = attention(leaf[0], leaf[1], leaf[2], layout, backend)
    (gradient,) = torch.autograd.grad(out.double().sin().sum(), leaf)
    return out.detach(), gradient


def agreements(device: torch.device, lengths: list[int], heads: int, width: int) -> list[Agreement]:
    """Every backend in fp32 and bf16 against explicit softmax in fp64 on the same, already rounded, inputs."""
    layout = Layout(torch.tensor(lengths, device=device), max(lengths))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(3, sum(lengths), heads, width, generator=generator).to(device)
    found = []
    for dtype, tolerance in TOLERANCE.items():
        leaf, name = drawn.to(dtype), str(dtype).removeprefix("torch.")
        exact_out, exact_gradient = run_attention(leaf.double(), layout, "eager")
        for backend, problem in available_backends(device, dtype).items():
            if problem != "ok":
                found.append(Agreement(backend, name, problem=problem))
                continue
            try:
                out, gradient = run_attention(leaf, layout, backend)
            except (RuntimeError, NotImplementedError) as error:  # reported as available, but did not run: a failure
                found.append(Agreement(backend, name, problem=str(error).splitlines()[0], ok=False))
                continue
            errors = relative(out, exact_out), relative(gradient, exact_gradient)
            found.append(Agreement(backend, name, *errors, ok=max(errors) < tolerance))
    return found


def median_seconds(step: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Median over ``repeats`` runs after two that warm up."""
    times = []
    for i in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def time_model(
    label: str, config: DiTConfig, backend: str, form: str, tokens: Tensor, dtype: torch.dtype, repeats: int
) -> Timing:
    """Forward and backward under autocast. ``padded``: the vocabulary has no pad id, so padding is computed as well."""
    device = tokens.device
    torch.manual_seed(0)
    vocabulary = Vocabulary(V, pad=PAD if form == "packed" else None)
    settings = DiTConfig(**{**asdict(config), "attention": backend})
    model = DiT(settings, vocabulary).to(device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(tokens).float().square().mean()
        loss.backward()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = median_seconds(step, device, repeats)
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return Timing(label, backend, form, seconds, (tokens != PAD).sum().item() / seconds, memory)


def timings(device: torch.device, sizes: dict[str, DiTConfig], lengths: list[int], repeats: int) -> list[Timing]:
    """Each model and backend, packed and padded, on one batch of mixed lengths."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, V + 1, (len(lengths), max(lengths)), generator=generator)
    tokens = tokens.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], PAD).to(device)
    found = []
    for label, config in sizes.items():
        for backend, problem in available_backends(device, dtype).items():
            for form in ("packed", "padded"):
                if problem != "ok" or (backend == "eager" and device.type == "cuda"):
                    found.append(Timing(label, backend, form, problem=problem if problem != "ok" else "not timed"))
                    continue
                try:
                    found.append(time_model(label, config, backend, form, tokens, dtype, repeats))
                except torch.OutOfMemoryError as error:
                    found.append(Timing(label, backend, form, problem=str(error).splitlines()[0]))
    return found


def show(checked: list[Agreement], timed: list[Timing]) -> None:
    print(f"{'backend':10}{'dtype':10}{'forward':>10}{'backward':>10}")
    for row in checked:
        numbers = "".join("         -" if x is None else f"{x:10.1e}" for x in (row.forward, row.backward))
        print(f"{row.backend:10}{row.dtype:10}{numbers}  {'' if row.ok else 'DIFFERS '}{row.problem}")
    print(f"\n{'model':10}{'backend':10}{'form':8}{'ms':>9}{'tokens/s':>12}{'GB':>8}")
    for time_row in timed:
        if time_row.seconds is None or time_row.tokens_per_second is None:
            print(f"{time_row.model:10}{time_row.backend:10}{time_row.form:8}  {time_row.problem}")
            continue
        memory = "-" if time_row.peak_gigabytes is None else f"{time_row.peak_gigabytes:.2f}"
        start = f"{time_row.model:10}{time_row.backend:10}{time_row.form:8}"
        print(f"{start}{time_row.seconds * 1e3:9.1f}{time_row.tokens_per_second:12,.0f}{memory:>8}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to check the logic")
    parser.add_argument("--rows", type=int, default=64, help="sequences in the timed batch")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("gpu_attention.json"))
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: run this on a machine with one, or check its logic with --device cpu --tiny.")
        return 2
    low, high, rows, checked_rows = (3, 20, 4, 3) if options.tiny else (30, 1000, options.rows, 16)
    checked = agreements(device, ragged(checked_rows, low, high), 2 if options.tiny else 12, 64)
    lengths = ragged(rows, low, high)
    timed = timings(device, TINY if options.tiny else SIZES, lengths, 2 if options.tiny else options.repeats)
    show(checked, timed)
    filled = sum(lengths) / (len(lengths) * max(lengths))
    print(f"\nlengths {min(lengths)}..{max(lengths)}, {len(lengths)} rows, {filled:.0%} of the padded batch is real")
    record = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "lengths": lengths,
        "agreement": [asdict(row) for row in checked],
        "timing": [asdict(row) for row in timed],
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    differing = [f"{row.backend} in {row.dtype}" for row in checked if not row.ok]
    if differing:
        print(f"FAILED: {', '.join(differing)}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
