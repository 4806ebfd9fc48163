"""Numbers about a set of samples; a domain takes what fits it."""

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
