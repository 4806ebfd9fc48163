"""How new samples are, as metrics of a set: identity to the nearest known protein."""

from __future__ import annotations

from didi_core.metrics import Mean

from ..nearest.neighbour import Search


def neighbour_metrics(search: Search) -> list[Mean]:
    """Identity and coverage of the nearest neighbour, and the share of near-copies (identity over 90 %)."""
    return [
        Mean("nn_identity", "NN identity", lambda sequence: search.nearest(sequence).identity),
        Mean("nn_coverage", "NN coverage", lambda sequence: search.nearest(sequence).coverage),
        Mean("copies", "NN > 90 %", lambda sequence: float(search.nearest(sequence).identity > 0.9)),
    ]
