"""Local alignment of two proteins: BLOSUM62 with gap costs of 11 + 1 per residue, as in BLAST."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from Bio.Align import PairwiseAligner, substitution_matrices


@dataclass(frozen=True)
class Aligned:
    """Identical residues, and aligned residues of the query, of the best local alignment."""

    identical: int
    covered: int


@cache
def _aligner() -> PairwiseAligner:
    aligner = PairwiseAligner()
    aligner.mode = "local"
    aligner.substitution_matrix = substitution_matrices.load("BLOSUM62")
    aligner.open_gap_score, aligner.extend_gap_score = -12.0, -1.0  # the first residue of a gap pays both
    return aligner


def score(target: str, query: str) -> float:
    """Score of the best local alignment."""
    return float(_aligner().score(target, query))


def align(target: str, query: str) -> Aligned:
    """The best local alignment; it is empty if no pair of residues scores above zero."""
    best = next(iter(_aligner().align(target, query)), None)
    if best is None:
        return Aligned(0, 0)
    targets, queries = best.aligned
    identical = sum(
        a == b
        for (s, e), (u, v) in zip(targets, queries, strict=True)
        for a, b in zip(target[s:e], query[u:v], strict=True)
    )
    return Aligned(int(identical), int((queries[:, 1] - queries[:, 0]).sum()))


def identity(one: str, other: str) -> float:
    """Identical residues over the length of the shorter protein, as in CD-HIT."""
    return align(one, other).identical / _shorter(one, other)


def reaches(one: str, other: str, level: float) -> bool:
    """Whether ``identity`` can be ``level``: no alignment has more identical residues than the longest common
    subsequence, which takes a twentieth of the time."""
    return common_subsequence(one, other) / _shorter(one, other) >= level


def _shorter(one: str, other: str) -> int:
    return max(min(len(one), len(other)), 1)


def common_subsequence(one: str, other: str) -> int:
    """Length of the longest common subsequence, a row of the table as the bits of one number (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, letter in enumerate(one):
        places[letter] = places.get(letter, 0) | 1 << place
    every = (1 << len(one)) - 1
    row = every
    for letter in other:
        matched = row & places.get(letter, 0)
        row = (row + matched | row - matched) & every
    return len(one) - row.bit_count()
