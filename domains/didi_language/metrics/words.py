"""Repetition and variety of words: within a sample, over the set, and between samples.

Words are runs of letters and digits, or single other characters; case matters. They do not depend on the tokenizer, so
models with different vocabularies can be compared. Numbers of a *set* are means of one number per sample, computed once
on the whole set. Bootstrap intervals resample these numbers, because resampling texts would add duplicates. They depend
on the size of the set: compare sets of equal size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.metrics import Better, Mean
from didi_core.types import Sample

_WORD = re.compile(r"\w+|[^\w\s]")
Gram = Hashable


def words(text: str) -> list[str]:
    """Words and punctuation marks in order."""
    return _WORD.findall(text)


def grams(text: str, n: int) -> list[Gram]:
    """Every run of n words in its order; none for a text of fewer words."""
    found = words(text)
    return list(zip(*(found[i:] for i in range(n)), strict=False))


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over the set: ``of`` returns numerator and denominator of each sample, given all texts."""

    name: str
    label: str
    of: Callable[[Sequence[str]], Sequence[tuple[float, float]]]
    better: Better
    minimum: int = 2

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 2]; a sample with denominator zero is undefined."""
        rows = np.array(self.of([s.text for s in samples]), dtype=np.float64).reshape(-1, 2)
        return np.where(rows[:, 1:] > 0, rows, np.nan)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0] / means[..., 1])


def distinct_words(n: int) -> Ratio:
    """Distinct-n: different n-grams of the whole set over all its n-grams (Li et al. 2016)."""

    def of(texts: Sequence[str]) -> list[tuple[float, float]]:
        seen: set[Gram] = set()
        rows = []
        for text in texts:
            own = grams(text, n)
            before = len(seen)
            seen.update(own)
            rows.append((float(len(seen) - before), float(len(own))))
        return rows

    return Ratio(f"distinct_{n}", f"distinct-{n}", of, "higher")


def shared_words(n: int) -> Ratio:
    """Share of n-grams that another sample of the set also has: high where all samples say the same."""

    def of(texts: Sequence[str]) -> list[tuple[float, float]]:
        rows = [grams(text, n) for text in texts]
        owners = Counter(gram for row in rows for gram in set(row))
        return [(float(sum(owners[gram] > 1 for gram in row)), float(len(row))) for row in rows]

    return Ratio(f"shared_{n}", f"shared {n}-grams", of, "lower")


def repeated_words(n: int) -> Mean:
    """Mean share of n-grams that occur earlier in the same sample."""

    def of(text: str) -> float:
        own = grams(text, n)
        return 1.0 - len(set(own)) / len(own) if own else float("nan")

    return Mean(f"repeated_{n}", f"repeated {n}-grams (words)", of, "lower")


def top_share() -> Mean:
    """Mean share of a sample's most frequent word."""

    def of(text: str) -> float:
        found = Counter(words(text))
        return max(found.values()) / found.total() if found else float("nan")

    return Mean("top_word", "top word", of)


def mean_characters() -> Mean:
    """Mean number of characters."""
    return Mean("length", "characters", lambda text: float(len(text)))
