"""Entropy within a sample (the diversity of EVALUATION's matched comparisons) and across samples at a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.metrics import Better, TokenEntropy, entropy_of_counts
from didi_core.types import Sample

from ..kmers import residue_index


def token_entropy() -> TokenEntropy:
    """Mean over samples of the entropy of each one's residues."""
    return TokenEntropy(lambda sample: residue_index(sample.text))


@dataclass(frozen=True)
class PositionalDiversity:
    """Mean over the first ``positions`` places of the entropy (nats) of the residues that the samples have there.

    A set-level number: copies of a few sequences lower it however rich each one is. Positions count from the
    N-terminus, without alignment; a place that no sample reaches is left out. Statistics: which residue is where,
    ``positions * 20`` indicators. Biased downwards by about 19 / (2n) nats for n samples; intervals have that
    taken off.
    """

    positions: int = 50
    name: str = "positional_entropy"
    label: str = "entropy per position"
    better: Better = "higher"
    minimum: int = 50
    biased: bool = True
    matched: bool = True  # moves by 0.1 nats from T=0.7 to 1.0, where the entropy of single samples moves by 0.02

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, positions * 20]."""
        rows = np.zeros((len(samples), self.positions, 20))
        for row, sample in zip(rows, samples, strict=True):
            residues = residue_index(sample.text)[: self.positions]
            row[np.arange(len(residues)), residues] = 1.0
        return rows.reshape(len(samples), -1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        columns = means.reshape(*means.shape[:-1], self.positions, 20)
        return np.asarray(np.nanmean(entropy_of_counts(columns), axis=-1))
