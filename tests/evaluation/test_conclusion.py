"""What a report says at its head agrees with its tables, whatever the numbers are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.evaluation.conclusion import PHRASES, misjudged, notes, sentence
from didi_core.evaluation.findings import compare
from didi_core.evaluation.frontier import Frontier
from didi_core.evaluation.intervals import Interval, corrected, over_runs
from didi_core.evaluation.rows import HELD_OUT, Drawn, Evaluation, Method, MetricInfo, Row
from didi_core.evaluation.wording import change, percent, signed
from didi_core.report.record import build_report
from didi_core.report.tables import matched_table

QUALITY = MetricInfo("ppl", "perplexity", "lower", "under a judge")
INFOS = (QUALITY, MetricInfo("entropy", "entropy", "neither"), MetricInfo("variety", "variety", "higher"))
DATA = Row(HELD_OUT, "data", 200, {"ppl": Interval(9, 8, 10, 200), "entropy": Interval(2, 1.9, 2.1, 200)})
STEPS = st.lists(st.sampled_from([None, 1, 4, 8, 16, 128]), min_size=1, max_size=4, unique=True)


def method(steps: int | None) -> Method:
    return Method("ancestral" if steps else "first_hitting", "iid" if steps else "", "uniform" if steps else "", steps)


def drawn_curve(random: np.random.Generator, spread: float) -> Frontier:
    """A frontier of a level that the number of steps does not decide; some do not reach an entropy of 2 nats."""
    entropy = np.array([1.5, 1.9, 2.5]) - random.choice([0.0, 0.0, 0.0, 2.0])
    quality = random.normal(2, 0.3) - 0.2 * np.arange(3)
    noise = spread * random.standard_normal((100, 1))
    return Frontier((0.8, 1.0, 1.2), entropy, quality, np.tile(entropy, (100, 1)), quality + noise, 50)


def found(seed: int, plans: Mapping[str, list[int | None]], at: float | None = 2.0) -> Evaluation:
    random = np.random.default_rng(seed)
    spread = float(random.choice([0.0, 0.01, 0.3]))
    curves = {(name, method(k)): drawn_curve(random, spread) for name, plan in plans.items() for k in plan}
    rows = [
        Row(name, "model", int(random.choice([50, 200])), {"ppl": Interval(9, 8, 10, 50)}, how, 1.0)
        for name, how in curves
    ]
    several = {"variety": INFOS[2], "variety_frontiers": curves} if random.random() < 0.5 else {}
    return Evaluation("toy", INFOS, (DATA, *rows), curves, at, {}, **several)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), STEPS, STEPS, st.booleans())
def test_the_sentence_agrees_with_the_table(
    seed: int, teacher: list[int | None], student: list[int | None], reference: bool
) -> None:
    evaluation = found(seed, {"teacher": teacher, "student": student}, 2.0 if reference else None)
    report = build_report(evaluation, provenance={})
    said, (headers, cells) = report.sentence, matched_table(report)
    assert "None" not in said + "".join(report.notes) and "nothing to compare" not in said
    verdicts = {(line[2], line[headers.index("verdict")]) for line in cells}
    for verdict, phrase in PHRASES.items():
        claimed = re.search(rf"{phrase} (?:the teacher|it) at ([\d, and]+) steps?", said)
        steps = re.findall(r"\d+", claimed.group(1)) if claimed else []
        assert {(k, verdict) for k in steps} == {v for v in verdicts if v[0] and v[1] == verdict}
    assert ("No verdict" in said) == (not {v for _, v in verdicts} - {"not reached"})
    for line in cells:
        shown, worth = line[headers.index("difference")], line[headers.index("worth, steps")]
        ends = [float(x.replace("−", "-")) for x in re.findall(r"[−+]?[\d.]+", shown)][1:]
        if line[6] in ("better", "worse"):
            assert all(end < 0 for end in ends) if line[6] == "better" else all(end > 0 for end in ends)
        factor = re.search(r"\(([\d.,]+)×\)", worth)
        assert factor is None or line[6] in ("better", "worse")
        assert factor is None or (float(factor.group(1).replace(",", "")) >= 1) == (line[6] == "better")
    headline = re.search(r"\. At (\d+) steps?", said)
    bound = "(at least |at most )?"
    needs = re.search(rf"needs {bound}[\d.]+ steps to be as good, {bound}([\d.,]+) times", said)
    if needs:
        assert headline is not None
        (verdict,) = [v for k, v in verdicts if k == headline.group(1)]
        assert verdict in ("better", "worse")
        assert needs.group(1) == needs.group(2)
        assert (float(needs.group(3).replace(",", "")) >= 1) == (verdict == "better")


def test_no_difference_has_no_acceleration() -> None:
    """The teacher never reaches the student's quality, and the two cannot be told apart: both are true."""
    random = np.random.default_rng(0)
    curves = {(name, method(8)): drawn_curve(random, 0.0) for name in ("teacher", "student")}
    base = replace(curves["teacher", method(8)], entropy=np.array([1.5, 1.9, 2.5]))
    wide = base.log_quality + 0.2 * random.standard_normal((100, 1))
    curves = {
        ("teacher", method(8)): replace(base, log_quality_draws=wide),
        ("teacher", method(16)): replace(base, log_quality_draws=wide),
        ("student", method(8)): replace(base, log_quality=base.log_quality - 0.01, log_quality_draws=wide[::-1]),
    }
    rows = (DATA, *(Row(name, "model", 50, {}, how, 1.0) for name, how in curves))
    evaluation = Evaluation("toy", INFOS, rows, curves, 2.0, {})
    findings = compare(evaluation)
    assert [c.verdict for c in findings.comparisons] == ["no difference shown"] and len(findings.worth) == 1
    assert findings.acceleration(findings.comparisons[0]) is None
    said = sentence(evaluation, findings)
    assert said.startswith("The student is not distinguishable from the teacher at 8 steps, where both are as varied")
    assert "needs" not in said


