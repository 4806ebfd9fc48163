"""The report of an evaluation: one frozen record, written as report.json, report.md, report.html and plots/*.png."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from didi_core.compare import (
    Findings,
    change,
    compare,
    diversity,
    figure,
    notes,
    sentence,
    table_rows,
)
from didi_core.files import write_atomic, write_json
from didi_core.frontier import Matched
from didi_core.pictures import Plot
from didi_core.plots import evaluation_plots, training_plot
from didi_core.rows import Evaluation, Method, Row
from didi_core.statistics import Interval, interval

SCHEMA = "didi_core.report/1"
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


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain values; a number that is not finite becomes null."""
    evaluation, findings = report.evaluation, report.findings
    return _plain(
        {
            "schema": SCHEMA,
            "title": report.title,
            "domain": evaluation.domain,
            "sentence": report.sentence,
            "notes": report.notes,
            "metrics": evaluation.metrics,
            "quality": evaluation.metrics[0].name,
            "entropy": evaluation.metrics[1].name if len(evaluation.metrics) > 1 else None,
            "reference_entropy": evaluation.at,
            "baseline": findings.baseline,
            "rows": [{**_fields(row), "samples_per_second": row.rate} for row in evaluation.rows],
            "frontiers": [
                {"model": model, "method": method, "points": _points(report, model, method)}
                for model, method in evaluation.frontiers
            ],
            "matched": [
                {"model": model, "method": method, **_matched(value)}
                for (model, method), value in findings.matched.items()
            ],
            "comparisons": [{**_fields(c), "verdict": c.verdict} for c in findings.comparisons],
            "acceleration": [{"model": w.model, "method": w.method, **_fields(w.acceleration)} for w in findings.worth],
            "examples": {
                name: [{"id": s.id, "text": s.text} for s in samples] for name, samples in evaluation.examples.items()
            },
            "provenance": report.provenance,
        }
    )


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
    return f"{figure(value.value)} [{figure(value.low)}, {figure(value.high)}]"


def markdown(report: Report, plots: Sequence[Plot]) -> str:
    """The report for a terminal, a pull request or a notebook."""
    evaluation = report.evaluation
    parts = [f"# {report.title}", report.sentence, *(f"> {note}" for note in report.notes)]
    headers, cells, _ = main_table(report)
    parts += [
        "## Samples as they come",
        "Intervals are 95 % bootstrap intervals. " + _explained(report),
        _table(headers, cells),
    ]
    if report.findings.comparisons:
        headers, cells = matched_table(report)
        parts += [
            f"## {evaluation.metrics[0].label.capitalize()} at matched entropy "
            f"({evaluation.at:.3f} nats, that of held-out data)",
            _table(headers, cells),
        ]
    parts += [f"![{plot.caption}](plots/{plot.name}.png)" for plot in plots]
    parts.append("## A few samples")
    for name, samples in evaluation.examples.items():
        parts.append(f"**{name}**\n\n" + "\n".join(f"    {sample.text[:300]}" for sample in samples))
    return "\n\n".join(parts) + "\n"


def described(report: Report) -> str:
    """What the quality is, where its metric says so (the judge by name), as a sentence with a space behind it."""
    quality = report.evaluation.metrics[0]
    return f"{quality.label.capitalize()}: {quality.description}. " if quality.description else ""


def _explained(report: Report) -> str:
    """What the columns stand for."""
    counts = sorted({row.n for row in report.evaluation.rows if row.kind != "control"})
    said = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return (
        f"{described(report)}{said} samples per row. NFE counts the calls of every network per sample; "
        "seconds are those of the sampler for all samples."
    )


def _table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _points(report: Report, model: str, method: Method) -> list[dict[str, Any]]:
    """Temperature, entropy and quality of a frontier's points, with intervals."""
    curve = report.evaluation.frontiers[model, method]
    points = []
    for i, temperature in enumerate(curve.temperatures):
        entropy = interval(float(curve.entropy[i]), curve.entropy_draws[:, i], curve.n)
        quality = interval(float(np.exp(curve.log_quality[i])), np.exp(curve.log_quality_draws[:, i]), curve.n)
        points.append({"temperature": temperature, "entropy": entropy, "quality": quality})
    return points


def _matched(value: Matched) -> dict[str, Any]:
    return {
        "status": value.status,
        "entropy": value.entropy,
        "temperature": value.temperature,
        "quality": value.quality,
    }


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _plain(value: Any) -> Any:
    """Only what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
