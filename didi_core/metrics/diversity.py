"""Variety of a set of samples in any domain: duplicates, distinct-n, repetition within a sample, lengths.

They work on token ids and are added to a domain's own metrics wherever it has none of that name. Numbers of the *set*
(duplicates, distinct-n) are written as means of one number per sample, computed once on the set as it is; intervals
resample *those numbers*, because resampling the samples would draw some twice and make duplicates that are not there.
They depend on the size of the set: compare equal sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from didi_core.metrics.samples import Better, DistinctFraction
from didi_core.streams import generator
from didi_core.types import Domain, Metric, Sample

Tokens = Callable[[str], list[int]]
PRIOR = 4096  # lengths drawn from a domain's prior to know its distribution
POINTS = 256  # thresholds at which two distributions of lengths are compared


@dataclass(frozen=True)
class DistinctGrams:
    """Different n-grams of the whole set over all its n-grams (distinct-n, Li et al. 2016).

    Statistics: n-grams first met in this sample, and n-grams; a sample shorter than n is undefined.
    """

    tokens: Tokens = field(repr=False)
    n: int
    better: Better = "higher"
    minimum: int = 2

    @property
    def name(self) -> str:
        return f"distinct_{self.n}"

    @property
    def label(self) -> str:
        return f"distinct-{self.n}"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 2]."""
        met: set[tuple[int, ...]] = set()
        rows = np.full((len(samples), 2), np.nan)
        for row, sample in zip(rows, samples, strict=True):
            own = grams(self.tokens(sample.text), self.n)
            if own:
                fresh = set(own) - met
                met |= fresh
                row[:] = len(fresh), len(own)
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0] / means[..., 1])


@dataclass(frozen=True)
class RepeatedGrams:
    """Share of a sample's n-grams that occurred earlier in the same sample, mean over samples.

    Natural sequences repeat too: the held-out row is the target, not zero. A sample shorter than n is undefined.
    """

    tokens: Tokens = field(repr=False)
    n: int
    name: str = "repeated"
    better: Better = "neither"
    minimum: int = 1

    @property
    def label(self) -> str:
        return f"repeated {self.n}-grams"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]."""
        rows = np.full((len(samples), 1), np.nan)
        for row, sample in zip(rows, samples, strict=True):
            own = grams(self.tokens(sample.text), self.n)
            if own:
                row[:] = 1 - len(set(own)) / len(own)
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0])


@dataclass(frozen=True)
class MeanLength:
    """Mean number of tokens, pinned ones not counted. An empty sample counts: it has the length 0."""

    tokens: Tokens = field(repr=False)
    name: str = "length"
    label: str = "length"
    better: Better = "neither"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]."""
        return np.array([[float(len(self.tokens(sample.text)))] for sample in samples]).reshape(-1, 1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0])


@dataclass(frozen=True)
class LengthDistance:
    """Energy distance of the lengths from a reference's, over the reference's mean distance of two: 0 is the same.

    In one dimension the energy distance is 2 * integral of (F - G)^2 (Székely and Rizzo 2013), so the statistics are
    indicators of ``length <= threshold`` and their means are F.
    """

    tokens: Tokens = field(repr=False)
    reference: Int[np.ndarray, "m"] = field(repr=False)
    name: str = "length_distance"
    label: str = "length distance"
    better: Better = "lower"
    minimum: int = 10
    biased: bool = True

    @cached_property
    def thresholds(self) -> Float[np.ndarray, "T"]:
        """From below the shortest to half as long again as the longest."""
        low, high = int(self.reference.min()), int(self.reference.max())
        return np.linspace(low / 2, 1.5 * high, min(POINTS, 2 * high))

    @cached_property
    def cdf(self) -> Float[np.ndarray, "T"]:
        """G: share of the reference at most as long as each threshold."""
        return np.asarray((self.reference[:, None] <= self.thresholds).mean(axis=0))

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, T]."""
        lengths = np.array([len(self.tokens(sample.text)) for sample in samples]).reshape(-1, 1)
        return np.asarray(lengths <= self.thresholds, dtype=np.float64)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(((means - self.cdf) ** 2).sum(-1) / (self.cdf * (1 - self.cdf)).sum())


def set_metrics(domain: Domain, n: int = 4) -> list[Metric]:
    """What every set of samples is measured for. ``length_distance`` is left out where the prior has one length."""
    pinned = set(domain.vocabulary.pinned)

    def tokens(text: str) -> list[int]:
        return [token for token in domain.encode(text) if token not in pinned]

    metrics: list[Metric] = [DistinctFraction(), DistinctGrams(tokens, n), RepeatedGrams(tokens, n), MeanLength(tokens)]
    prior = np.array(domain.lengths(PRIOR, generator(0, "lengths to compare with")))
    if len(np.unique(prior)) > 1:
        metrics.append(LengthDistance(tokens, prior))
    return metrics


def grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All runs of n tokens."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