@pytest.mark.parametrize(
    ("plans", "at", "said"),
    [
        ({"teacher": [4, 8]}, 2.0, "teacher: perplexity 9.00 at 4 steps, 9.00 at 8 steps; nothing to compare with."),
        ({"student": [None]}, 2.0, "student: perplexity 9.00; nothing to compare with."),
        ({"teacher": [4], "student": [8]}, 2.0, "student: perplexity 9.00 at 8 steps. No verdict: no two were sampled"),
        ({"teacher": [4], "student": [4]}, None, "No verdict: without held-out data there is no entropy to match"),
    ],
)
def test_where_nothing_is_compared_it_says_why(plans: dict[str, list[int | None]], at: float | None, said: str) -> None:
    evaluation = found(0, plans, at)
    assert said in sentence(evaluation, compare(evaluation))


def test_a_higher_quality_is_read_by_its_side() -> None:
    draws = np.array([0.5, 0.5])
    plain = {
        ("teacher", method(1)): Drawn(Interval(0.5, 0.5, 0.5, 9), draws),
        ("student", method(1)): Drawn(Interval(0.5001, 0.5, 0.5, 9), draws + 0.0001),
    }
    evaluation = Evaluation("toy", (MetricInfo("share", "share", "higher"), INFOS[1]), (), {}, None, {}, plain=plain)
    said = sentence(evaluation, compare(evaluation))
    assert said == (
        "The student is better than the teacher at 1 step. At 1 step its share is 0.500 and the teacher's 0.500: "
        "+0.0001 [+0.0001, +0.0001], with a 95 % interval; higher is better."
    )


def test_unequal_sets_are_not_told_to_be_equal() -> None:
    evaluation = found(0, {"teacher": [4], "student": [4]})
    sizes = [replace(row, n=n) for row, n in zip(evaluation.rows[1:], (50, 200), strict=True)]
    told = notes(replace(evaluation, rows=(DATA, *sizes)), compare(evaluation))
    assert "A first look, with 50 to 200 samples per row: a claim needs at least 1,000." in told


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_control_is_rated_like_data_only_where_the_numbers_are(better: str) -> None:
    sign = 1 if better == "lower" else -1
    values = {"worse": 5.0, "alike": 0.5, "preferred": -5.0}
    rows = [DATA] + [
        Row(name, "control", 200, {"ppl": Interval(9 + sign * x, 8 + sign * x, 10 + sign * x, 200)})
        for name, x in values.items()
    ]
    quality = MetricInfo("ppl", "perplexity", better)
    evaluation = Evaluation("toy", (quality, INFOS[1]), tuple(rows), {}, 2.0, {})
    assert misjudged(evaluation, quality) == {"alike": "≈ data", "preferred": "beats data"}
    told = notes(evaluation, compare(evaluation))
    both = "does not distinguish the control 'alike' from held-out data and rates the control 'preferred' better than"
    assert any(both in note for note in told)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Interval(0.99999, 0.9, 1.1, 9), "0.0 % [−10.0, +10.0]"),
        (Interval(0.9998, 0.9995, 0.9999, 9), "−0.02 % [−0.05, −0.01]"),
        (Interval(1.0, 1.0, 1.0, 9), "0.0 % [0.0, 0.0]"),
    ],
)
def test_an_interval_that_excludes_zero_shows_it(ratio: Interval, words: str) -> None:
    assert change(ratio) == words
    assert signed(Interval(-0.0001, -0.01, 0.01, 9)) == "0.000 [−0.010, +0.010]" and percent(0.9999) == "0 %"


def test_what_is_never_negative_has_no_interval_below_zero() -> None:
    draws = np.random.default_rng(0).normal(0.02, 0.01, 500)
    one = corrected(0.01, draws, 50)
    assert one.low == 0 <= one.value <= one.high
    assert over_runs([0.1, 0.9]).low < 0 == over_runs([0.1, 0.9], lowest=0.0).low
