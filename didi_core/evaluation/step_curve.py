"""A teacher's quality by number of calls. Only where more steps improve it is there something to distil."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from didi_core.evaluation.measure import evaluate_samples
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.types import Denoiser, Domain, Metric

STEPS = {1: 256, 2: 256, 4: 256, 8: 256, 16: 96, 32: 64, 64: 48, 128: 24, 256: 16}  # calls: samples
BATCH = 128


@torch.no_grad()
def step_curve(
    domain: Domain,
    teacher: Denoiser,
    metrics: Sequence[Metric],
    *,
    steps: Mapping[int, int] = STEPS,
    settings: SamplerSettings | None = None,
    seed: int = 0,
    known: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Each metric's value and 95 % interval at each number of calls, for a teacher's card.

    Rows with equally many samples have the same lengths, so they differ only in their calls.

    Args:
        steps: number of samples at each number of calls.
        known: an unfinished curve of the same teacher and metrics; its rows are not drawn again.
        keep: called with the curve after every row.
    """
    settings = settings or SamplerSettings()
    curve: dict[str, Any] = {"law": settings.law, "grid": settings.grid, "seed": seed}
    curve |= {"power": settings.power} if settings.grid == "power" else {}
    rows: dict[str, Any] = dict((known or {}).get("by_steps", {}))
    for calls, num in steps.items():
        if rows.get(str(calls), {}).get("samples") == num:
            continue
        made = generate(
            domain, teacher, settings=replace(settings, steps=calls), num=num, seed=seed, batch_size=BATCH
        ).samples
        values = evaluate_samples(metrics, made).values
        rows[str(calls)] = {"samples": num} | {
            name: [round(x, 4) for x in (found.value, found.low, found.high)] for name, found in values.items()
        }
        if keep is not None:
            keep({**curve, "by_steps": rows})
    return {**curve, "by_steps": dict(sorted(rows.items(), key=lambda row: int(row[0])))}
