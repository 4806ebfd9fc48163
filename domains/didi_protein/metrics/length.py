"""Length in residues."""

from __future__ import annotations

from didi_core.metrics import Mean


def mean_length() -> Mean:
    """Mean number of residues."""
    return Mean("length", "length", lambda sequence: float(len(sequence)))
