"""Metrics that domains share: the mean of a number per sample, entropy of counts, the share of distinct samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Num

from didi_core.types import Sample

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Mean:
    """Mean of ``of(text)`` over samples; an empty text and a nan are undefined, hence left out."""

    name: str
    label: str
    of: Callable[[str], float]
    better: Better = "neither"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]: the number of each sample."""
        return np.array([[self.of(s.text) if s.text else np.nan] for s in samples], dtype=np.float64).reshape(-1, 1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return means[..., 0]


@dataclass(frozen=True)
class DistinctFraction:
    """Share of samples that are not a copy of an earlier one. Statistic: 1 at a first occurrence, else 0."""

    name: str = "distinct"
    label: str = "distinct"
    better: Better = "higher"
    minimum: int = 2

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]."""
        first: dict[str, int] = {}
        for number, sample in enumerate(samples):
            first.setdefault(sample.text, number)
        return np.array([[float(first[s.text] == number)] for number, s in enumerate(samples)]).reshape(-1, 1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return means[..., 0]


def entropy_of_counts(counts: Num[np.ndarray, "... k"]) -> Float[np.ndarray, "..."]:
    """Shannon entropy in nats of the normalised counts; nan where there are none."""
    counts = np.asarray(counts, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = counts / counts.sum(axis=-1, keepdims=True)
        return np.asarray(-np.where(p == 0, 0.0, p * np.log(p)).sum(axis=-1))
