"""Metrics that biologists look at first: base composition, short words, and the position of the promoter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.metrics import KmerDivergence, Mean
from didi_core.types import Sample

from .strands import reverse_complement
from .synthetic import MINUS_10, MINUS_35, SPACER

_PROMOTER = re.compile(f"{MINUS_35}.{{{SPACER - 1},{SPACER + 1}}}{MINUS_10}")


@dataclass(frozen=True)
class SpectrumDistance(KmerDivergence):
    """KL of the k-mer spectrum, in nats, with the words of both strands counted."""

    name: str = "spectrum_kl"

    @property
    def label(self) -> str:
        return f"{self.k}-mer spectrum KL"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        other = [Sample(reverse_complement(self.normalise(sample.text))) for sample in samples]
        return super().statistics(samples) + super().statistics(other)


def gc_content() -> Mean:
    """Share of G and C, mean over sequences."""
    return Mean("gc", "GC", lambda text: sum(letter in "GCgc" for letter in text) / len(text))


def promoter_share() -> Mean:
    """Share of sequences with both boxes of a promoter at the right distance, on either strand."""
    return Mean("promoter", "promoter", lambda text: float(has_promoter(text.upper())), "higher")


def has_promoter(text: str) -> bool:
    return any(_PROMOTER.search(strand) for strand in (text, reverse_complement(text)))
