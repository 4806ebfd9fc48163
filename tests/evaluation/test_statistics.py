"""Bootstrap intervals cover, differences and parts agree, frontiers are read where they should be and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from plain_metrics import Number, Ratio

from didi_core.errors import InputError
from didi_core.evaluation.frontier import (
    Matched,
    SweepPoint,
    acceleration,
    common_value,
    frontier,
    matched,
    matched_difference,
)
from didi_core.evaluation.intervals import (
    NORMAL,
    Interval,
    bootstrap,
    difference,
    over_runs,
    resampled_means,
    wilson,
)
from didi_core.metrics import Mean, Share, entropy_of_counts
from didi_core.types import Sample


def column(values: object) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)


def test_interval_covers_the_true_mean_about_95_times_in_a_hundred() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for repeat in range(200):
        found = bootstrap(Number(), column(random.exponential(2.0, size=80)), resamples=250, seed=repeat)
        covered += found.low <= 2.0 <= found.high
    assert (
        176 <= covered <= 198
    )  # 95 % of 200 is 190; three standard errors below, and a skewed law covers a little less


def test_interval_of_a_ratio_covers_the_true_perplexity() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for repeat in range(200):
        tokens = random.integers(20, 60, size=60).astype(np.float64)
        rows = np.stack([tokens * (1.5 + 0.3 * random.standard_normal(60)), tokens], axis=1)
        found = bootstrap(Ratio(), rows, resamples=250, seed=repeat)
        covered += found.low <= np.exp(1.5) <= found.high
    assert 178 <= covered <= 199


def test_value_is_that_of_the_samples_and_width_falls_with_the_root_of_n() -> None:
    random = np.random.default_rng(2)
    small, large = (bootstrap(Number(), column(random.standard_normal(n)), seed=3) for n in (200, 3200))
    assert (small.high - small.low) / (large.high - large.low) == pytest.approx(4, rel=0.2)
    samples = [Sample("1"), Sample("2"), Sample("6")]
    assert bootstrap(Number(), samples).value == 3.0


def test_resampled_means_are_means_of_rows_drawn_with_replacement() -> None:
    rows = column([0, 1, 2, 3, 4])
    means = resampled_means(rows, resamples=4000, seed=0)
    assert means.shape == (4000, 1)
    assert np.allclose(means * 5, np.round(means * 5))  # sums of five whole numbers
    assert means.mean() == pytest.approx(2, abs=0.05)
    assert means.var() == pytest.approx(2 / 5, rel=0.1)  # the rows' variance is 2


def test_same_seed_same_interval_other_seed_another() -> None:
    rows = column(np.random.default_rng(4).standard_normal(50))
    assert bootstrap(Number(), rows, seed=1) == bootstrap(Number(), rows, seed=1)
    assert bootstrap(Number(), rows, seed=1) != bootstrap(Number(), rows, seed=2)


def test_parts_concatenated_give_the_numbers_of_the_whole() -> None:
    samples = [Sample(str(x)) for x in np.random.default_rng(5).standard_normal(90)]
    metric = Number()
    parts = np.concatenate([metric.statistics(samples[i : i + 30]) for i in (0, 30, 60)])
    assert bootstrap(metric, parts, seed=7) == bootstrap(metric, samples, seed=7)


def test_undefined_rows_are_counted_and_left_out() -> None:
    values = np.random.default_rng(6).standard_normal(40)
    with_nan = np.insert(values, [3, 11, 20], np.nan)
    found, clean = bootstrap(Number(), column(with_nan)), bootstrap(Number(), column(values))
    assert (found.n, found.left_out) == (40, 3)
    assert (found.value, found.low, found.high) == (clean.value, clean.low, clean.high)


def test_nothing_defined_is_nan_and_not_an_error() -> None:
    for rows in (np.full((4, 1), np.nan), np.zeros((0, 1))):
        found = bootstrap(Number(), rows)
        assert np.isnan([found.value, found.low, found.high]).all() and found.n == 0


def test_difference_covers_and_finds_a_real_one() -> None:
    random = np.random.default_rng(8)
    covered, found = 0, 0
    for repeat in range(100):
        a, b = column(random.normal(1.0, 1, 70)), column(random.normal(0.0, 2, 90))
        gap = difference(Number(), a, b, resamples=250, seed=repeat)
        covered += gap.low <= 1.0 <= gap.high
        found += gap.excludes(0.0)
    assert covered >= 86
    assert found >= 90


def test_pairing_removes_what_the_pairs_share() -> None:
    random = np.random.default_rng(9)
    shared = random.normal(0, 5, 100)
    a, b = column(shared + 0.3 + 0.1 * random.standard_normal(100)), column(shared)
    paired, loose = difference(Number(), a, b, paired=True), difference(Number(), a, b)
    assert paired.excludes(0.0) and not loose.excludes(0.0)
    assert paired.value == pytest.approx(loose.value)


def test_paired_sets_must_be_equal_and_lose_pairs_together() -> None:
    with pytest.raises(InputError, match="got 3 and 2"):
        difference(Number(), column([1, 2, 3]), column([1, 2]), paired=True)
    gap = difference(Number(), column([1, np.nan, 3, 5]), column([0, 1, 2, np.nan]), paired=True)
    assert (gap.value, gap.n, gap.left_out) == (1.0, 2, 2)


def test_log_difference_is_the_log_of_the_ratio() -> None:
    rows = np.stack([np.full(5, 30.0), np.full(5, 10.0)], axis=1)
    gap = difference(Ratio(), rows, rows * [1.1, 1.0], transform=np.log)
    assert gap.value == pytest.approx(-0.3)


def test_over_runs_is_students_interval() -> None:
    found = over_runs([1.0, 2.0, 3.0])
    half = 4.303 / np.sqrt(3)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((2.0, 2 - half, 2 + half, 3))
    assert np.isnan(over_runs([1.0]).low)
    scaled = over_runs(np.exp([1.0, 2.0, 3.0]).tolist(), geometric=True)
    assert np.allclose(np.log([scaled.value, scaled.low, scaled.high]), [found.value, found.low, found.high])
    assert over_runs([-1.0, 1.0], geometric=True) == over_runs([-1.0, 1.0]) and over_runs([], geometric=True).n == 0


# --- frontiers


def point(temperature: float, log_quality: float, entropy: float, n: int = 400, noise: float = 0.0) -> SweepPoint:
    random = np.random.default_rng(int(temperature * 1000) + n)
    tokens = random.integers(50, 150, n).astype(np.float64)
    nll = tokens * (log_quality + noise * random.standard_normal(n))
    return SweepPoint(temperature, np.stack([nll, tokens], axis=1), column(entropy + noise * random.standard_normal(n)))


ENTROPY = Number(name="entropy", better="neither")


def line(offset: float, noise: float = 0.0, seed: int = 0, n: int = 400) -> Matched:
    """A method whose log quality is offset + entropy, swept over entropies 2.0 to 2.8, read at 2.5."""
    points = [point(t, offset + e, e, n, noise) for t, e in ((0.8, 2.0), (1.0, 2.4), (1.2, 2.8))]
    return matched(frontier(Ratio(), ENTROPY, points, seed=seed, resamples=300), 2.5)


def test_frontier_is_interpolated_in_log_quality() -> None:
    found = line(-1.0)
    assert found.status == "reached"
    assert found.log_quality == pytest.approx(1.5)
    assert found.quality.value == pytest.approx(np.exp(1.5))
    assert found.temperature == pytest.approx(1.05)


def test_points_may_come_in_any_order() -> None:
    points = [point(t, e - 1, e) for t, e in ((1.2, 2.8), (0.8, 2.0), (1.0, 2.4))]
    assert matched(frontier(Ratio(), ENTROPY, points), 2.5).log_quality == pytest.approx(1.5)


def test_matched_interval_covers_the_line() -> None:
    covered = 0
    for repeat in range(60):
        points = [point(t, e - 1, e, 200 + repeat, 0.2) for t, e in ((0.8, 2.0), (1.0, 2.4), (1.2, 2.8))]
        quality = matched(frontier(Ratio(), ENTROPY, points, seed=repeat, resamples=200), 2.5).quality
        covered += quality.low <= np.exp(1.5) <= quality.high
    assert covered >= 51


@pytest.mark.parametrize(
    ("at", "status", "entropy"), [(3.5, "not reached", 2.8), (2.82, "near", 2.8), (1.0, "not reached", 2.0)]
)
def test_nothing_is_read_beyond_the_sweep(at: float, status: str, entropy: float) -> None:
    points = [point(t, e - 1, e) for t, e in ((0.8, 2.0), (1.2, 2.8))]
    found = matched(frontier(Ratio(), ENTROPY, points), at)
    assert (found.status, found.usable) == (status, status == "near")
    assert found.entropy == pytest.approx(entropy)
    assert found.log_quality == pytest.approx(entropy - 1)


def test_one_temperature_is_no_frontier_but_may_be_near() -> None:
    curve = frontier(Ratio(), ENTROPY, [point(1.0, 1.5, 2.5)])
    assert matched(curve, 2.51).status == "near"
    assert matched(curve, 2.6).status == "not reached"


@pytest.mark.parametrize(("wanted", "at"), [(2.3, 2.3), (9.0, 2.4), (1.0, 2.2)])
def test_the_value_in_common_is_the_nearest_that_both_reach(wanted: float, at: float) -> None:
    ranges = ((2.0, 2.4), (2.2, 2.9))
    first, second = (frontier(Ratio(), ENTROPY, [point(0.8, 1.0, a), point(1.2, 1.5, b)]) for a, b in ranges)
    assert common_value(first, second, wanted) == pytest.approx(at)
    apart = frontier(Ratio(), ENTROPY, [point(0.8, 1.0, 2.5), point(1.2, 1.5, 2.6)])
    assert common_value(first, apart, wanted) is None


def test_difference_of_two_frontiers() -> None:
    gap = matched_difference(line(-1.2, 0.1, seed=1), line(-1.0, 0.1, seed=2))
    assert gap is not None
    assert gap.low <= -0.2 <= gap.high and gap.high < 0
    same = matched_difference(line(-1.0, 0.1, seed=1), line(-1.0, 0.1, seed=2))
    assert same is not None and not same.excludes(0.0)


def test_no_difference_without_both() -> None:
    lost = matched(frontier(Ratio(), ENTROPY, [point(1.0, 1.5, 2.0)]), 2.5)
    assert matched_difference(lost, line(-1.0)) is None
    assert acceleration(lost, 8, {8: line(-1.0), 16: line(-1.1)}) is None


def test_acceleration_is_read_between_the_teachers_steps() -> None:
    teacher = {4: line(-1.0), 16: line(-1.4), 64: line(-1.6)}
    found = acceleration(line(-1.2), 4, teacher)  # half way from 4 to 16 steps, in logs
    assert found is not None
    assert found.teacher_steps == pytest.approx(8)
    assert found.factor.value == pytest.approx(2)
    assert found.bound == ""


@pytest.mark.parametrize(("offset", "bound", "steps"), [(-2.0, "at least", 64), (-0.5, "at most", 4)])
def test_acceleration_beyond_the_teachers_steps_is_a_bound(offset: float, bound: str, steps: int) -> None:
    found = acceleration(line(offset), 8, {4: line(-1.0), 16: line(-1.4), 64: line(-1.6)})
    assert found is not None
    assert (found.bound, found.teacher_steps) == (bound, pytest.approx(steps))


def test_acceleration_interval_holds_the_point() -> None:
    teacher = {k: line(-0.2 * np.log(k), 0.1, seed=k) for k in (4, 8, 16, 32, 64)}
    found = acceleration(line(-0.2 * np.log(24), 0.1, seed=99), 8, teacher)
    assert found is not None
    assert found.factor.low < 3 < found.factor.high
    assert found.factor.low <= found.factor.value <= found.factor.high


def test_quality_must_be_positive_and_lower_better() -> None:
    with pytest.raises(InputError, match="lower"):
        frontier(Number(better="higher"), ENTROPY, [point(1.0, 1.0, 2.0)])
    with pytest.raises(InputError, match="strictly positive"):
        frontier(Number(), ENTROPY, [SweepPoint(1.0, column([-1, -2]), column([2, 2]))])


def test_interval_excludes() -> None:
    assert Interval(1, 0.5, 1.5, 10).excludes(0) and not Interval(1, -0.5, 1.5, 10).excludes(0)


def test_wilsons_interval_of_a_share_covers_and_holds_at_the_ends() -> None:
    random = np.random.default_rng(3)
    for truth in (0.02, 0.5, 0.97):
        found = [wilson(float(random.binomial(60, truth)) / 60, 60) for _ in range(2000)]
        assert 0.92 < np.mean([one.low <= truth <= one.high for one in found]) < 0.985
    none, every = wilson(0.0, 50), wilson(1.0, 50)
    assert none.low == none.value == 0 and every.high == every.value == 1
    assert none.high == pytest.approx(1 - every.low) == pytest.approx(NORMAL**2 / (50 + NORMAL**2))


def test_a_share_has_wilsons_interval_and_other_means_the_bootstraps() -> None:
    texts = [Sample("yes")] * 30
    share, mean = Share("said", "said", lambda text: text == "yes"), Mean("said", "said", lambda text: text == "yes")
    assert bootstrap(share, texts) == wilson(1.0, 30)
    assert bootstrap(mean, texts).low == 1


def test_a_frontier_over_a_biased_variable_is_read_where_it_is() -> None:
    """Resampling lowers an entropy over samples; unless that is taken off, no draw reaches the value that is read."""

    @dataclass(frozen=True)
    class Spread(Number):
        biased: bool = True

        def aggregate(self, means: np.ndarray) -> np.ndarray:
            return np.asarray(entropy_of_counts(means))

    random = np.random.default_rng(0)
    points = []
    for temperature, sharpness in ((0.8, 1.0), (1.2, 0.2)):
        weights = np.exp(-sharpness * np.arange(12))
        drawn = random.multinomial(1, weights / weights.sum(), 40).astype(np.float64)
        tokens = np.full(40, 100.0)
        points.append(SweepPoint(temperature, np.stack([tokens * (1 + temperature), tokens], axis=1), drawn))
    curve = frontier(Ratio(), Spread(), points, resamples=400)
    plain = [float(entropy_of_counts(point.entropy.mean(0))) for point in points]
    assert all(value > found for value, found in zip(curve.entropy, plain, strict=True)), "the bias is taken off"
    assert np.allclose(curve.entropy_draws.mean(0), curve.entropy, atol=0.02)
