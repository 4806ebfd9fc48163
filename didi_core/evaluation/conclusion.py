"""The conclusion of an evaluation in sentences: the verdict with its figures, and what to know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from didi_core.errors import counted, plural
from didi_core.evaluation.differences import Difference
from didi_core.evaluation.findings import Comparison, Findings
from didi_core.evaluation.rows import Evaluation, Method, MetricInfo, Row, table_rows
from didi_core.evaluation.wording import change, figure, listed, signed

CLAIM = 1000  # samples that a claim needs
BY_ANOTHER = (
    ", or use a judge that knows such data: pretrain objective=autoregressive model=judge trains one, and "
    "judge=<its run> of evaluate, or data.judge, names it"
)
ALIKE, ABOVE = "≈ data", "beats data"  # marks of controls
HEADLINE = (8, 16, 4, 32)  # the sentence is about the first of these numbers of steps that was run


def sentence(evaluation: Evaluation, findings: Findings) -> str:
    """The verdict, with figures."""
    quality = evaluation.metrics[0]
    usable = [c for c in findings.comparisons if c.ratio is not None]
    if usable:
        return _comparison_sentence(evaluation, findings, usable)
    if findings.differences:
        return _difference_sentence(evaluation, findings.differences)
    if findings.comparisons:
        return (
            f"No verdict at matched entropy: at no number of steps do both sweeps reach that of the held-out data "
            f"({evaluation.at:.3f} nats); evaluate at more temperatures."
        )
    models = [row for row in table_rows(evaluation.rows) if row.kind == "model" and quality.name in row.values]
    if models:
        return _apart_sentence(evaluation, models)
    files = [row for row in evaluation.rows if row.kind == "file" and quality.name in row.values]
    data = [row for row in evaluation.rows if row.kind == "data" and quality.name in row.values]
    found = "; ".join(
        f"{row.model}: {quality.label} {figure(row.values[quality.name].value)}" for row in [*files, *data]
    )
    return f"{found}." if found else "Nothing was measured."


def _apart_sentence(evaluation: Evaluation, models: Sequence[Row]) -> str:
    """Each model's quality at its fewest and its most steps, and why nothing is compared."""
    quality, said = evaluation.metrics[0], []
    for model in dict.fromkeys(row.model for row in models):
        own = [row for row in models if row.model == model]
        ends = [pick(own, key=_steps) for pick in (min, max)]
        named = [f"{figure(row.values[quality.name].value)}{_at(row.method)}" for row in ends]
        said.append(f"{model}: {quality.label} {', '.join(dict.fromkeys(named))}")
    if len(said) == 1:
        return f"{said[0]}; nothing to compare with."
    unmatched = evaluation.frontiers and evaluation.at is None
    why = "without held-out data there is no entropy to match" if unmatched else "no two were sampled in the same way"
    return f"{'; '.join(said)}. No verdict: {why}."


def _steps(row: Row) -> int:
    return (row.method.steps if row.method else None) or 0


def _calls(method: Method | None) -> str:
    """``8 steps``; '' where the number of calls follows from the length or from the model."""
    if method is None or method.steps is None:
        return ""
    return counted(method.steps, "step")


def _at(method: Method | None) -> str:
    calls = _calls(method)
    return f" at {calls}" if calls else ""


def _comparison_sentence(evaluation: Evaluation, findings: Findings, usable: Sequence[Comparison]) -> str:
    quality = evaluation.metrics[0]
    first = next((c for c in usable if c.method.steps is not None), usable[0])
    model, family = first.model, replace(first.method, steps=None)
    mine = [c for c in usable if c.model == model and replace(c.method, steps=None) == family]
    by_steps = {c.method.steps: c for c in mine}
    headline = by_steps[next((k for k in HEADLINE if k in by_steps), first.method.steps)]
    ratio, own, other = (
        headline.ratio,
        findings.matched[model, headline.method].quality,
        findings.matched[headline.baseline, headline.method].quality,
    )
    calls = _calls(headline.method)
    text = (
        f"At {calls + ' and ' if calls else ''}matched entropy ({evaluation.at:.3f} nats) the "
        f"{model}'s {quality.label} is "
        f"{figure(own.value)} against the {headline.baseline}'s {figure(other.value)} "
        f"({change(ratio) if ratio else '?'}; {headline.method.label})"
    )
    text += _verdicts(mine)
    text += _variety_sentence(evaluation, findings, headline)
    found = findings.acceleration(headline)
    if found is not None:
        bound = f"{found.bound} " if found.bound else ""
        text += (
            f". The {headline.baseline} needs {bound}{round(found.teacher_steps, 1):g} steps for that: "
            f"{bound}{found.factor.value:.3g} times as many"
        )
    return text + "."


