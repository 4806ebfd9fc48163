"""Metrics that domains share: the mean of a number per sample, entropy, share of distinct samples, word frequencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Num

from didi_core.letters import letters
from didi_core.types import Sample

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Mean:
    """Mean of ``of(text)`` over samples; an empty text or a nan is undefined, and left out."""

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
class Share(Mean):
    """Share of samples of which ``of(text)`` is 1; the others give 0. Its interval is Wilson's."""

    better: Better = "higher"
    proportion: bool = True


@dataclass(frozen=True)
class DistinctFraction:
    """Share of samples that do not copy an earlier one. The statistic is 1 at a first occurrence, otherwise 0."""

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
    """Shannon entropy in nats of the normalised counts; nan without counts."""
    counts = np.asarray(counts, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = counts / counts.sum(axis=-1, keepdims=True)
        return np.asarray(-np.where(p == 0, 0.0, p * np.log(p)).sum(axis=-1))


def letter_entropy(text: str) -> float:
    """Entropy in nats of the text's histogram of characters."""
    return float(entropy_of_counts(np.array(list(Counter(text).values()))))


@dataclass(frozen=True)
class TokenEntropy:
    """Mean over samples of the Shannon entropy (nats) of the sample's token histogram, as in the published tables.

    It depends on length and tokens, but not on their order, and does not see duplicates. A sample without tokens is
    undefined.
    """

    tokens: Callable[[Sample], Sequence[int] | np.ndarray] = field(repr=False)
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


@dataclass(frozen=True)
class KmerDivergence:
    """KL divergence in nats of the pooled frequencies of k-letter words in the samples from those of a reference.

    Statistics: counts [n, V^k] of each sample; a text shorter than k is undefined. The plug-in estimate is biased
    upwards by about V^k / (2 * number of words); intervals subtract that.
    """

    alphabet: str | tuple[str, ...]
    k: int
    reference: Float[np.ndarray, "words"] = field(repr=False)  # counts
    normalise: Callable[[str], str] = field(default=str, repr=False)
    name: str = "word_kl"
    better: Better = "lower"
    minimum: int = 10
    biased: bool = True

    @property
    def label(self) -> str:
        return f"{self.k}-mer KL"

    @classmethod
    def against(
        cls, texts: Iterable[str], alphabet: str | tuple[str, ...], k: int, normalise: Callable[[str], str] = str
    ) -> KmerDivergence:
        """The metric against reference texts. Every word gets one extra count, so an unseen one has a finite cost."""
        counts = np.ones(len(alphabet) ** k)
        for text in texts:
            counts += word_counts(normalise(text), alphabet, k)
        return cls(alphabet, k, counts, normalise)

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        rows = np.full((len(samples), len(self.reference)), np.nan)
        for row, sample in zip(rows, samples, strict=True):
            counts = word_counts(self.normalise(sample.text), self.alphabet, self.k)
            if counts.any():
                row[:] = counts
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        share = means / means.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = share * np.log(share / (self.reference / self.reference.sum()))
        return np.asarray(np.where(share > 0, terms, 0.0).sum(axis=-1))


def word_counts(text: str, alphabet: str | tuple[str, ...], k: int) -> Float[np.ndarray, "words"]:
    """How often each of the V^k words of k letters occurs, overlaps counted, in the order of the alphabet."""
    index = np.array(letters(alphabet).ids(text), dtype=np.int64)
    width, n = len(alphabet), max(len(index) - k + 1, 0)
    codes = sum((index[i : i + n] * width ** (k - 1 - i) for i in range(k)), np.zeros(n, dtype=np.int64))
    return np.bincount(codes, minlength=width**k).astype(np.float64)
