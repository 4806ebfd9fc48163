"""Metrics of sets of texts that need no download; each implements ``didi_core.types.Metric``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from didi_core.metrics import DistinctFraction, TokenEntropy
from didi_core.types import Metric, Sample

from .words import distinct_words, mean_characters, repeated_words, shared_words, top_share


def language_metrics(judge: Metric, tokens: Callable[[Sample], Sequence[int]]) -> list[Metric]:
    """All metrics of texts: perplexity under the judge first, entropy per sample second.

    Args:
        tokens: token ids of a sample, for the entropy. The other metrics count words and do not need the tokenizer.
    """
    return [
        judge,
        TokenEntropy(tokens),
        distinct_words(1),
        distinct_words(2),
        distinct_words(4),
        repeated_words(2),
        repeated_words(4),
        top_share(),
        shared_words(4),
        DistinctFraction(),
        mean_characters(),
    ]