def _variety_sentence(evaluation: Evaluation, findings: Findings, headline: Comparison) -> str:
    """What is left of the difference at matched variety."""
    mine = [c for c in findings.at_variety if (c.model, c.method) == (headline.model, headline.method)]
    if evaluation.variety is None or not mine:
        return ""
    if mine[0].ratio is None or mine[0].at is None:
        return f". Their sweeps have no {evaluation.variety.label} in common{_at(headline.method)}"
    return f". At matched {evaluation.variety.label} ({figure(mine[0].at)}): {change(mine[0].ratio)}"


def _difference_sentence(evaluation: Evaluation, found: Sequence[Difference]) -> str:
    """The verdict where the quality is compared as it is, on the method of the first difference."""
    quality, first = evaluation.metrics[0], found[0]
    family = replace(first.method, steps=None)
    mine = [d for d in found if d.model == first.model and replace(d.method, steps=None) == family]
    by_steps = {d.method.steps: d for d in mine}
    shown = by_steps[next((k for k in HEADLINE if k in by_steps), first.method.steps)]
    apart = shown.difference
    calls = _calls(shown.method)
    at = f"At {calls}" if calls else "As sampled"
    return (
        f"{at} the {shown.model}'s {quality.label} is {figure(shown.own.value)} against the {shown.baseline}'s "
        f"{figure(shown.other.value)} ({signed(apart)}; {shown.method.label}){_verdicts(mine)}."
    )


def _verdicts(found: Sequence[Comparison] | Sequence[Difference]) -> str:
    """At which numbers of steps a model is better, not distinguishable and worse."""
    text = ""
    for verdict, phrase in (("better", "better"), ("no difference shown", "not distinguishable"), ("worse", "worse")):
        steps = sorted(one.method.steps for one in found if one.verdict == verdict and one.method.steps is not None)
        text += f"; {phrase} at {listed(steps)} {plural('step', steps[-1])}" if steps else ""
    return text


def notes(evaluation: Evaluation, findings: Findings) -> list[str]:
    """Caveats to the sentence."""
    found = list(evaluation.notes)
    found += _too_few([row for row in evaluation.rows if row.kind in ("model", "file")])
    if any(row.kind == "model" for row in evaluation.rows) and (findings.comparisons or findings.differences):
        found.append("One training run per model: a claim about training needs at least three seeds.")
    quality = evaluation.metrics[0]
    said = [
        f"{verb} the {plural('control', len(names))} {listed(names)} {than} held-out data"
        for mark, verb, than in ((ALIKE, "does not distinguish", "from"), (ABOVE, "rates", "better than"))
        if (names := [f"'{name}'" for name, found in misjudged(evaluation, quality).items() if found == mark])
    ]
    if said:
        found.append(
            f"{quality.label} {' and '.join(said)}: read it with the diversity columns"
            f"{BY_ANOTHER if quality.description else ''}."
        )
    missed = [
        f"{model}{_at(method)} ({method.label})"
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
        named = [f"{what} ({listed(list(dict.fromkeys(models)))})" for what, models in sorted(skipped.items())]
        found.append(f"Not computed. {'; '.join(named)}.")
    return found


def _too_few(rows: Sequence[Row]) -> list[str]:
    """Warnings that all rows, or the named ones, have too few samples for a claim."""
    few = [row for row in rows if row.n < CLAIM]
    if not few:
        return []
    if len(few) == len(rows):
        sizes = sorted({row.n for row in few})
        counts = " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1])))
        return [f"Smoke test: {counts} samples per row. A claim needs at least {CLAIM:,}."]
    named = [f"{row.model}{_at(row.method)} ({row.n:,})" for row in few]
    return [f"Fewer than {CLAIM:,} samples, too few for a claim: {listed(list(dict.fromkeys(named)))}."]


def indistinct(evaluation: Evaluation, metric: MetricInfo) -> list[str]:
    """Controls that a metric does not rate worse than held-out data by more than both intervals."""
    return list(misjudged(evaluation, metric))


def misjudged(evaluation: Evaluation, metric: MetricInfo) -> dict[str, str]:
    """What a metric makes of the controls that it does not rate worse than held-out data: ``ALIKE``, or ``ABOVE`` where
    it rates them better by more than both intervals."""
    data = next((row for row in evaluation.rows if row.kind == "data"), None)
    if data is None or metric.name not in data.values or metric.better == "neither":
        return {}
    reference = data.values[metric.name]
    failed = {}
    for row in evaluation.rows:
        value = row.values.get(metric.name)
        if row.kind != "control" or value is None:
            continue
        above, below = value.low > reference.high, value.high < reference.low
        worse, better = (above, below) if metric.better == "lower" else (below, above)
        if not worse:
            failed[row.model] = ABOVE if better else ALIKE
    return failed
