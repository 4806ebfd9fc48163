"""Quality by number of calls: whether steps matter to a teacher at all, which is what there is to distil."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from didi_core.evaluation.measure import evaluate_samples
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.types import Domain, Metric, Sample

STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@torch.no_grad()
def step_curve(
    domain: Domain,
    teacher: nn.Module,
    metrics: Sequence[Metric],
    *,
    steps: Sequence[int] = STEPS,
    num: int = 64,
    settings: SamplerSettings | None = None,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Each metric's value and 95 % interval of ``num`` samples of the teacher at each number of calls, for its card.

    All rows have the same lengths, drawn with the same seed, so they differ by the calls alone.
    """
    settings, curve = settings or SamplerSettings(), {}
    for calls in steps:
        made = generate(domain, teacher, settings=replace(settings, steps=calls), num=num, seed=seed).samples
        curve[str(calls)] = _values(metrics, made)
        report(f"{calls} calls: {curve[str(calls)]}")
    return {"samples": num, "seed": seed, "law": settings.law, "grid": settings.grid, "by_steps": curve}


def _values(metrics: Sequence[Metric], samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Value, lower and upper end of each metric."""
    measured = evaluate_samples(metrics, samples).values
    return {name: [round(x, 4) for x in (found.value, found.low, found.high)] for name, found in measured.items()}
