"""Models compared by a quality for which higher is better, such as a share of solved puzzles, at equal calls.

Unlike a perplexity it has no frontier at matched entropy: a task has a right answer, and no entropy to match.
"""

from __future__ import annotations

from dataclasses import dataclass

from didi_core.evaluation.intervals import Interval, interval
from didi_core.evaluation.rows import Evaluation, Method


@dataclass(frozen=True)
class Difference:
    """A model's quality minus the baseline's with the same method and steps, where higher is better."""

    model: str
    baseline: str
    method: Method
    own: Interval
    other: Interval
    difference: Interval

    @property
    def verdict(self) -> str:
        if not self.difference.excludes(0.0):
            return "no difference shown"
        return "better" if self.difference.value > 0 else "worse"


def differences(evaluation: Evaluation, baseline: str) -> tuple[Difference, ...]:
    """Every model against the baseline at equal methods; sets of equal size are compared in pairs."""
    found = []
    for (model, method), mine in evaluation.plain.items():
        other = evaluation.plain.get((baseline, method))
        if model != baseline and other is not None:
            n = min(mine.value.n, other.value.n)
            apart = interval(mine.value.value - other.value.value, mine.draws - other.draws, n)
            found.append(Difference(model, baseline, method, mine.value, other.value, apart))
    return tuple(found)
