"""Variety of a set of samples in any domain: duplicates, distinct-n, repetition within a sample, lengths.

They work on token ids, and join a domain's own metrics unless it has one of the same name. Numbers of the *set*
(duplicates, distinct-n) are means of one number per sample, computed once on the whole set. Intervals resample *these
numbers*, because resampling the samples would draw some twice and add duplicates. They depend on the size of the set:
compare sets of equal size.
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
PRIOR = 4096  # lengths drawn from a domain's prior to estimate its distribution
POINTS = 256  # thresholds at which two distributions of lengths are compared


@dataclass(frozen=True)
class DistinctGrams:
    """Different n-grams of the whole set over all its n-grams (distinct-n, Li et al. 2016).

    Statistics: number of n-grams that occur first in this sample, and its number of n-grams. A sample shorter than n is
    undefined.
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
    """Share of a sample's n-grams that occur earlier in the same sample, averaged over samples.

    Natural sequences repeat too, so the target is the held-out row and not zero. A sample shorter than n is undefined.
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
    """Mean number of tokens without pinned ones. An empty sample counts with length 0."""

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
    """Energy distance of the lengths from a reference, over the mean distance of two reference lengths; 0 if equal.

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
        """Thresholds from below the shortest length to 1.5 times the longest."""
        low, high = int(self.reference.min()), int(self.reference.max())
        return np.linspace(low / 2, 1.5 * high, min(POINTS, 2 * high))

    @cached_property
    def cdf(self) -> Float[np.ndarray, "T"]:
        """G: share of reference lengths that are at most each threshold."""
        return np.asarray((self.reference[:, None] <= self.thresholds).mean(axis=0))

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, T]."""
        lengths = np.array([len(self.tokens(sample.text)) for sample in samples]).reshape(-1, 1)
        return np.asarray(lengths <= self.thresholds, dtype=np.float64)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(((means - self.cdf) ** 2).sum(-1) / (self.cdf * (1 - self.cdf)).sum())


def set_metrics(domain: Domain, n: int = 4) -> list[Metric]:
    """The metrics of every set of samples. ``length_distance`` is left out if the prior has only one length."""
    pinned = set(domain.vocabulary.pinned)

    def tokens(text: str) -> list[int]:
        return [token for token in domain.encode(text) if token not in pinned]

    metrics: list[Metric] = [DistinctFraction(), DistinctGrams(tokens, n), RepeatedGrams(tokens, n), MeanLength(tokens)]
    prior = np.array(domain.lengths(PRIOR, generator(0, "lengths to compare with")))
    if len(np.unique(prior)) > 1:
        metrics.append(LengthDistance(tokens, prior))
    return metrics


def grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All n-grams of the tokens."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
