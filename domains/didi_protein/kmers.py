"""An inverted index of residue k-mers: which sequences share how many words, for clustering and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .vocabulary import FIRST_RESIDUE, residue_ids


def residue_index(sequence: str) -> np.ndarray:
    """The residues as 0..19, [L] int64."""
    return residue_ids(sequence) - FIRST_RESIDUE


def kmer_codes(sequence: str, k: int) -> np.ndarray:
    """Every k-mer of the sequence as a number below 20^k, in order, [max(L-k+1, 0)] int64."""
    residues = residue_index(sequence)
    count = len(residues) - k + 1
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    codes = np.zeros(count, dtype=np.int64)
    for offset in range(k):
        codes = codes * 20 + residues[offset : offset + count]
    return codes


class KmerIndex:
    """Distinct k-mers of each sequence, and for each k-mer the sequences that have it.

    Memory is about 16 bytes per residue and 8 * 20^k for the table (26 MB for k=5). ``sizes`` [n] counts distinct
    k-mers.
    """

    def __init__(self, sequences: Sequence[str], k: int = 5) -> None:
        self.k = k
        words = [np.unique(kmer_codes(sequence, k)) for sequence in sequences]
        self.sizes = np.array([len(word) for word in words], dtype=np.int64)
        self.words = words
        owners = np.repeat(np.arange(len(words), dtype=np.int32), self.sizes)
        codes = np.concatenate(words) if words else np.zeros(0, dtype=np.int64)
        self._owners = owners[np.argsort(codes, kind="stable")]
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=20**k))])

    def __len__(self) -> int:
        return len(self.sizes)

    def shared(self, codes: np.ndarray) -> np.ndarray:
        """Number of the given *distinct* k-mers that each indexed sequence has, [n] int64."""
        starts = self._offsets[codes]
        counts = self._offsets[codes + 1] - starts
        total = int(counts.sum())
        if not total:
            return np.zeros(len(self), dtype=np.int64)
        # The postings of all k-mers in one gather: position i of the output lies in posting list p at i - (start of p).
        before = np.cumsum(counts) - counts
        where = np.repeat(starts - before, counts) + np.arange(total)
        return np.bincount(self._owners[where], minlength=len(self))

    def containment(self, codes: np.ndarray) -> np.ndarray:
        """Shared distinct k-mers over those of the shorter of the two, [n] in [0, 1]; 0 where either has none."""
        shorter = np.minimum(self.sizes, len(codes))
        return self.shared(codes) / np.maximum(shorter, 1)
