"""What the shape of the code saves, as ratios of one run: ``python benchmarks/core.py [--quick] [--out FILE]``.

Each comparison runs the plain way and ours in turns after a warm-up and reports the median of the ratios, with the
largest and smallest. Times are of this process only; memory is that of the tensors saved or made, counted by torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from didi_core.heads import distinct_trunk, token_statistics
from didi_core.models.dit import DiT, DiTConfig
from didi_core.process import log_p_x0
from didi_core.random import generator
from didi_core.samplers import ancestral
from didi_core.types import Vocabulary
from didi_core.unmasking import law, uniform_grid

PROTEIN = Vocabulary(size=32, pad=1, bos=0, eos=2, forbidden=(3, *range(24, 32)))
TEXT = Vocabulary(size=50_257)


@dataclass(frozen=True)
class Ratio:
    """Plain time over ours: median, smallest and largest of the pairs."""

    name: str
    median: float
    low: float
    high: float
    plain_seconds: float
    our_seconds: float


def compare(name: str, plain: Callable[[], object], ours: Callable[[], object], repeats: int) -> Ratio:
    """Run both in turns, after one run of each that is not counted."""
    pairs = []
    for i in range(repeats + 1):
        times = []
        for action in (plain, ours):
            started = time.perf_counter()
            action()
            times.append(time.perf_counter() - started)
        if i:
            pairs.append(times)
    ratios = sorted(a / b for a, b in pairs)
    middle = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return Ratio(name, statistics.median(ratios), ratios[0], ratios[-1], *middle)


def network(vocabulary: Vocabulary, hidden: int, layers: int) -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=hidden, layers=layers, heads=4, attention="sdpa"), vocabulary).eval()


def factorised_draw(vocabulary: Vocabulary, batch: int, length: int, steps: int, repeats: int) -> Ratio:
    """The factorised draw against the peers' joint draw of token or mask, a whole generation each."""
    model = network(vocabulary, 64, 2)
    template = torch.full((batch, length), vocabulary.mask)

    def run(precision: str) -> object:
        return ancestral(
            model,
            template,
            shares=uniform_grid(steps),
            law=law("iid"),
            precision=precision,
            generator=generator(0, "benchmark"),
        )

    name = f"factorised draw, V={vocabulary.size}, {steps} steps"
    return compare(name, lambda: run("legacy_fp32"), lambda: run("exact"), repeats)


@torch.no_grad()
def first_call(batch: int, length: int, repeats: int) -> Ratio:
    """The all-masked call run once for equal rows against once per row."""
    model = network(PROTEIN, 128, 4)
    tokens = torch.full((batch, length), PROTEIN.mask)
    return compare(
        f"shared all-masked call, B={batch}",
        lambda: model.trunk(tokens),
        lambda: distinct_trunk(model, tokens),
        repeats,
    )


def log_probabilities(positions: int, repeats: int) -> list[Ratio]:
    """Chunked log-probabilities with recomputation against all logits at once, forward and backward at V=50,257."""
    model = network(TEXT, 64, 1)
    hidden = torch.randn(positions, 64, generator=generator(0, "hidden")).requires_grad_(True)
    chosen = torch.randint(TEXT.size, (positions, 1), generator=generator(0, "chosen"))

    def plain() -> torch.Tensor:
        loss = log_p_x0(model.head(hidden), TEXT).gather(1, chosen).sum()
        return torch.autograd.grad(loss, hidden)[0]

    def ours() -> torch.Tensor:
        loss = token_statistics(model, hidden, chosen, chunk=256).log_p.sum()
        return torch.autograd.grad(loss, hidden)[0]

    torch.testing.assert_close(plain(), ours(), rtol=1e-4, atol=1e-5)
    time_ratio = compare(f"chunked log p, {positions} positions, V=50257: time", plain, ours, repeats)
    held = [saved_bytes(action) for action in (plain, ours)]
    ratio = held[0] / held[1]
    return [time_ratio, Ratio("  the same: bytes kept for backward", ratio, ratio, ratio, held[0] / 1e6, held[1] / 1e6)]


def saved_bytes(action: Callable[[], object]) -> int:
    """Bytes of the tensors that autograd keeps between forward and backward."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        action()
    return sum(kept.values())


@torch.no_grad()
def packing(batch: int, longest: int, repeats: int) -> Ratio:
    """Packed hidden states for proteins of mixed length against the same network on plainly padded batches."""
    model = network(PROTEIN, 128, 4)
    lengths = torch.randint(30, longest, (batch,), generator=generator(0, "lengths"))
    tokens = torch.full((batch, longest), 4)
    ragged = torch.where(torch.arange(longest) < lengths[:, None], tokens, PROTEIN.pad or 0)
    return compare(
        f"packed, lengths 30 to {longest}", lambda: model.trunk(tokens), lambda: model.trunk(ragged), repeats
    )


def measure(quick: bool) -> list[Ratio]:
    """All comparisons; ``quick`` only shows that they run."""
    repeats, size = (1, 4) if quick else (5, 16)
    return [
        factorised_draw(PROTEIN, size, 32 if quick else 256, 16, repeats),
        factorised_draw(TEXT, 1 if quick else 2, 16 if quick else 128, 16, repeats),
        first_call(2 * size, 32 if quick else 256, repeats),
        *log_probabilities(512 if quick else 2048, repeats),
        packing(size, 64 if quick else 500, repeats),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="sizes of seconds")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    rows = measure(given.quick)
    table = Table(title=f"plain / ours, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    for header in ("", "ratio", "smallest", "largest", "plain (s, MB)", "ours (s, MB)"):
        table.add_column(header, justify="left" if not header else "right")
    for row in rows:
        numbers = [f"{value:.3g}" for value in (row.median, row.low, row.high, row.plain_seconds, row.our_seconds)]
        table.add_row(row.name, *numbers)
    Console().print(table)
    if given.out:
        given.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
