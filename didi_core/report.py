"""The report of an evaluation: one frozen record, written as report.json, report.md, report.html and plots/*.png."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.compare import (
    Findings,
    change,
    compare,
    diversity,
    figure,
    headed,
    notes,
    sentence,
    table_rows,
)
from didi_core.files import write_atomic, write_json
from didi_core.frontier import Matched
from didi_core.plots import evaluation_plots, training_plot
from didi_core.rows import Evaluation, Row
from didi_core.statistics import Interval

BOUNDS = {"": "", "at least": "≥ ", "at most": "≤ "}


@dataclass(frozen=True)
class Report:
    """All that a report shows. provenance: the run's record (run.json). training: lines of metrics.jsonl."""

    title: str
    evaluation: Evaluation
    findings: Findings
    sentence: str
    notes: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    training: tuple[Mapping[str, float], ...] = ()


def build_report(
    evaluation: Evaluation,
    *,
    title: str = "",
    baseline: str = "teacher",
    provenance: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, float]] = (),
) -> Report:
    """Compare the models of an evaluation and say what came out."""
    findings = compare(evaluation, baseline)
    return Report(
        title or f"Evaluation: {evaluation.domain}",
        evaluation,
        findings,
        sentence(evaluation, findings),
        tuple(notes(evaluation, findings)),
        provenance or {},
        tuple(training),
    )


def read_training(folder: Path) -> list[dict[str, float]]:
    """Lines of a run's metrics.jsonl (none where there is no file); a last line that was cut short is left out."""
    path = folder / "metrics.jsonl"
    lines: list[dict[str, float]] = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def write_report(folder: Path, report: Report) -> list[Path]:
    """Write report.json, report.md, report.html and plots/*.png into ``folder``; returns their paths."""
    from didi_core.report_html import html
    from didi_core.report_json import report_json
    from didi_core.report_markdown import markdown

    plots = evaluation_plots(report.evaluation, report.findings)
    curves = training_plot(report.training)
    plots += [curves] if curves is not None else []
    written = []
    for plot in plots:
        written.append(folder / "plots" / f"{plot.name}.png")
        write_atomic(written[-1], plot.png)
    write_json(folder / "report.json", report_json(report))
    write_atomic(folder / "report.md", markdown(report, plots))
    write_atomic(folder / "report.html", html(report, plots))
    return [*written, *(folder / f"report.{kind}" for kind in ("json", "md", "html"))]


def main_table(report: Report) -> tuple[list[str], list[list[str]], list[Row]]:
    """Headers, cells and rows of the table that everybody reads: one line per model, method and steps."""
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
    """Headers and cells of the comparison at matched entropy, one line per method and steps of every compared model."""
    findings = report.findings
    headers = ["", "method", "steps", findings.baseline, "model", "difference", "verdict", "worth, steps"]
    worth = {(w.model, w.method): w.acceleration for w in findings.worth}
    cells = []
    for item in findings.comparisons:
        gain = worth.get((item.model, item.method))
        cells.append(
            [
                item.model,
                item.method.label,
                str(item.method.steps) if item.method.steps is not None else "",
                matched_cell(findings.matched[item.baseline, item.method]),
                matched_cell(findings.matched[item.model, item.method]),
                change(item.ratio) if item.ratio else "–",
                item.verdict,
                f"{BOUNDS[gain.bound]}{gain.teacher_steps:.0f} ({figure(gain.factor.value, 2)}×)" if gain else "–",
            ]
        )
    return headers, cells


def matched_cell(value: Matched) -> str:
    """Quality at the matched entropy; what was not reached says where its nearest point is."""
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
    if math.isnan(value.low) and math.isnan(value.high):  # of one run
        return figure(value.value)
    return f"{figure(value.value)} [{figure(value.low)}, {figure(value.high)}]"


def described(report: Report) -> str:
    """What the quality is, where its metric says so (the judge by name), as a sentence with a space behind it."""
    quality = report.evaluation.metrics[0]
    return f"{headed(quality.label)}: {quality.description}. " if quality.description else ""
