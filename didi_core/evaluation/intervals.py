"""Intervals for any metric: the vectorised percentile bootstrap over samples, and differences of two sets.

A metric is a function of *means* of per-sample statistics, so a resample is a weighted mean: one matrix product of
multinomial weights [R, n] with statistics [n, k] gives all R resampled means at once. Concatenating the statistics of
parts is the same as measuring the whole, so sets can be measured in pieces and merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from didi_core.errors import InputError
from didi_core.streams import derive_seed
from didi_core.types import Metric, Sample

RESAMPLES = 1000
LEVEL = 0.95
NORMAL = 1.959964  # 97.5 % quantile of the normal distribution
_CHUNK = 250  # resamples per weight matrix: 2 MB for 1,000 samples


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval; ``n`` samples used, ``left_out`` of them undefined (nan)."""

    value: float
    low: float
    high: float
    n: int
    left_out: int = 0

    def excludes(self, number: float = 0.0) -> bool:
        """Whether the interval lies wholly on one side of ``number``."""
        return self.low > number or self.high < number


UNDEFINED = float("nan")


@runtime_checkable
class HasBias(Protocol):
    """A metric whose plug-in value is biased on finite samples: a divergence upwards, an entropy of counts downwards.

    Resampling adds the same bias again, so a percentile interval would lie wholly beside the value. The bootstrap's
    estimate of the bias is therefore subtracted, and the interval is the basic one (Davison and Hinkley 1997, 5.2.1).
    Divergences, distances and entropies are never negative, so value and interval are cut off at zero, which leaves the
    truth inside.
    """

    @property
    def biased(self) -> bool: ...


@runtime_checkable
class HasProportion(Protocol):
    """A metric that is a share of samples: its statistic is 0 or 1. Where all samples agree, resampling shows no error
    at all, so the interval is Wilson's (1927)."""

    @property
    def proportion(self) -> bool: ...


def bootstrap(
    metric: Metric,
    samples: Sequence[Sample] | Float[np.ndarray, "n k"],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The metric of a set of samples (or of their statistics) with its percentile interval; Wilson's of a share.

    Rows that contain a nan are counted and left out; with none left, every field is nan and n is 0.
    """
    rows, left_out = defined(_statistics(metric, samples))
    if not len(rows):
        return Interval(UNDEFINED, UNDEFINED, UNDEFINED, 0, left_out)
    value = float(metric.aggregate(rows.mean(axis=0)))
    if isinstance(metric, HasProportion) and metric.proportion:
        return wilson(value, len(rows), left_out)
    draws = metric.aggregate(resampled_means(rows, resamples, seed))
    if isinstance(metric, HasBias) and metric.biased and np.isfinite(value):
        return corrected(value, draws, len(rows), left_out)
    return interval(value, draws, len(rows), left_out)


def difference(
    metric: Metric,
    first: Sequence[Sample] | Float[np.ndarray, "n k"],
    second: Sequence[Sample] | Float[np.ndarray, "m k"],
    *,
    paired: bool = False,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Metric of the first set minus metric of the second, with its interval.

    Args:
        paired: sample i of one set belongs to sample i of the other (same prompt, same seed). Both are resampled alike,
            and a pair is left out if either is undefined. Otherwise the sets are resampled independently.
        transform: applied to both values before subtracting; ``numpy.log`` gives the log of their ratio.

    Raises:
        InputError: paired sets are of different sizes.
    """
    a, b = _statistics(metric, first), _statistics(metric, second)
    if paired:
        if len(a) != len(b):
            raise InputError(f"a paired difference needs equal sets: got {len(a)} and {len(b)} samples.")
        kept, left_out = defined(np.concatenate([a, b], axis=1))
        a, b = kept[:, : a.shape[1]], kept[:, a.shape[1] :]
    else:
        (a, missing_a), (b, missing_b) = defined(a), defined(b)
        left_out = missing_a + missing_b
    if not len(a) or not len(b):
        return Interval(UNDEFINED, UNDEFINED, UNDEFINED, 0, left_out)
    shape = transform or (lambda values: values)

    def value(means: np.ndarray) -> np.ndarray:
        return shape(metric.aggregate(means))

    point = float(value(a.mean(axis=0)) - value(b.mean(axis=0)))
    other = seed if paired else derive_seed(seed, "second set")
    draws = value(resampled_means(a, resamples, seed)) - value(resampled_means(b, resamples, other))
    return interval(point, draws, min(len(a), len(b)), left_out)


def interval(value: float, draws: Float[np.ndarray, "R"], n: int, left_out: int = 0) -> Interval:
    """Percentile interval of bootstrap draws around a point estimate; draws that are nan are ignored."""
    finite = np.asarray(draws)[~np.isnan(draws)]
    if not len(finite):
        return Interval(value, UNDEFINED, UNDEFINED, n, left_out)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value, float(low), float(high), n, left_out)


