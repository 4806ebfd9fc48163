"""The nearest known protein by shared words of five residues, then alignment: fast, and blind to distant relatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..kmers import KmerIndex, kmer_codes
from .neighbour import Neighbour, best_of


@dataclass(frozen=True)
class WordSearch:
    """Nearest neighbours in ``reference``: its ``candidates`` sequences with most 5-mers in common, aligned.

    A relative that shares no word, or fewer than five others do, is missed: below 50 % identity often, which
    ``benchmarks/novelty.py`` measures. Answers are kept, so several metrics on the same samples align once.
    """

    reference: tuple[str, ...] = field(repr=False)
    candidates: int = 5
    k: int = 5
    name: str = "kmers"
    _known: dict[str, Neighbour] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _index(self) -> KmerIndex:
        return KmerIndex(self.reference, self.k)

    @cached_property
    def _residues(self) -> int:
        return sum(map(len, self.reference))

    def prepare(self) -> None:
        """Make the index now, so that processes started later share it."""
        _ = self._index

    def nearest(self, sequence: str) -> Neighbour:
        """The candidate with the best local alignment score."""
        if sequence not in self._known:
            names, shared = self._index.sharing(np.unique(kmer_codes(sequence, self.k)))
            top = names[np.argsort(-shared, kind="stable")[: self.candidates]]
            self._known[sequence] = best_of(top.tolist(), self.reference, self._residues, sequence)
        return self._known[sequence]
