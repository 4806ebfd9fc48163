"""The most similar sequence of a reference set: how new a design is, or which family it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from didi_core.metrics import Mean

from ..alignment import align, score
from ..kmers import KmerIndex, kmer_codes


@dataclass(frozen=True)
class Neighbour:
    """Best local alignment to the reference. ``index`` is None where no reference sequence shares a 5-mer.

    ``identity``: identical residues / length of the query. ``coverage``: aligned residues of the query / its length.
    """

    index: int | None
    identity: float
    coverage: float


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours in ``reference``: its ``candidates`` sequences with most 5-mers in common, then BLOSUM62.

    Local alignment with gaps of 11 + 1 per residue (BLAST's). A heuristic: relatives too far to share words are missed.
    Answers are kept, so several metrics on the same samples align once.
    """

    reference: tuple[str, ...] = field(repr=False)
    candidates: int = 5
    k: int = 5
    _known: dict[str, Neighbour] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _index(self) -> KmerIndex:
        return KmerIndex(self.reference, self.k)

    def prepare(self) -> None:
        """Make the index now, so that processes started later share it."""
        _ = self._index

    def nearest(self, sequence: str) -> Neighbour:
        """The reference sequence with the best local alignment score."""
        if sequence not in self._known:
            self._known[sequence] = self._search(sequence)
        return self._known[sequence]

    def _search(self, sequence: str) -> Neighbour:
        names, shared = self._index.sharing(np.unique(kmer_codes(sequence, self.k)))
        top = names[np.argsort(-shared, kind="stable")[: self.candidates]]
        if not len(top):
            return Neighbour(None, 0.0, 0.0)
        best = max(top.tolist(), key=lambda i: score(self.reference[i], sequence))
        found = align(self.reference[best], sequence)
        return Neighbour(best, found.identical / len(sequence), found.covered / len(sequence))


def neighbour_metrics(neighbours: Neighbours) -> list[Mean]:
    """Identity and coverage of the nearest neighbour, and the share of near-copies (identity over 90 %)."""
    return [
        Mean("nn_identity", "NN identity", lambda sequence: neighbours.nearest(sequence).identity),
        Mean("nn_coverage", "NN coverage", lambda sequence: neighbours.nearest(sequence).coverage),
        Mean("copies", "NN > 90 %", lambda sequence: float(neighbours.nearest(sequence).identity > 0.9)),
    ]