def corrected(value: float, draws: Float[np.ndarray, "R"], n: int, left_out: int = 0) -> Interval:
    """Basic interval around a value minus its bias, which the draws estimate; draws that are not finite are ignored."""
    finite = np.asarray(draws)[np.isfinite(draws)]
    if not len(finite):
        return Interval(value, UNDEFINED, UNDEFINED, n, left_out)
    mirrored = interval(value, 2 * value - finite, n, left_out)
    middle = float(2 * value - finite.mean())
    return Interval(max(middle, 0.0), max(mirrored.low, 0.0), max(mirrored.high, 0.0), n, left_out)


def wilson(share: float, n: int, left_out: int = 0) -> Interval:
    """A share of n samples with the score interval of Wilson (1927), which holds up at 0 and 1 too."""
    spread = NORMAL**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low, high = max(float(middle - half), 0.0), min(float(middle + half), 1.0)
    return Interval(share, min(low, share), max(high, share), n, left_out)  # rounding may pass the share by a little


def over_runs(values: Sequence[float], geometric: bool = False, lowest: float | None = None) -> Interval:
    """Mean over independent runs (training seeds) with Student's t interval, for claims about training.

    ``n`` is the number of runs; one run has no interval. It is not a bootstrap, as three points have too few resamples.

    Args:
        geometric: take the mean of logarithms, for values compared by ratios (a perplexity), so no bound is negative.
        lowest: what no such value can be below, where the interval is cut off.
    """
    if geometric and np.min(values, initial=np.inf) > 0:
        found = over_runs(np.log(values).tolist())
        value, low, high = np.exp([found.value, found.low, found.high]).tolist()
        return Interval(value, low, high, found.n, found.left_out)
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or np.isnan(x).any():
        return Interval(UNDEFINED, UNDEFINED, UNDEFINED, len(x), int(np.isnan(x).sum()))
    if len(x) == 1:
        return Interval(float(x[0]), UNDEFINED, UNDEFINED, 1)
    half = _student_t(len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    low = float(x.mean() - half)
    return Interval(float(x.mean()), low if lowest is None else max(low, lowest), float(x.mean() + half), len(x))


def defined(statistics: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, "m k"], int]:
    """Rows without a nan.

    Returns:
        the rows, and the number of rows left out.
    """
    keep = ~np.isnan(statistics).any(axis=1)
    return statistics[keep], int((~keep).sum())


def resampled_means(
    statistics: Float[np.ndarray, "n k"], resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "R k"]:
    """Means over ``resamples`` draws of n rows with replacement; equal n and seed draw the same rows for any metric.

    Raises:
        InputError: ``resamples`` is below 1.
    """
    if resamples < 1:
        raise InputError(f"resamples={resamples} is out of range: at least one.")
    parts = range(-(-resamples // _CHUNK))
    # Divide the counts last: sums of whole numbers are exact, so rounding cannot move an interval off its value.
    sums = np.concatenate([_counts(len(statistics), seed, part) @ statistics for part in parts])
    return sums[:resamples] / len(statistics)


@lru_cache(maxsize=8)
def _counts(n: int, seed: int, part: int) -> Float[np.ndarray, "R n"]:
    """How often each row occurs in each resample of a chunk. Cached, because many metrics see sets of the same size."""
    random = np.random.default_rng(derive_seed(seed, "bootstrap", n, part))
    drawn = random.integers(0, n, size=(_CHUNK, n)) + n * np.arange(_CHUNK)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=_CHUNK * n).reshape(_CHUNK, n)
    return counts.astype(np.float64)


def _statistics(metric: Metric, samples: Sequence[Sample] | np.ndarray) -> Float[np.ndarray, "n k"]:
    rows = samples if isinstance(samples, np.ndarray) else metric.statistics(samples)
    if rows.ndim != 2:
        raise InputError(f"metric {metric.name!r}: statistics must be [n, k], got the shape {list(rows.shape)}.")
    return rows


def _student_t(freedom: int) -> float:
    """97.5 % quantile of Student's t."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    if freedom <= len(table):
        return table[freedom - 1]
    z = NORMAL  # Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5), good to 1e-4 from 10 degrees on
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
