"""Variety of a set of samples: duplicates, clusters, distinct words, distance between pairs.

These are numbers of the *set*, computed as means of one number per sample. The per-sample numbers are computed once, on
the whole set, and bootstrap intervals resample *them*, because resampling the sequences would draw some twice and add
duplicates. All of them depend on the size of the set: compare sets of equal size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.metrics import Better
from didi_core.types import Sample

from ..clustering import greedy_clusters
from ..kmers import KmerIndex, kmer_codes


@dataclass(frozen=True)
class ClusterFraction:
    """Number of greedy clusters over number of samples: near-copies count as one. Statistic: 1 for a representative."""

    threshold: float = 0.5  # containment of distinct 5-mers; about 87 % identity
    name: str = "clusters"
    label: str = "clusters / n"
    better: Better = "higher"
    minimum: int = 2

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]."""
        labels = greedy_clusters(KmerIndex([sample.text for sample in samples], filled=False), self.threshold)
        return (labels == np.arange(len(labels)))[:, None].astype(np.float64)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return means[..., 0]


@dataclass(frozen=True)
class DistinctWords:
    """Distinct n-mers of the whole set over all its n-mers (distinct-n).

    Statistics: number of n-mers that occur first in this sample, and its number of n-mers.
    """

    n: int = 4
    better: Better = "higher"
    minimum: int = 2

    @property
    def name(self) -> str:
        return f"distinct_{self.n}"

    @property
    def label(self) -> str:
        return f"distinct-{self.n}"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 2]; a sequence shorter than n is undefined."""
        words = [kmer_codes(sample.text, self.n) for sample in samples]
        totals = np.array([len(word) for word in words], dtype=np.float64)
        owners = np.repeat(np.arange(len(words)), totals.astype(np.int64))
        _, where = np.unique(np.concatenate(words) if words else np.zeros(0, dtype=np.int64), return_index=True)
        fresh = np.bincount(owners[where], minlength=len(words)).astype(np.float64)
        return np.where(totals[:, None] > 0, np.stack([fresh, totals], axis=1), np.nan)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0] / means[..., 1])


@dataclass(frozen=True)
class PairDistance:
    """Mean Jaccard distance of the distinct k-mer sets over *all* pairs. Statistic: mean distance to the others.

    Near 1 for unrelated proteins at k=3 already; families and collapsed models fall below. Time grows with n squared
    (about 1 s for 4,000 samples).
    """

    k: int = 3
    name: str = "pair_distance"
    label: str = "pair distance"
    better: Better = "higher"
    minimum: int = 2

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]; a sequence shorter than k is undefined."""
        index = KmerIndex([sample.text for sample in samples], self.k)
        rows = np.full((len(samples), 1), np.nan)
        defined = index.sizes > 0
        others = int(defined.sum()) - 1
        for i in np.flatnonzero(defined).tolist():
            if others > 0:
                shared = index.shared(index.words(i))
                union = index.sizes + index.sizes[i] - shared
                similar = (shared / np.maximum(union, 1))[defined].sum() - 1.0  # without the sample itself
                rows[i] = 1.0 - similar / others
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return means[..., 0]
