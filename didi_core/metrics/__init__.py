"""Metrics of a set of samples, from which a domain chooses."""

from didi_core.metrics.samples import (
    Better,
    DistinctFraction,
    KmerDivergence,
    Mean,
    Share,
    TokenEntropy,
    entropy_of_counts,
    letter_entropy,
    word_counts,
)

__all__ = [
    "Better",
    "DistinctFraction",
    "KmerDivergence",
    "Mean",
    "Share",
    "TokenEntropy",
    "entropy_of_counts",
    "letter_entropy",
    "word_counts",
]
