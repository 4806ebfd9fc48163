"""The checker as a reward: what makes the task verifiable in training too."""

from __future__ import annotations

from math import isqrt

from didi_core.objectives.rewards import reward

from .grids import Rules
from .notation import digits_of


@reward
def sudoku_solved(texts: list[str]) -> list[float]:
    """1 for a grid that keeps the rules, else 0: ``objective.reward=[scorer,sudoku_solved]``."""
    return [float(Rules(isqrt(len(text))).solved(digits_of(text))) for text in texts]
