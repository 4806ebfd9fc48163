"""Quality at matched entropy: models are compared where their temperature sweeps meet the entropy of the data.

Where the entropy hardly changes with temperature, a second metric of variety that does is matched in the same way.

A lower temperature trades entropy for perplexity, so perplexities at different entropies cannot be compared. The
frontier is piecewise linear in (entropy, log quality). For its uncertainty, the samples of every temperature are
resampled and the frontier is interpolated again, so an interval includes the error of the entropies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from didi_core.errors import InputError
from didi_core.evaluation.intervals import RESAMPLES, HasBias, Interval, defined, interval, resampled_means
from didi_core.streams import derive_seed
from didi_core.types import Metric

NEAR = 0.01  # "matched entropy (within 1 %)": relative distance at which a point may replace the frontier


@dataclass(frozen=True)
class SweepPoint:
    """Statistics of the quality and entropy metrics at one temperature; row i is sample i in both."""

    temperature: float
    quality: Float[np.ndarray, "n k"]
    entropy: Float[np.ndarray, "n j"]


@dataclass(frozen=True)
class Frontier:
    """Points (entropy, log quality) of one method at one number of steps, and R bootstrap draws of all points."""

    temperatures: tuple[float, ...]
    entropy: Float[np.ndarray, "P"]
    log_quality: Float[np.ndarray, "P"]
    entropy_draws: Float[np.ndarray, "R P"]
    log_quality_draws: Float[np.ndarray, "R P"]
    n: int  # number of samples at the point that has fewest


@dataclass(frozen=True)
class Matched:
    """Log quality of a frontier at one entropy.

    status: ``reached`` (interpolated), ``near`` (the sweep ends within 1 % of the entropy: its nearest
    point is taken) or ``not reached`` (the nearest point is shown; no claim rests on it).
    """

    status: Literal["reached", "near", "not reached"]
    at: float
    entropy: float  # the entropy at which it was read: ``at``, or that of the nearest point
    temperature: float  # interpolated in the same way
    log_quality: float
    draws: Float[np.ndarray, "R"]
    n: int

    @property
    def usable(self) -> bool:
        return self.status != "not reached"

    @property
    def quality(self) -> Interval:
        """In the metric's own units."""
        return interval(float(np.exp(self.log_quality)), np.exp(self.draws), self.n)


@dataclass(frozen=True)
class Acceleration:
    """Teacher steps that reach the student's quality at ``steps``, divided by ``steps``.

    bound: ``at least`` if the teacher does not reach it in the steps that were run, ``at most`` if its fewest steps
        already reach it.
    """

    steps: int
    teacher_steps: float
    factor: Interval
    bound: Literal["", "at least", "at most"]


def frontier(
    quality: Metric, entropy: Metric, points: Sequence[SweepPoint], *, seed: int = 0, resamples: int = RESAMPLES
) -> Frontier:
    """Build a frontier from a sweep, in order of temperature; all points are resampled with the same stream.

    Samples of equal index have the same length, which decides most of their quality. All points and models of equal
    size resample the same indices, so these pairs stay together and intervals of differences are paired ones.

    Raises:
        InputError: the quality is not strictly positive with lower-is-better (its logarithm is interpolated).
    """
    if quality.better != "lower":
        raise InputError(
            f"metric {quality.name!r} cannot be compared at matched entropy: its log is interpolated, so it must be "
            f"positive and lower must be better; this metric has better={quality.better!r}. "
            "Put a suitable metric first in the domain's metrics()."
        )
    if not points:
        raise InputError("a frontier needs at least one temperature.")
    columns: list[tuple[float, float, np.ndarray, np.ndarray, int]] = []
    ordered = sorted(points, key=lambda point: point.temperature)
    for point in ordered:
        width = point.quality.shape[1]
        rows, _ = defined(np.concatenate([point.quality, point.entropy], axis=1))
        if not len(rows):
            raise InputError(
                f"temperature {point.temperature:g}: {quality.name} or {entropy.name} is undefined for every sample."
            )
        means = np.concatenate(
            [rows.mean(axis=0, keepdims=True), resampled_means(rows, resamples, derive_seed(seed, "frontier"))]
        )
        values, spread = quality.aggregate(means[:, :width]), entropy.aggregate(means[:, width:])
        if not (values > 0).all():
            raise InputError(
                f"metric {quality.name!r} is {values.min():.4g} at temperature {point.temperature:g}: "
                "a quality at matched entropy must be strictly positive."
            )
        if isinstance(entropy, HasBias) and entropy.biased:
            spread = _unbiased(spread)
        log = np.log(values)
        columns.append((float(spread[0]), float(log[0]), spread[1:], log[1:], len(rows)))
    return Frontier(
        tuple(point.temperature for point in ordered),
        np.array([c[0] for c in columns]),
        np.array([c[1] for c in columns]),
        np.stack([c[2] for c in columns], axis=1),
        np.stack([c[3] for c in columns], axis=1),
        min(c[4] for c in columns),
    )


def _unbiased(spread: Float[np.ndarray, "R+1"]) -> Float[np.ndarray, "R+1"]:
    """A value and its draws with the bias taken off that resampling shows: once of the value, twice of the draws."""
    bias = spread[1:].mean() - spread[0]
    return spread - np.concatenate([[bias], np.full(len(spread) - 1, 2 * bias)])


