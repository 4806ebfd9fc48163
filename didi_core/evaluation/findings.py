"""What an evaluation finds: models against a baseline at matched entropy and matched variety, and acceleration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from didi_core.evaluation.differences import Difference, differences
from didi_core.evaluation.frontier import (
    NEAR,
    Acceleration,
    Matched,
    acceleration,
    common_value,
    matched,
    matched_difference,
)
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import Evaluation, Method


@dataclass(frozen=True)
class Comparison:
    """A model against the baseline with the same method and steps, both at the entropy of the data.

    ratio: quality of the model over that of the baseline. Below 1 is better; a claim needs an interval that excludes 1.
    """

    model: str
    baseline: str
    method: Method
    ratio: Interval | None  # None: one of the two did not reach the entropy

    @property
    def verdict(self) -> str:
        return _verdict(self.ratio)


@dataclass(frozen=True)
class VarietyComparison:
    """A model against the baseline at one value of the domain's metric of variety: the nearest to that of the held-out
    data which both sweeps reach. All are None where the sweeps have no value in common."""

    model: str
    baseline: str
    method: Method
    at: float | None
    model_quality: Interval | None
    baseline_quality: Interval | None
    ratio: Interval | None

    @property
    def verdict(self) -> str:
        return _verdict(self.ratio)


@dataclass(frozen=True)
class Worth:
    """Acceleration of a model over the baseline under one method."""

    model: str
    method: Method
    acceleration: Acceleration


@dataclass(frozen=True)
class Findings:
    """Frontiers read at the data's entropy, comparisons under equal methods and steps, accelerations.

    differences: comparisons of a quality that is not matched at an entropy.
    """

    baseline: str
    matched: Mapping[tuple[str, Method], Matched]
    comparisons: tuple[Comparison, ...]
    worth: tuple[Worth, ...]
    at_variety: tuple[VarietyComparison, ...] = ()
    differences: tuple[Difference, ...] = ()

    def acceleration(self, compared: Comparison) -> Acceleration | None:
        """The acceleration that a comparison stands for: a factor above 1 where it is better, below where it is worse.

        None where no difference is shown, or the factor is within 1 % of 1 or its interval includes 1: whatever number
        of steps the baseline needs is then no result. None too where the two disagree, as the baseline's quality may
        not rise with its steps.
        """
        sides = {"better": 1, "worse": -1}
        for one in self.worth:
            if (one.model, one.method) == (compared.model, compared.method) and compared.verdict in sides:
                factor = one.acceleration.factor
                agrees = factor.excludes(1.0) and (factor.value - 1) * sides[compared.verdict] >= NEAR
                return one.acceleration if agrees else None
        return None


def compare(evaluation: Evaluation, baseline: str = "teacher") -> Findings:
    """Read every frontier at the held-out entropy, and compare each model with the baseline (or the first model)."""
    models = list(dict.fromkeys(row.model for row in evaluation.rows if row.kind == "model"))
    baseline = baseline if baseline in models or not models else models[0]
    read: dict[tuple[str, Method], Matched] = {}
    if evaluation.at is not None:
        read = {key: matched(curve, evaluation.at) for key, curve in evaluation.frontiers.items()}
    comparisons, worth = [], []
    for (model, method), mine in read.items():
        other = read.get((baseline, method))
        if model == baseline:
            continue
        if other is not None:
            difference = matched_difference(mine, other)
            comparisons.append(Comparison(model, baseline, method, _ratio(difference)))
        steps = {
            m.steps: value
            for (name, m), value in read.items()
            if name == baseline and m.steps is not None and replace(m, steps=None) == replace(method, steps=None)
        }
        if method.steps is not None:
            found = acceleration(mine, method.steps, steps)
            if found is not None:
                worth.append(Worth(model, method, found))
    others = _at_variety(evaluation, baseline), differences(evaluation, baseline)
    return Findings(baseline, read, tuple(comparisons), tuple(worth), *others)


def _at_variety(evaluation: Evaluation, baseline: str) -> tuple[VarietyComparison, ...]:
    """Each model with the baseline where both sweeps have the variety that is nearest to that of the data."""
    curves, variety = evaluation.variety_frontiers, evaluation.variety
    if variety is None:
        return ()
    data = evaluation.data.values if evaluation.data is not None else {}
    wanted = data[variety.name].value if variety.name in data else math.inf  # without data: as varied as both can be
    found = []
    for (model, method), curve in curves.items():
        other = curves.get((baseline, method))
        if model == baseline or other is None:
            continue
        at = common_value(curve, other, wanted)
        if at is None:
            found.append(VarietyComparison(model, baseline, method, None, None, None, None))
            continue
        mine, theirs = matched(curve, at), matched(other, at)
        ratio = _ratio(matched_difference(mine, theirs))
        found.append(VarietyComparison(model, baseline, method, at, mine.quality, theirs.quality, ratio))
    return tuple(found)


def _verdict(ratio: Interval | None) -> str:
    if ratio is None:
        return "not reached"
    if not ratio.excludes(1.0):
        return "no difference shown"
    return "better" if ratio.value < 1 else "worse"


def _ratio(difference: Interval | None) -> Interval | None:
    if difference is None:
        return None
    value, low, high = (float(np.exp(x)) for x in (difference.value, difference.low, difference.high))
    return Interval(value, low, high, difference.n, difference.left_out)
