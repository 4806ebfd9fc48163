"""Entropy within a sample: the diversity at which models are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.metrics import Better, entropy_of_counts
from didi_core.types import Sample


@dataclass(frozen=True)
class TokenEntropy:
    """Mean over samples of the Shannon entropy (nats) of the sample's token histogram, as in the published tables.

    It depends on the length and on the tokenizer, and sees neither order nor duplicates. A sample without tokens is
    undefined.
    """

    tokens: Callable[[Sample], Sequence[int]]
    name: str = "entropy"
    label: str = "entropy"
    better: Better = "neither"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]."""
        counts = (np.unique(np.asarray(self.tokens(s)), return_counts=True)[1] for s in samples)
        return np.array([float(entropy_of_counts(c)) if len(c) else np.nan for c in counts]).reshape(-1, 1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return means[..., 0]