def matched(curve: Frontier, at: float) -> Matched:
    """Read a frontier at the entropy ``at``; no claim is made beyond the sweep.

    In a resample, noise may move the sweep so that ``at`` lies just outside it. The last segment is then extended,
    because dropping such resamples would bias the interval.
    """
    order = np.argsort(curve.entropy, kind="stable")
    x = curve.entropy[order]
    if len(x) > 1 and x[0] <= at <= x[-1]:
        value = _read(x[None], curve.log_quality[None, order], at)[0]
        temperature = _read(x[None], np.asarray(curve.temperatures)[None, order], at)[0]
        by_draw = np.argsort(curve.entropy_draws, axis=1, kind="stable")
        draws = _read(
            np.take_along_axis(curve.entropy_draws, by_draw, axis=1),
            np.take_along_axis(curve.log_quality_draws, by_draw, axis=1),
            at,
        )
        return Matched("reached", at, at, float(temperature), float(value), draws, curve.n)
    nearest = int(np.abs(curve.entropy - at).argmin())
    status: Literal["near", "not reached"] = (
        "near" if abs(curve.entropy[nearest] - at) <= NEAR * abs(at) else "not reached"
    )
    return Matched(
        status,
        at,
        float(curve.entropy[nearest]),
        curve.temperatures[nearest],
        float(curve.log_quality[nearest]),
        curve.log_quality_draws[:, nearest],
        curve.n,
    )


def common_value(first: Frontier, second: Frontier, wanted: float) -> float | None:
    """The value nearest to ``wanted`` that both sweeps reach; None where they have none in common."""
    low = max(float(first.entropy.min()), float(second.entropy.min()))
    high = min(float(first.entropy.max()), float(second.entropy.max()))
    return None if low > high else min(max(wanted, low), high)


def matched_difference(student: Matched, teacher: Matched) -> Interval | None:
    """Log quality of the student minus the teacher's; below zero the student is better. None unless both are usable."""
    if not (student.usable and teacher.usable):
        return None
    n = min(student.n, teacher.n)
    return interval(student.log_quality - teacher.log_quality, student.draws - teacher.draws, n)


def acceleration(student: Matched, steps: int, teacher: Mapping[int, Matched]) -> Acceleration | None:
    """Number of teacher steps with the student's quality: the first crossing, linear in (log steps, log quality).

    None if the student did not reach the entropy, or the teacher reached it at fewer than two numbers of steps.
    """
    known = sorted(k for k, value in teacher.items() if value.usable)
    if not student.usable or len(known) < 2:
        return None
    log_steps = np.log(np.array(known, dtype=np.float64))
    levels = np.array([[teacher[k].log_quality for k in known]])
    needed, bound = _crossing(log_steps, levels, np.array([student.log_quality]))
    draws, _ = _crossing(log_steps, np.stack([teacher[k].draws for k in known], axis=1), student.draws)
    worth = float(np.exp(needed[0]))
    return Acceleration(steps, worth, interval(worth / steps, np.exp(draws) / steps, student.n), bound)


def _read(x: Float[np.ndarray, "R P"], y: Float[np.ndarray, "R P"], at: float) -> Float[np.ndarray, "R"]:
    """Piecewise linear y(at) of every row; x ascends along each row, and the end segments are extended."""
    right = np.clip((x < at).sum(axis=1), 1, x.shape[1] - 1)[:, None]
    x0, x1 = (np.take_along_axis(x, right - back, axis=1)[:, 0] for back in (1, 0))
    y0, y1 = (np.take_along_axis(y, right - back, axis=1)[:, 0] for back in (1, 0))
    width = x1 - x0
    part = np.where(width > 0, (at - x0) / np.where(width > 0, width, 1.0), 0.5)
    return np.asarray(y0 + part * (y1 - y0))


def _crossing(
    log_steps: Float[np.ndarray, "S"], levels: Float[np.ndarray, "R S"], target: Float[np.ndarray, "R"]
) -> tuple[Float[np.ndarray, "R"], Literal["", "at least", "at most"]]:
    """Where the levels first fall to their targets.

    Returns:
        log steps of that crossing for each row, within the steps that were run; and the bound of row 0.
    """
    reached = levels <= target[:, None]
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(log_steps))
    right = np.clip(first, 1, len(log_steps) - 1)[:, None]
    above, below = (np.take_along_axis(levels, right - back, axis=1)[:, 0] for back in (1, 0))
    drop = above - below
    part = np.clip(np.where(drop > 0, (above - target) / np.where(drop > 0, drop, 1.0), 1.0), 0.0, 1.0)
    left_steps, right_steps = log_steps[right[:, 0] - 1], log_steps[right[:, 0]]
    steps = left_steps + part * (right_steps - left_steps)
    steps = np.where(first == 0, log_steps[0], np.where(first == len(log_steps), log_steps[-1], steps))
    bound: Literal["", "at least", "at most"] = (
        "at most" if first[0] == 0 else "at least" if first[0] == len(log_steps) else ""
    )
    return steps, bound
