"""Repeats, the typical failure of protein language models: runs of a residue, one residue everywhere, repeated words.

Every perplexity rewards them, so reports show them beside it. Natural proteins have some: the target is the held-out
row, not zero.
"""

from __future__ import annotations

import numpy as np

from didi_core.metrics import Mean

from ..kmers import kmer_codes, residue_index

CROWDED = 0.25  # DPLM's own rule for a degenerate sample: one residue fills more than a quarter of it


def longest_run(sequence: str) -> int:
    """Length of the longest run of one residue."""
    residues = residue_index(sequence)
    changes = np.flatnonzero(np.diff(residues)) + 1
    return int(np.diff(np.concatenate([[0], changes, [len(residues)]])).max())


def top_share(sequence: str) -> float:
    """Share of the most frequent residue."""
    return float(np.bincount(residue_index(sequence)).max()) / len(sequence)


def repeated_words(sequence: str, k: int = 3) -> float:
    """Share of k-mers that occur earlier in the same sequence; nan for a sequence shorter than k."""
    codes = kmer_codes(sequence, k)
    return 1.0 - len(np.unique(codes)) / len(codes) if len(codes) else float("nan")


def repeat_metrics() -> list[Mean]:
    """Longest run, top residue's share, sequences that one residue crowds, repeated 3-mers."""
    return [
        Mean("longest_run", "longest run", longest_run),
        Mean("top_residue", "top AA", top_share),
        Mean("crowded_rows", "top AA > 25 %", lambda sequence: float(top_share(sequence) > CROWDED)),
        Mean("repeated_3mers", "repeated 3-mers", repeated_words),
    ]
