"""The nearest known protein by aligning every one of them: Smith-Waterman in SIMD registers, through pyopal.

The scores are those of ``alignment``. The search is Opal's (Sosic 2015, github.com/Martinsos/opal).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
from jaxtyping import Float

from didi_core.errors import InputError

from .neighbour import Neighbour, best_of

COMMAND = "pip install 'didi-core[novelty]'"
FIRST_GAP, NEXT_GAP = 12, 1  # the first residue of a gap pays both of 11 + 1


def installed() -> bool:
    """Whether pyopal is there."""
    return importlib.util.find_spec("pyopal") is not None


class ExactSearch:
    """Every protein of ``reference`` aligned with the query. ``threads`` share the reference.

    Raises InputError where pyopal is not installed.
    """

    name = "exact"

    def __init__(self, reference: Sequence[str], threads: int = 1) -> None:
        if not installed():
            raise InputError(f"novelty=exact needs the package pyopal: {COMMAND}. novelty=kmers needs nothing.")
        import pyopal

        self.reference = tuple(reference)
        self._residues = sum(map(len, reference))
        self._database = pyopal.Database(self.reference)
        self._aligner = pyopal.Aligner("BLOSUM62", gap_open=FIRST_GAP, gap_extend=NEXT_GAP)
        # Neighbours in the reference are often relatives, and those take longer: many parts keep the threads even.
        parts = 1 if threads == 1 else 4 * threads
        self._bounds = np.unique(np.linspace(0, len(self.reference), parts + 1).astype(int)).tolist()
        self._threads = threads

    def scores(self, sequence: str) -> Float[np.ndarray, "n"]:
        """Score of the best local alignment with each protein of the reference."""

        def part(bounds: tuple[int, int]) -> list[int]:
            hits = self._aligner.align(sequence, self._database, mode="score", start=bounds[0], end=bounds[1])
            return [hit.score for hit in hits]

        parts = list(pairwise(self._bounds))
        found = map(part, parts) if self._threads == 1 else self._pool.map(part, parts)
        return np.fromiter(chain.from_iterable(found), dtype=np.float64)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Made when it is used, as threads do not survive a fork."""
        return ThreadPoolExecutor(self._threads)

    def nearest(self, sequence: str) -> Neighbour:
        """The protein with the best local alignment score, the first of equals."""
        return best_of([int(self.scores(sequence).argmax())], self.reference, self._residues, sequence)
