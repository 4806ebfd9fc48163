"""Divergence of residues and of neighbouring pairs of residues from those of natural proteins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Num

from didi_core.metrics import Better
from didi_core.types import Sample

from ..kmers import kmer_codes
from ..vocabulary import RESIDUES

# UniRef50 test split, 18.8 million residues; counts published with EvoDiff (microsoft/evodiff, MIT).
UNIREF50_COUNTS = {
    "A": 1618915, "C": 260650, "D": 1029002, "E": 1153341, "F": 740211, "G": 1298777, "H": 415510,
    "I": 1043277, "K": 959135, "L": 1812595, "M": 410047, "N": 778128, "P": 944355, "Q": 723490,
    "R": 1118546, "S": 1397024, "T": 1075117, "V": 1225428, "W": 248100, "Y": 558281,
}  # fmt: skip
UNIREF50 = np.array([UNIREF50_COUNTS[letter] for letter in RESIDUES], dtype=np.float64)


def kl_divergence(counts: Num[np.ndarray, "... k"], reference: Float[np.ndarray, "k"]) -> Float[np.ndarray, "..."]:
    """KL(counts || reference) in nats, both normalised. Infinite where the reference lacks what the counts have."""
    counts = np.asarray(counts, dtype=np.float64)
    p = counts / counts.sum(axis=-1, keepdims=True)
    q = reference / reference.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = p * np.log(p / q)
    return np.asarray(np.where(p > 0, terms, 0.0).sum(axis=-1))


@dataclass(frozen=True)
class WordDivergence:
    """KL in nats of the pooled k-mer frequencies of the samples from a reference's, ``reference`` [20^k] counts.

    Statistics: the 20^k counts of each sample. The plug-in estimate is biased upwards by about 20^k / (2 * words
    counted), for dipeptides 0.001 nats at 1,000 sequences of 200; intervals subtract that.
    """

    name: str
    label: str
    k: int
    reference: Float[np.ndarray, "words"] = field(repr=False)
    better: Better = "lower"
    minimum: int = 10
    biased: bool = True

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 20^k] counts; a sequence shorter than k is undefined."""
        rows = np.full((len(samples), 20**self.k), np.nan)
        for row, sample in zip(rows, samples, strict=True):
            if len(sample.text) >= self.k:
                row[:] = np.bincount(kmer_codes(sample.text, self.k), minlength=20**self.k)
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return kl_divergence(means, self.reference)


def composition_divergence() -> WordDivergence:
    """Residue composition against UniRef50. It does not distinguish a natural protein from its shuffled residues."""
    return WordDivergence("composition_kl", "AA KL", 1, UNIREF50)


def dipeptide_divergence(reference: Sequence[str] | Int[np.ndarray, "400"]) -> WordDivergence:
    """Pairs of neighbours against a reference set: sequences, or the 400 counts of them.

    One count is added to every pair of the reference (Laplace), so that an absent pair has a finite cost.
    """
    if isinstance(reference, np.ndarray):
        counts = reference.astype(np.float64)
    else:
        counts = np.zeros(400)
        for sequence in reference:
            counts += np.bincount(kmer_codes(sequence, 2), minlength=400)
    return WordDivergence("dipeptide_kl", "dipeptide KL", 2, counts + 1.0)
