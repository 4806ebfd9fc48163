"""An inverted index of residue k-mers: which sequences share how many words, for clustering and nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from didi_core.storage.sample_store import Chosen, joined

from .vocabulary import FIRST_RESIDUE, ID_OF_BYTE, residue_ids

PIECE = 1 << 22  # residues indexed together while the index is built
ALIKE = 4  # k-mers in common that make it worth while to count all
NO_RESIDUE = 20
_RESIDUE_OF_BYTE = np.where(ID_OF_BYTE, ID_OF_BYTE - FIRST_RESIDUE, NO_RESIDUE).astype(np.uint8).tobytes()


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
    """For each k-mer the sequences that have it, and how many distinct ones each sequence has: ``sizes`` [n].

    Memory is about 4 bytes per residue beside the sequences, 8 while it is built at once, and 12 * 20^k for the table
    (38 MB for k=5); time to build grows with the residues.

    filled: whether it holds the sequences from the beginning; otherwise they are added, one by one or many at once.
    kept: the k-mers that it keeps, bool [20^k]; None for all. Who looks up another one finds nobody. ``kept_sizes``:
    how many of them each sequence has, [n]. sizes: of all k-mers, if they are known already; needed with ``kept``.
    """

    def __init__(
        self,
        sequences: Sequence[str],
        k: int = 5,
        *,
        filled: bool = True,
        kept: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
    ) -> None:
        self.k, self._sequences, self._kept = k, sequences, kept
        words, counted = [], []
        self._offsets = np.zeros(20**k + 1, dtype=np.int64)
        for piece in _pieces(sequences):
            codes, counts = _distinct_words(piece, k, kept)
            self._offsets[1:] += np.bincount(codes, minlength=20**k)
            counted.append(counts)
            words += [codes] if filled else []
        np.cumsum(self._offsets, out=self._offsets)
        self.kept_sizes = np.concatenate(counted)
        self.sizes = self.kept_sizes if sizes is None else sizes
        self._owners = np.empty(self._offsets[-1], dtype=np.int32)
        self._held = np.zeros(20**k, dtype=np.int32)  # owners of each k-mer so far
        first = 0
        for codes, counts in zip(words, counted if filled else (), strict=True):
            self._add_piece(codes, np.repeat(np.arange(first, first + len(counts)), counts))
            first += len(counts)

    def __len__(self) -> int:
        return len(self.sizes)

    def words(self, number: int) -> np.ndarray:
        """The distinct k-mers of a sequence, ascending."""
        codes = np.sort(kmer_codes(self._sequences[number], self.k))
        return codes[np.diff(codes, prepend=-1) > 0]

    def add(self, number: int, words: np.ndarray) -> None:
        """Put a sequence into an index that was not filled; ``words``: its own."""
        held = self._held[words]
        self._owners[self._offsets[words] + held] = number
        self._held[words] = held + 1

    def add_all(self, numbers: np.ndarray) -> None:
        """Put many sequences into an index that was not filled; numbers ascend."""
        first = 0
        for piece in _pieces(Chosen(self._sequences, numbers)):
            codes, counts = _distinct_words(piece, self.k, self._kept)
            self._add_piece(codes, np.repeat(numbers[first : first + len(counts)], counts))
            first += len(counts)

    def _add_piece(self, codes: np.ndarray, owners: np.ndarray) -> None:
        """Put many (k-mer, owner) pairs in; the owners of one k-mer ascend in ``owners``."""
        keys = np.sort(codes.astype(np.int64) << 32 | owners)
        codes, starts, lengths = np.unique(keys >> 32, return_index=True, return_counts=True)
        places = self._offsets[codes] + self._held[codes]
        self._owners[np.repeat(places - starts, lengths) + np.arange(len(keys))] = keys & 0xFFFFFFFF
        self._held[codes] += lengths

    def may_share(self, words: np.ndarray, least: int) -> bool:
        """Whether some sequence may have ``least`` of a sequence's distinct k-mers; False is certain.

        Whoever has so many of all has ALIKE of any that are ALIKE more than may be missing, so the rarest of them are
        looked up.
        """
        wanted = min(ALIKE, least)
        enough = len(words) - least + wanted
        if enough < len(words):
            words = words[np.argpartition(self._held[words], enough - 1)[:enough]]
        found = np.sort(self._postings(words))
        return bool((found[wanted - 1 :] == found[: max(len(found) - wanted + 1, 0)]).any())

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
        starts, counts = self._offsets[codes], self._held[codes]
        # One gather: position i of the output lies in posting list p at i - (start of p).
        before = np.cumsum(counts) - counts
        return self._owners[np.repeat(starts - before, counts) + np.arange(counts.sum())]


def _pieces(sequences: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive sequences of about PIECE residues together; at least one piece."""
    ends = np.cumsum([len(sequence) for sequence in sequences])
    cuts = np.searchsorted(ends, np.arange(PIECE, ends[-1] if len(ends) else 0, PIECE), side="right")
    bounds = [0, *np.unique(cuts[cuts > 0]).tolist(), len(sequences)]
    return (sequences[start:end] for start, end in pairwise(bounds) if end > start or not len(sequences))


def all_words(sequences: Sequence[str], k: int) -> np.ndarray:
    """Which k-mers some sequence has, bool [20^k]."""
    found = np.zeros(20**k, dtype=bool)
    for piece in _pieces(sequences):
        codes, whole, _ = joined_codes(piece, k)
        found[codes[whole]] = True
    return found


def joined_codes(sequences: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every k-mer of the joined sequences, as ``kmer_codes`` numbers it, for many short sequences at once.

    Returns:
        the k-mers, uint32; which of them lie within one sequence, bool; and where each sequence ends, [n].
    """
    letters, lengths = joined(sequences)
    residues = np.frombuffer(letters.translate(_RESIDUE_OF_BYTE), dtype=np.uint8)
    if (residues >= NO_RESIDUE).any():
        for sequence in sequences:
            residue_index(sequence)  # raises with the position in the sequence
    wide = residues.astype(np.uint32)
    count = max(len(wide) - k + 1, 0)
    codes = wide[:count].copy()
    for offset in range(1, k):
        codes *= np.uint32(20)
        codes += wide[offset : offset + count]
    ends = np.cumsum(lengths)
    crossing = (ends[:, None] - np.arange(1, k)).ravel()  # these words begin in one sequence and end in another
    whole = np.ones(count, dtype=bool)
    whole[crossing[(crossing >= 0) & (crossing < count)]] = False
    return codes, whole, ends


def _distinct_words(sequences: Sequence[str], k: int, kept: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The distinct k-mers of each sequence, ascending and joined, int32; and how many each has.

    kept: which k-mers are wanted, bool [20^k]; None for all.
    """
    codes, whole, ends = joined_codes(sequences, k)
    if kept is not None:
        whole &= kept[codes]
    chosen = np.flatnonzero(whole)
    owners = np.repeat(np.arange(len(ends)), np.diff(np.searchsorted(chosen, ends), prepend=0))
    keys = np.sort(owners * 20**k + codes[chosen])
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return (keys % 20**k).astype(np.int32), np.bincount(keys // 20**k, minlength=len(sequences))
