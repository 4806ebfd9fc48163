"""The conclusion of an evaluation in sentences: the verdict with its figures, and what to know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from didi_core.errors import counted, plural
from didi_core.evaluation.differences import Difference
from didi_core.evaluation.findings import Comparison, Findings
from didi_core.evaluation.rows import Evaluation, Method, MetricInfo, Row, table_rows
from didi_core.evaluation.wording import change, figure, headed, listed, signed

Found = TypeVar("Found", Comparison, Difference)

CLAIM = 1000  # samples that a claim needs
BY_ANOTHER = (
    ", or use a judge that knows such data: pretrain objective=autoregressive model=judge trains one, and "
    "judge=<its run> of evaluate, or data.judge, names it"
)
ALIKE, ABOVE = "≈ data", "beats data"  # marks of controls
PHRASES = {
    "better": "better than",
    "no difference shown": "not distinguishable from",
    "worse": "worse than",
}  # how a verdict is said
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
            f"No verdict: at no number of steps do the temperatures give both models the entropy of held-out data "
            f"({evaluation.at:.3f} nats). Evaluate at more temperatures."
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
    mine, headline = _of_one_method(usable, first)
    ratio, own, other = (
        headline.ratio,
        findings.matched[headline.model, headline.method].quality,
        findings.matched[headline.baseline, headline.method].quality,
    )
    under = _under(headline.method, usable)
    said = [
        f"{headed(f'{under}the {headline.model}')} is {_verdicts(mine)}, where both are as varied as held-out data "
        f"(matched entropy, {evaluation.at:.3f} nats)",
        _figures(headline, quality, own.value, other.value, change(ratio) if ratio else "?"),
    ]
    found = findings.acceleration(headline)
    if found is not None:
        bound = f"{found.bound} " if found.bound else ""
        said.append(
            f"The {headline.baseline} needs {bound}{round(found.teacher_steps, 1):g} steps to be as good, "
            f"{bound}{found.factor.value:.3g} times as many"
        )
    return ". ".join([*said, *_variety_sentence(evaluation, findings, headline)]) + "."


def _variety_sentence(evaluation: Evaluation, findings: Findings, headline: Comparison) -> list[str]:
    """What is left of the difference at matched variety."""
    mine = [c for c in findings.at_variety if (c.model, c.method) == (headline.model, headline.method)]
    if evaluation.variety is None or not mine:
        return []
    found, label = mine[0], evaluation.variety.label
    if found.ratio is None or found.at is None:
        return [f"No temperatures give the two the same {label}{_at(headline.method)}"]
    shown = {"no difference shown": "no difference is shown"}.get(found.verdict, f"it is {found.verdict}")
    return [f"With {label} matched instead ({figure(found.at)}), {shown}{_at(headline.method)}: {change(found.ratio)}"]


def _difference_sentence(evaluation: Evaluation, found: Sequence[Difference]) -> str:
    """The verdict where the quality is compared as it is, on the method of the first difference."""
    mine, shown = _of_one_method(found, found[0])
    figures = _figures(shown, evaluation.metrics[0], shown.own.value, shown.other.value, signed(shown.difference))
    return f"{headed(f'{_under(shown.method, found)}the {shown.model}')} is {_verdicts(mine)}. {figures}."


def _of_one_method(found: Sequence[Found], first: Found) -> tuple[list[Found], Found]:
    """What was found of the model and method of ``first`` at any number of steps, and the one with figures in the text.
    """
    family = replace(first.method, steps=None)
    mine = [one for one in found if one.model == first.model and replace(one.method, steps=None) == family]
    by_steps = {one.method.steps: one for one in mine}
    return mine, by_steps[next((k for k in HEADLINE if k in by_steps), first.method.steps)]


def _under(method: Method, found: Sequence[Comparison] | Sequence[Difference]) -> str:
    """The method, where there are several."""
    return f"under {method.label} " if len({one.method.label for one in found}) > 1 else ""


def _figures(found: Comparison | Difference, quality: MetricInfo, own: float, other: float, apart: str) -> str:
    its = f"{headed(_at(found.method).strip())} its".strip()
    return (
        f"{headed(its)} {quality.label} is {figure(own)} and the {found.baseline}'s {figure(other)}: "
        f"{apart}, with a 95 % interval; {quality.better} is better"
    )


def _verdicts(found: Sequence[Comparison] | Sequence[Difference]) -> str:
    """Where a model is better, not distinguishable and worse: ``better than the teacher at 4 and 8 steps``."""
    said, other = [], f"the {found[0].baseline}"
    for verdict, phrase in PHRASES.items():
        alike = [one for one in found if one.verdict == verdict]
        steps = sorted(one.method.steps for one in alike if one.method.steps is not None)
        if alike:
            where = f" at {listed(steps)} {plural('step', steps[-1])}" if steps else ""
            said.append(f"{phrase} {other}{where}")
            other = "it"
    return ", ".join(said)


def notes(evaluation: Evaluation, findings: Findings) -> list[str]:
    """Caveats to the sentence."""
    found = list(evaluation.notes)
    found += _too_few([row for row in evaluation.rows if not row.is_reference])
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
    found += _not_computed(evaluation)
    return found


def _not_computed(evaluation: Evaluation) -> list[str]:
    """The metrics that some rows lack, by reason."""
    labels = {metric.name: metric.label for metric in evaluation.metrics}
    skipped: dict[str, dict[str, set[str]]] = {}  # reason -> label of a metric -> models
    for row in evaluation.rows:
        for name, why in row.skipped.items():
            skipped.setdefault(why, {}).setdefault(labels.get(name, name), set()).add(row.model)
    said = []
    for why, found in sorted(skipped.items()):
        models = sorted(set().union(*found.values()))
        said.append(f"{listed(sorted(found))} of {listed(models)} ({why})")
    return [f"Not computed: {'; '.join(said)}."] if said else []


def _too_few(rows: Sequence[Row]) -> list[str]:
    """Warnings that all rows, or the named ones, have too few samples for a claim."""
    few = [row for row in rows if row.n < CLAIM]
    if not few:
        return []
    if len(few) == len(rows):
        sizes = sorted({row.n for row in few})
        counts = " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1])))
        return [f"A first look, with {counts} samples per row: a claim needs at least {CLAIM:,}."]
    named = [f"{row.model}{_at(row.method)} ({row.n:,})" for row in few]
    return [f"Fewer than {CLAIM:,} samples, too few for a claim: {listed(list(dict.fromkeys(named)))}."]


def indistinct(evaluation: Evaluation, metric: MetricInfo) -> list[str]:
    """Controls that a metric does not rate worse than held-out data by more than both intervals."""
    return list(misjudged(evaluation, metric))


def misjudged(evaluation: Evaluation, metric: MetricInfo) -> dict[str, str]:
    """What a metric makes of the controls that it does not rate worse than held-out data: ``ALIKE``, or ``ABOVE`` where
    it rates them better by more than both intervals."""
    data = evaluation.data
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
