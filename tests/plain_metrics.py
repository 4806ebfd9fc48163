"""Two metrics that are easy to compute by hand: a mean of numbers, and a perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from didi_core.types import Sample


@dataclass(frozen=True)
class Number:
    """The mean of the number that a sample's text spells."""

    name: str = "number"
    label: str = "number"
    better: Literal["lower", "higher", "neither"] = "lower"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([[float(s.text)] for s in samples]).reshape(-1, 1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0])


@dataclass(frozen=True)
class Ratio(Number):
    """exp(first / second): a perplexity."""

    name: str = "perplexity"

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(means[..., 0] / means[..., 1]))
