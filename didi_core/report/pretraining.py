"""The page of a training on data: how far it came, its curves, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from didi_core.evaluation.wording import figure
from didi_core.report.page import Cell, Grid, Line, render
from didi_core.report.plots import training_plot
from didi_core.report.record import read_training
from didi_core.report.side_tables import training_data
from didi_core.storage.files import write_atomic


def write_pretraining(folder: Path, made: str, curve: Mapping[int, float], record: Mapping[str, Any]) -> Path:
    """Write report.html and plots/training.png into a run directory, from its metrics.jsonl; returns the page's path.

    Args:
        made: what was trained, for the title.
        curve: validation loss by step, nats per position, the last one last.
        record: content of run.json.
    """
    lines = read_training(folder)
    plot, table = training_plot(lines), training_data(lines)
    if plot is not None:
        write_atomic(folder / "plots" / f"{plot.name}.png", plot.png)
    rows = [] if table is None else [Line(tuple(map(Cell, line))) for line in table.cells]
    page = render(
        "pretraining.html",
        title=made,
        kind="didi_core · pretrain",
        sentence=outcome(curve),
        notes=remarks(curve),
        plot=plot,
        table=None if table is None else Grid(table.headers, rows),
        provenance=record,
    )
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def outcome(curve: Mapping[int, float]) -> str:
    """The validation loss at the end and at the first estimate, as a sentence."""
    (first, before), (last, after) = list(curve.items())[0], list(curve.items())[-1]
    said = f"Validation loss {figure(after)} nats per position after {last:,} steps"
    return f"{said}." if first == last else f"{said}, from {figure(before)} after {first:,}."


def remarks(curve: Mapping[int, float]) -> list[str]:
    """What the curve says of the length of the training."""
    last, best = list(curve)[-1], min(curve, key=lambda step: curve[step])
    if figure(curve[best]) == figure(curve[last]):  # no rise that the numbers show
        return []
    return [
        f"The loss was lowest, {figure(curve[best])}, after {best:,} steps and has risen since: training.steps={best} "
        "or more data may give a better model."
    ]
