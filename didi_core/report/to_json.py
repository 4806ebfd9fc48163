"""report.json: the whole report as plain values; docs/report_schema.md documents it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from didi_core.evaluation.frontier import Matched
from didi_core.evaluation.intervals import interval
from didi_core.evaluation.rows import Method, Row
from didi_core.report.record import Report
from didi_core.report.side_tables import precision_pairs

SCHEMA = "didi_core.report/3"
# The entries of a run's record that decide the numbers: two evaluations with one seed differ only in ``timing``.
DECISIVE = ("config", "versions", "git_commit", "device", "precision", "attention", "hashes")
PLACES = ("out", "run_dir", "resume")  # keys of the configuration that do not decide them


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain values; a number that is not finite becomes null.

    Everything except ``timing`` follows from the configuration, the networks and the seed.
    """
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
            "rows": [_row(row) for row in evaluation.rows],
            "frontiers": [
                {"model": model, "method": method, "points": _points(report, model, method)}
                for model, method in evaluation.frontiers
            ],
            "matched": [
                {"model": model, "method": method, **_matched(value)}
                for (model, method), value in findings.matched.items()
            ],
            "comparisons": [{**_fields(c), "verdict": c.verdict} for c in findings.comparisons],
            "variety": evaluation.variety,
            "at_variety": [{**_fields(c), "verdict": c.verdict} for c in findings.at_variety],
            "differences": [{**_fields(d), "verdict": d.verdict} for d in findings.differences],
            "acceleration": [{"model": w.model, "method": w.method, **_fields(w.acceleration)} for w in findings.worth],
            "examples": {
                name: [{"id": s.id, "text": s.text} for s in samples] for name, samples in evaluation.examples.items()
            },
            "films": evaluation.films,
            "precision": [
                {
                    "model": exact.model,
                    "grid": exact.method.grid,
                    "steps": exact.method.steps,
                    "temperature": exact.temperature,
                    "exact": exact.values,
                    "joint_fp32": joint.values,
                }
                for exact, joint in precision_pairs(report)
                if exact.method is not None
            ],
            "provenance": _decisive(report.provenance),
            "timing": [_timing(row) for row in evaluation.rows if row.kind == "model"],
        }
    )


def _row(row: Row) -> dict[str, Any]:
    """A row without measured times."""
    return {name: value for name, value in _fields(row).items() if name not in ("seconds", "rates")}


def _timing(row: Row) -> dict[str, Any]:
    names = ("model", "method", "temperature", "n", "seconds")
    return {**{name: getattr(row, name) for name in names}, "samples_per_second": row.rate}


def _decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: record[name] for name in DECISIVE if name in record}
    if isinstance(kept.get("config"), Mapping):
        kept["config"] = {key: value for key, value in kept["config"].items() if key not in PLACES}
    return kept


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
    """A value in the types of JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
