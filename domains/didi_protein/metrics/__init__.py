"""Metrics of protein sets that need no download; each implements ``didi_core.types.Metric``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from didi_core.metrics import DistinctFraction
from didi_core.types import Metric

from ..nearest.neighbour import Search
from .complexity import complexity_metrics
from .composition import composition_divergence, dipeptide_divergence
from .diversity import ClusterFraction, DistinctWords, PairDistance
from .entropy import PositionalDiversity, token_entropy
from .length import mean_length
from .neighbours import neighbour_metrics
from .protparam import protparam_metrics
from .repeats import repeat_metrics


def protein_metrics(
    dipeptides: Sequence[str] | Int[np.ndarray, "400"],
    *,
    judge: Metric | None = None,
    neighbours: Search | None = None,
) -> list[Metric]:
    """All metrics of proteins: the quality first (``judge``, or else dipeptide divergence), the entropy second.

    ``dipeptides``: reference sequences, or their 400 counts. ``neighbours``: the search of the nearest-neighbour
    metrics, which are left out without it.
    """
    pairs = dipeptide_divergence(dipeptides)
    metrics: list[Metric] = [pairs, token_entropy()] if judge is None else [judge, token_entropy(), pairs]
    metrics += [composition_divergence(), *complexity_metrics(), *repeat_metrics()]
    metrics += [DistinctFraction(), ClusterFraction(), DistinctWords(), PositionalDiversity(), PairDistance()]
    metrics += [mean_length(), *protparam_metrics()]
    if neighbours is not None:
        metrics += neighbour_metrics(neighbours)
    return metrics
