"""The two main tables of a report, and the format of their cells."""

from __future__ import annotations

import math

from didi_core.evaluation.frontier import Matched
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import Row, diversity, table_rows
from didi_core.evaluation.wording import change, figure, headed
from didi_core.report.record import Report

COLUMNS = {  # what a reader is not expected to know, of the columns that any domain may have
    "entropy": "variety within a sample, nats",
    "distinct": "share of samples that copy no earlier one",
    "clusters": "groups of relatives over samples, 1 where none are related",
}
BOUNDS = {"": "", "at least": "≥ ", "at most": "≤ "}


def main_table(report: Report) -> tuple[list[str], list[list[str]], list[Row]]:
    """The main table, with one line per model, method and steps.

    Returns:
        headers, cells, and the row behind each line.
    """
    evaluation = report.evaluation
    rows = table_rows(evaluation.rows)
    quality, entropy = evaluation.metrics[0], evaluation.metrics[1:2]
    variety = diversity(evaluation.metrics)
    several = len({row.method.label for row in rows if row.method}) > 1
    headers = [
        "",
        *(["method"] if several else []),
        "steps",
        "NFE",
        quality.label,
        *(m.label for m in (*entropy, *variety)),
        "seconds",
    ]
    cells = []
    for row in rows:
        line = [row.model, *([row.method.label if row.method else ""] if several else [])]
        line += [str(row.method.steps) if row.method and row.method.steps is not None else ""]
        line += [f"{row.nfe.total:.0f}" if row.nfe else "", estimate(row.values.get(quality.name))]
        line += [figure(row.values[m.name].value) if m.name in row.values else "–" for m in (*entropy, *variety)]
        line += [f"{row.seconds:.1f}" if row.seconds is not None else ""]
        cells.append(line)
    return headers, cells, rows


def matched_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The comparison at matched entropy, with one line per method and steps of every compared model.

    Returns:
        headers and cells.
    """
    findings = report.findings
    headers = ["", "method", "steps", findings.baseline, "model", "difference", "verdict", "worth, steps"]
    cells = []
    for item in findings.comparisons:
        gain = findings.acceleration(item)
        steps = f"{BOUNDS[gain.bound]}{round(gain.teacher_steps, 1):g}" if gain else ""
        cells.append(
            [
                item.model,
                item.method.label,
                str(item.method.steps) if item.method.steps is not None else "",
                matched_cell(findings.matched[item.baseline, item.method]),
                matched_cell(findings.matched[item.model, item.method]),
                change(item.ratio) if item.ratio else "–",
                item.verdict,
                f"{steps} ({figure(gain.factor.value, 2)}×)" if gain else "–",
            ]
        )
    return headers, cells


def matched_cell(value: Matched) -> str:
    """Quality at the matched entropy; the nearest point if the entropy was not reached."""
    if value.status == "reached":
        return estimate(value.quality)
    where = f"{value.entropy:.3f} nats, T={value.temperature:g}"
    return (
        f"{estimate(value.quality)} (near: {where})"
        if value.usable
        else f"not reached ({figure(value.quality.value)} at {where})"
    )


def estimate(value: Interval | None) -> str:
    """``7.12 [6.98, 7.25]``."""
    if value is None or math.isnan(value.value):
        return "–"
    if math.isnan(value.low) and math.isnan(value.high):  # a single run has no interval
        return figure(value.value)
    return f"{figure(value.value)} [{figure(value.low)}, {figure(value.high)}]"


def described(report: Report) -> str:
    """What the columns of the main table are, the quality with its judge first: sentences with a space after each."""
    quality, *others = report.evaluation.metrics
    shown = (*others[:1], *diversity(report.evaluation.metrics))
    columns = [(quality.label, quality.description), *((m.label, COLUMNS.get(m.name, "")) for m in shown)]
    return "".join(f"{headed(label)}: {about}. " for label, about in columns if about)
