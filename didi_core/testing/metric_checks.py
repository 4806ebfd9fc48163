"""The contract of a metric that a plugin offers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from didi_core.evaluation.intervals import bootstrap
from didi_core.testing.bench import promise
from didi_core.types import Metric, Sample


def check_metric(metric: Metric, samples: Sequence[Sample]) -> None:
    """A metric gives one row of numbers per sample, independent of the other samples, and an interval from their means.

    Args:
        samples: at least ``metric.minimum`` ordinary samples.
    """
    promise(isinstance(metric, Metric), f"{metric!r} lacks a member of didi_core.types.Metric.")
    promise(len(samples) >= metric.minimum, f"{metric.name} needs {metric.minimum} samples; {len(samples)} were given.")
    rows = np.asarray(metric.statistics(samples), dtype=np.float64)
    promise(rows.ndim == 2 and len(rows) == len(samples), f"{metric.name}: statistics have shape {rows.shape}; [n, k].")
    value = bootstrap(metric, rows, 200, 0)
    promise(np.isfinite(value.value), f"{metric.name} is {value.value} on the samples.")
    several = np.asarray(metric.aggregate(np.stack([rows.mean(0), rows.mean(0)])))
    promise(several.shape == (2,), f"{metric.name}: aggregate of [2, k] means has shape {several.shape}; [2].")
    promise(metric.statistics([]).shape[0] == 0, f"{metric.name}: statistics of no samples must have no rows.")
