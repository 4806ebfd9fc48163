"""An inverted index of residue k-mers: which sequences share how many words, for clustering and nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from didi_core.errors import InputError

from .vocabulary import FIRST_RESIDUE, residue_ids

PIECE = 1 << 22  # residues indexed together while the index is built


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

    Memory is about 8 bytes per residue and 8 * 20^k for the table (26 MB for k=5); time to build grows with the
    residues. ``sizes`` [n] counts distinct k-mers.
    """

    def __init__(self, sequences: Sequence[str], k: int = 5) -> None:
        self.k = k
        words, sizes = zip(*(_distinct_words(piece, k) for piece in _pieces(sequences)), strict=True)
        self.sizes = np.concatenate(sizes)
        self._words = np.concatenate(words)
        self._bounds = np.concatenate([[0], np.cumsum(self.sizes)])
        self._offsets, self._owners = _posting_lists(words, sizes, 20**k)

    def __len__(self) -> int:
        return len(self.sizes)

    def words(self, number: int) -> np.ndarray:
        """The distinct k-mers of a sequence, ascending."""
        return self._words[self._bounds[number] : self._bounds[number + 1]]

    def shared(self, codes: np.ndarray) -> np.ndarray:
        """Number of the given *distinct* k-mers that each indexed sequence has, [n] int64."""
        return np.bincount(self._postings(codes), minlength=len(self))

    def sharing(self, codes: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Sequences that have at least ``least`` of the given *distinct* k-mers, ascending, and how many each has.

        Time grows with the posting lists of these k-mers and not with the number of sequences.
        """
        found = np.sort(self._postings(codes))
        last = found[least - 1 :]
        names = np.unique(last[last == found[: len(last)]])  # a run of so many has the same at its two ends
        return names, np.searchsorted(found, names, side="right") - np.searchsorted(found, names)

    def close_to(self, codes: np.ndarray, threshold: float) -> np.ndarray:
        """Sequences whose ``containment`` with the given distinct k-mers reaches the threshold, ascending."""
        fewest = int(threshold * min(self._smallest, len(codes)))  # what nobody reaches the threshold below
        names, counts = self.sharing(codes, max(fewest, 1))
        return names[counts / np.maximum(np.minimum(self.sizes[names], len(codes)), 1) >= threshold]

    def containment(self, codes: np.ndarray) -> np.ndarray:
        """Shared distinct k-mers over those of the shorter of the two, [n] in [0, 1]; 0 where either has none."""
        shorter = np.minimum(self.sizes, len(codes))
        return self.shared(codes) / np.maximum(shorter, 1)

    @cached_property
    def _smallest(self) -> int:
        """Distinct k-mers of the sequence with fewest, of those that have any."""
        return int(self.sizes[self.sizes > 0].min(initial=np.iinfo(np.int64).max))

    def _postings(self, codes: np.ndarray) -> np.ndarray:
        """The owners of all given k-mers, one list after the other."""
        starts = self._offsets[codes]
        counts = self._offsets[codes + 1] - starts
        # One gather: position i of the output lies in posting list p at i - (start of p).
        before = np.cumsum(counts) - counts
        return self._owners[np.repeat(starts - before, counts) + np.arange(counts.sum())]


def _pieces(sequences: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive sequences of about PIECE residues together; at least one piece."""
    ends = np.cumsum([len(sequence) for sequence in sequences])
    cuts = np.searchsorted(ends, np.arange(PIECE, ends[-1] if len(ends) else 0, PIECE), side="right")
    bounds = [0, *np.unique(cuts[cuts > 0]).tolist(), len(sequences)]
    return (sequences[start:end] for start, end in pairwise(bounds) if end > start or not len(sequences))


def _distinct_words(sequences: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct k-mers of each sequence, ascending and joined, int32; and how many each has."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    try:
        codes = kmer_codes("".join(sequences), k)
    except InputError:
        for sequence in sequences:
            residue_index(sequence)  # raises with the position in the sequence
        raise
    owners = np.repeat(np.arange(len(sequences)), lengths)[: len(codes)]
    within = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)[: len(codes)]
    whole = within <= lengths[owners] - k  # the word does not reach into the next sequence
    keys = np.sort(owners[whole] * 20**k + codes[whole])
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return (keys % 20**k).astype(np.int32), np.bincount(keys // 20**k, minlength=len(sequences))


def _posting_lists(
    words: Sequence[np.ndarray], sizes: Sequence[np.ndarray], table: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the list of each k-mer starts, [table + 1], and the owners' numbers, ascending in each list; by counting,
    piece by piece."""
    offsets = np.zeros(table + 1, dtype=np.int64)
    for piece in words:
        offsets[1:] += np.bincount(piece, minlength=table)
    np.cumsum(offsets, out=offsets)
    owners, place, first = np.empty(offsets[-1], dtype=np.int32), offsets[:-1].copy(), 0
    for piece, counts in zip(words, sizes, strict=True):
        numbers = np.repeat(np.arange(first, first + len(counts)), counts)
        keys = np.sort(piece.astype(np.int64) << 32 | numbers)
        codes, starts, lengths = np.unique(keys >> 32, return_index=True, return_counts=True)
        owners[np.repeat(place[codes] - starts, lengths) + np.arange(len(keys))] = keys & 0xFFFFFFFF
        place[codes] += lengths
        first += len(counts)
    return offsets, owners
