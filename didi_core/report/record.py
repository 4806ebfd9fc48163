"""The report of an evaluation as one frozen record, from which every format is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.evaluation.conclusion import notes, sentence
from didi_core.evaluation.findings import Findings, compare
from didi_core.evaluation.rows import Evaluation
from didi_core.storage.files import inside, parse_json


@dataclass(frozen=True)
class Report:
    """The content of a report. provenance: the run's record (run.json). training: lines of metrics.jsonl."""

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
    """Compare the models of an evaluation, and build its report."""
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
    """Lines of a run's metrics.jsonl (none without the file), without an incomplete last line.

    Raises:
        InputError: a line is not one of metrics.
    """
    path = inside(folder, "metrics.jsonl")
    lines: list[dict[str, float]] = []
    for text in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            line = parse_json(text)
        except ValueError:
            break
        if not isinstance(line, dict) or not all(isinstance(value, int | float) for value in line.values()):
            raise InputError(
                f"{path}: {text[:60]!r} is not a line of metrics. Remove it, or repeat the run in another folder."
            )
        lines.append(line)
    return lines
