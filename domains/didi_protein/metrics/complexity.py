"""Low-complexity segments by the windows of SEG: the share of a sequence that consists of few letters."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from didi_core.metrics import Mean

from ..kmers import residue_index

WINDOW, TRIGGER, EXTEND = 12, 2.2, 2.5  # residues; bits per residue

_COUNTS = np.arange(WINDOW + 1, dtype=np.float64)
_N_LOG_N = _COUNTS * np.log2(np.maximum(_COUNTS, 1))


def low_complexity(sequence: str) -> Bool[np.ndarray, "L"]:
    """True at residues inside a low-complexity segment, after Wootton and Federhen (1993), W=12, K1=2.2, K2=2.5 bits.

    A segment is the union of adjacent windows of entropy at most K2 among which at least one has at most K1. SEG's
    second pass, which trims a segment to its least probable part, is left out, so this marks a little more than NCBI's
    ``seg``.
    """
    residues = residue_index(sequence)
    length = len(residues)
    if length < WINDOW:
        return np.zeros(length, dtype=bool)
    seen = np.zeros((length + 1, 20), dtype=np.int16)
    np.cumsum(np.eye(20, dtype=np.int16)[residues], axis=0, out=seen[1:])
    entropy = np.log2(WINDOW) - _N_LOG_N[seen[WINDOW:] - seen[:-WINDOW]].sum(axis=1) / WINDOW
    low = entropy <= EXTEND
    edges = np.diff(np.concatenate([[0], low.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)  # runs of windows [start, end)
    triggers = np.concatenate([[0], np.cumsum(entropy <= TRIGGER)])
    kept = triggers[ends] > triggers[starts]
    steps = np.zeros(length + 1, dtype=np.int64)
    np.add.at(steps, starts[kept], 1)
    np.add.at(steps, ends[kept] + WINDOW - 1, -1)
    return np.cumsum(steps[:-1]) > 0


def low_complexity_fraction(sequence: str) -> float:
    """Share of residues in low-complexity segments; nan for a sequence shorter than one window."""
    return float(low_complexity(sequence).mean()) if len(sequence) >= WINDOW else float("nan")


def complexity_metrics() -> list[Mean]:
    """Mean share, and the share of sequences over a quarter low complexity. Natural proteins have some."""
    return [
        Mean("low_complexity", "SEG", low_complexity_fraction),
        Mean("low_complexity_rows", "SEG > 25 %", _over_a_quarter),
    ]


def _over_a_quarter(sequence: str) -> float:
    fraction = low_complexity_fraction(sequence)
    return fraction if np.isnan(fraction) else float(fraction > 0.25)
