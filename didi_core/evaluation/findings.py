"""The conclusions of an evaluation: models against a baseline at matched entropy, acceleration, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from didi_core.evaluation.differences import Difference, differences
from didi_core.evaluation.frontier import (
    Acceleration,
    Matched,
    acceleration,
    common_value,
    matched,
    matched_difference,
)
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import Evaluation, Method, MetricInfo, Row

CLAIM = 1000  # samples that a claim needs
HEADLINE = (8, 16, 4, 32)  # the sentence is about the first of these numbers of steps that was run


@dataclass(frozen=True)
class Comparison:
    """A model against the baseline with the same method and steps, both at the entropy of the data.

    ratio: quality of the model over that of the baseline. Below 1 is better; a claim needs an interval that excludes 1.
    """

    model: str
    baseline: str
    method: Method
    ratio: Interval | None  # None: one of the two did not reach the entropy

    @property
    def verdict(self) -> str:
        return _verdict(self.ratio)


@dataclass(frozen=True)
class VarietyComparison:
    """A model against the baseline at one value of the domain's metric of variety: the nearest to that of the held-out
    data which both sweeps reach. All are None where the sweeps have no value in common."""

    model: str
    baseline: str
    method: Method
    at: float | None
    model_quality: Interval | None
    baseline_quality: Interval | None
    ratio: Interval | None

    @property
    def verdict(self) -> str:
        return _verdict(self.ratio)


@dataclass(frozen=True)
class Worth:
    """Acceleration of a model over the baseline under one method."""

    model: str
    method: Method
    acceleration: Acceleration


@dataclass(frozen=True)
class Findings:
    """Frontiers read at the data's entropy, comparisons under equal methods and steps, accelerations.

    differences: comparisons of a quality that is not matched at an entropy.
    """

    baseline: str
    matched: Mapping[tuple[str, Method], Matched]
    comparisons: tuple[Comparison, ...]
    worth: tuple[Worth, ...]
    at_variety: tuple[VarietyComparison, ...] = ()
    differences: tuple[Difference, ...] = ()


def compare(evaluation: Evaluation, baseline: str = "teacher") -> Findings:
    """Read every frontier at the held-out entropy, and compare each model with the baseline (or the first model)."""
    models = list(dict.fromkeys(row.model for row in evaluation.rows if row.kind == "model"))
    baseline = baseline if baseline in models or not models else models[0]
    read: dict[tuple[str, Method], Matched] = {}
    if evaluation.at is not None:
        read = {key: matched(curve, evaluation.at) for key, curve in evaluation.frontiers.items()}
    comparisons, worth = [], []
    for (model, method), mine in read.items():
        other = read.get((baseline, method))
        if model == baseline:
            continue
        if other is not None:
            difference = matched_difference(mine, other)
            comparisons.append(Comparison(model, baseline, method, _ratio(difference)))
        steps = {
            m.steps: value
            for (name, m), value in read.items()
            if name == baseline and m.steps is not None and replace(m, steps=None) == replace(method, steps=None)
        }
        if method.steps is not None:
            found = acceleration(mine, method.steps, steps)
            if found is not None:
                worth.append(Worth(model, method, found))
    others = _at_variety(evaluation, baseline), differences(evaluation, baseline)
    return Findings(baseline, read, tuple(comparisons), tuple(worth), *others)


def _at_variety(evaluation: Evaluation, baseline: str) -> tuple[VarietyComparison, ...]:
    """Each model with the baseline where both sweeps have the variety that is nearest to that of the data."""
    curves, variety = evaluation.variety_frontiers, evaluation.variety
    if variety is None:
        return ()
    data = next((row.values for row in evaluation.rows if row.kind == "data"), {})
    wanted = data[variety.name].value if variety.name in data else math.inf  # without data: as varied as both can be
    found = []
    for (model, method), curve in curves.items():
        other = curves.get((baseline, method))
        if model == baseline or other is None:
            continue
        at = common_value(curve, other, wanted)
        if at is None:
            found.append(VarietyComparison(model, baseline, method, None, None, None, None))
            continue
        mine, theirs = matched(curve, at), matched(other, at)
        ratio = _ratio(matched_difference(mine, theirs))
        found.append(VarietyComparison(model, baseline, method, at, mine.quality, theirs.quality, ratio))
    return tuple(found)


def _verdict(ratio: Interval | None) -> str:
    if ratio is None:
        return "not reached"
    if not ratio.excludes(1.0):
        return "no difference shown"
    return "better" if ratio.value < 1 else "worse"


def sentence(evaluation: Evaluation, findings: Findings) -> str:
    """The verdict, with figures."""
    quality = evaluation.metrics[0]
    usable = [c for c in findings.comparisons if c.ratio is not None]
    if usable:
        return _comparison_sentence(evaluation, findings, usable)
    if findings.differences:
        return _difference_sentence(evaluation, findings.differences)
    models = [row for row in table_rows(evaluation.rows) if row.kind == "model"]
    if findings.comparisons:
        return (
            f"No verdict: at no number of steps do both sweeps reach the entropy of the held-out data "
            f"({evaluation.at:.3f} nats); evaluate at more temperatures."
        )
    shown = [row for row in models if quality.name in row.values and row.method and row.method.steps is not None]
    if shown:
        ends = [pick(shown, key=_steps) for pick in (min, max)]
        named = [f"{figure(row.values[quality.name].value)} at {_steps(row)} steps" for row in ends]
        return f"{ends[0].model}: {quality.label} {', '.join(dict.fromkeys(named))}; nothing to compare with."
    files = [row for row in evaluation.rows if row.kind == "file" and quality.name in row.values]
    data = [row for row in evaluation.rows if row.kind == "data" and quality.name in row.values]
    found = "; ".join(
        f"{row.model}: {quality.label} {figure(row.values[quality.name].value)}" for row in [*files, *data]
    )
    return f"{found}." if found else "Nothing was measured."


def _steps(row: Row) -> int:
    return (row.method.steps if row.method else None) or 0


def _comparison_sentence(evaluation: Evaluation, findings: Findings, usable: Sequence[Comparison]) -> str:
    quality = evaluation.metrics[0]
    model = usable[0].model
    family = replace(usable[0].method, steps=None)
    mine = [c for c in usable if c.model == model and replace(c.method, steps=None) == family]
    by_steps = {c.method.steps: c for c in mine}
    headline = by_steps[next((k for k in HEADLINE if k in by_steps), mine[0].method.steps)]
    ratio, own, other = (
        headline.ratio,
        findings.matched[model, headline.method].quality,
        findings.matched[headline.baseline, headline.method].quality,
    )
    text = (
        f"At {headline.method.steps} steps and matched entropy ({evaluation.at:.3f} nats) the "
        f"{model}'s {quality.label} is "
        f"{figure(own.value)} against the {headline.baseline}'s {figure(other.value)} "
        f"({change(ratio) if ratio else '?'}; {headline.method.label})"
    )
    text += _verdicts(mine)
    text += _variety_sentence(evaluation, findings, headline)
    for item in findings.worth:
        if item.model == model and item.method == headline.method:
            bound = f"{item.acceleration.bound} " if item.acceleration.bound else ""
            text += (
                f". The {headline.baseline} needs {bound}{item.acceleration.teacher_steps:.0f} steps for that: "
                f"{bound}{figure(item.acceleration.factor.value)} times as many"
            )
    return text + "."


def _variety_sentence(evaluation: Evaluation, findings: Findings, headline: Comparison) -> str:
    """What is left of the difference at matched variety."""
    mine = [c for c in findings.at_variety if (c.model, c.method) == (headline.model, headline.method)]
    if evaluation.variety is None or not mine:
        return ""
    if mine[0].ratio is None or mine[0].at is None:
        return f". Their sweeps have no {evaluation.variety.label} in common at {headline.method.steps} steps"
    return f". At matched {evaluation.variety.label} ({figure(mine[0].at)}): {change(mine[0].ratio)}"


def _difference_sentence(evaluation: Evaluation, found: Sequence[Difference]) -> str:
    """The verdict where the quality is compared as it is, on the method of the first difference."""
    quality, first = evaluation.metrics[0], found[0]
    family = replace(first.method, steps=None)
    mine = [d for d in found if d.model == first.model and replace(d.method, steps=None) == family]
    by_steps = {d.method.steps: d for d in mine}
    shown = by_steps[next((k for k in HEADLINE if k in by_steps), first.method.steps)]
    apart = shown.difference
    at = f"At {shown.method.steps} steps" if shown.method.steps is not None else "As sampled"
    return (
        f"{at} the {shown.model}'s {quality.label} is {figure(shown.own.value)} against the {shown.baseline}'s "
        f"{figure(shown.other.value)} ({signed(apart)}; {shown.method.label}){_verdicts(mine)}."
    )


def _verdicts(found: Sequence[Comparison] | Sequence[Difference]) -> str:
    """At which numbers of steps a model is better, not distinguishable and worse."""
    text = ""
    for verdict, phrase in (("better", "better"), ("no difference shown", "not distinguishable"), ("worse", "worse")):
        steps = sorted(one.method.steps for one in found if one.verdict == verdict and one.method.steps is not None)
        text += f"; {phrase} at {_listed(steps)} steps" if steps else ""
    return text


def _too_few(rows: Sequence[Row]) -> list[str]:
    """Warnings that all rows, or the named ones, have too few samples for a claim."""
    few = [row for row in rows if row.n < CLAIM]
    if not few:
        return []
    if len(few) == len(rows):
        return [f"Smoke test: {min(row.n for row in few):,} samples per row. A claim needs at least {CLAIM:,}."]
    named = [
        row.model + (f" at {row.method.steps} steps" if row.method and row.method.steps else "") + f" ({row.n:,})"
        for row in few
    ]
    return [f"Fewer than {CLAIM:,} samples, too few for a claim: {_listed(list(dict.fromkeys(named)))}."]


def notes(evaluation: Evaluation, findings: Findings) -> list[str]:
    """Caveats to the sentence."""
    found = list(evaluation.notes)
    found += _too_few([row for row in evaluation.rows if row.kind in ("model", "file")])
    if any(row.kind == "model" for row in evaluation.rows) and (findings.comparisons or findings.differences):
        found.append("One training run per model: a claim about training needs at least three seeds.")
    quality = evaluation.metrics[0]
    for control in indistinct(evaluation, quality):
        found.append(
            f"{quality.label} does not distinguish the control '{control}' from held-out data: read it "
            "with the diversity columns."
        )
    missed = [
        f"{model} at {method.steps} steps ({method.label})"
        for (model, method), value in findings.matched.items()
        if not value.usable
    ]
    if missed:
        found.append(
            f"The sweep did not reach the entropy of the data, so nothing is claimed for: {'; '.join(missed)}."
        )
    skipped: dict[str, list[str]] = {}
    for row in evaluation.rows:
        for name, why in row.skipped.items():
            skipped.setdefault(f"{name}: {why}", []).append(row.model)
    if skipped:
        named = [f"{what} ({_listed(list(dict.fromkeys(models)))})" for what, models in sorted(skipped.items())]
        found.append(f"Not computed. {'; '.join(named)}.")
    return found


def indistinct(evaluation: Evaluation, metric: MetricInfo) -> list[str]:
    """Controls that a metric does not rate worse than held-out data by more than both intervals."""
    data = next((row for row in evaluation.rows if row.kind == "data"), None)
    if data is None or metric.name not in data.values or metric.better == "neither":
        return []
    reference = data.values[metric.name]
    failed = []
    for row in evaluation.rows:
        value = row.values.get(metric.name)
        if row.kind == "control" and value is not None:
            worse = value.low > reference.high if metric.better == "lower" else value.high < reference.low
            if not worse:
                failed.append(row.model)
    return failed


def figure(value: float | None, digits: int = 3) -> str:
    """A number with about three digits; an exponent only where the plain form would be unreadable."""
    if value is None or np.isnan(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    places = max(digits - 1 - int(np.floor(np.log10(size))), 0)
    return f"{value:,.{places}f}"


def headed(text: str) -> str:
    """The text with a capital first letter; other capitals stay."""
    return text[:1].upper() + text[1:]


def change(ratio: Interval) -> str:
    """A ratio as a percentage with its interval: ``-24 % [-27, -20]``."""
    low, value, high = (100 * (x - 1) for x in (ratio.low, ratio.value, ratio.high))
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]".replace("-", "−")


def signed(difference: Interval) -> str:
    """A difference with its interval: ``+0.214 [+0.175, +0.251]``."""
    value, low, high = (f"{x:+.3f}" for x in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]".replace("-", "−")


def diversity(evaluation_metrics: Sequence[MetricInfo], limit: int = 2) -> list[MetricInfo]:
    """Metrics of variety in the tables: the first ones after quality and entropy for which higher is better."""
    return [metric for metric in evaluation_metrics[2:] if metric.better == "higher"][:limit]


def table_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of the main table: references, files, and of every sweep the temperature nearest to 1."""
    chosen: list[Row] = []
    for row in rows:
        if row.kind != "model":
            chosen.append(row)
            continue
        mates = [r for r in rows if r.kind == "model" and (r.model, r.method) == (row.model, row.method)]
        if row is min(mates, key=lambda r: (abs((r.temperature or 1.0) - 1), r.temperature or 1.0)):
            chosen.append(row)
    return chosen


def _ratio(difference: Interval | None) -> Interval | None:
    if difference is None:
        return None
    value, low, high = (float(np.exp(x)) for x in (difference.value, difference.low, difference.high))
    return Interval(value, low, high, difference.n, difference.left_out)


def _listed(numbers: Sequence[int | str]) -> str:
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
