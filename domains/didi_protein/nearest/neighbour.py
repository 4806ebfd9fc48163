"""What a search for the nearest known protein gives, whichever way it was found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..alignment import align, score

# Of local alignments under BLOSUM62 with gaps of 11 + 1 per residue, as in BLAST's table (Altschul and Gish 1996).
LAMBDA, K = 0.267, 0.041


@dataclass(frozen=True)
class Neighbour:
    """Best local alignment to the known proteins. ``index`` is None where the search found no candidate.

    ``identity``: identical residues / length of the query. ``coverage``: aligned residues of the query / its length.
    ``evalue``: alignments of such a score that chance gives in proteins of this number and length; infinite without
    an alignment.
    """

    index: int | None
    identity: float
    coverage: float
    evalue: float = math.inf


NOTHING = Neighbour(None, 0.0, 0.0)


class Search(Protocol):
    """A way to find the nearest of the known proteins."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def nearest(self, sequence: str) -> Neighbour:
        """The known protein with the best local alignment score."""
        ...


def best_of(candidates: Iterable[int], reference: Sequence[str], residues: int, sequence: str) -> Neighbour:
    """The candidate, by its number in the reference, that aligns best.

    Args:
        residues: of the whole reference, for the E-value.
    """
    scores = {number: score(reference[number], sequence) for number in candidates}
    if not scores or max(scores.values()) <= 0:
        return NOTHING
    best = max(scores, key=scores.__getitem__)  # the first of equals
    found = align(reference[best], sequence)
    length = len(sequence)
    return Neighbour(best, found.identical / length, found.covered / length, expected(scores[best], length, residues))


def expected(raw: float, query: int, residues: int) -> float:
    """E-value ``K m n exp(-lambda S)`` of a raw score, without correction for the ends of sequences."""
    return K * query * residues * math.exp(-LAMBDA * raw)
