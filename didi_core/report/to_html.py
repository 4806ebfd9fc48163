"""report.html: the values for the template ``report.html``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from didi_core.domain.palette import Key, colour_of_letters, legend_of
from didi_core.errors import counted
from didi_core.evaluation.conclusion import misjudged
from didi_core.evaluation.rows import Films
from didi_core.evaluation.wording import figure, headed, percent
from didi_core.report.page import Cell, Grid, Line, render
from didi_core.report.pictures import SERIES, Plot
from didi_core.report.record import Report
from didi_core.report.side_tables import (
    Table,
    cost_table,
    difference_table,
    diversity_table,
    frontier_data,
    precision_table,
    steps_data,
    training_data,
    variety_table,
)
from didi_core.report.tables import described, estimate, main_table, matched_table

FIGURES: dict[str, Callable[[Report], Table | None]] = {"steps": steps_data, "frontier": frontier_data}
SIDES = (variety_table, difference_table, cost_table, precision_table, diversity_table)
TONES = ("better", "worse")
MATCHED = (
    "Both models are read where their temperature sweeps meet the entropy of held-out data, under the same sampler, "
    "law, grid and steps. Difference: model against baseline, lower is better. Worth: steps that the baseline needs "
    "for the same quality."
)
LONGEST = 600  # characters of a sample that are shown


@dataclass(frozen=True)
class Drawn:
    """A picture and its table of data."""

    plot: Plot
    title: str = ""
    grid: Grid | None = None


@dataclass(frozen=True)
class Shown:
    """A table with its title."""

    title: str
    about: str
    grid: Grid


def html(report: Report, plots: Sequence[Plot]) -> str:
    """The page: verdict, key figures, pictures, tables, samples to read, provenance."""
    named = {plot.name: plot for plot in plots}
    return render(
        "report.html",
        title=report.title,
        kind=f"didi_core · {report.evaluation.domain}",
        sentence=report.sentence,
        notes=report.notes,
        tiles=_tiles(report),
        figures={name: _drawn(report, named[name], data) if name in named else None for name, data in FIGURES.items()},
        quality=report.evaluation.metrics[0],
        matched=_matched(report) if report.findings.comparisons else None,
        about=described(report),
        main=_main(report),
        every=_all_metrics(report),
        sides=[_shown(report, table) for make in SIDES if (table := make(report)) is not None],
        training=_drawn(report, named["training"], _training) if "training" in named else None,
        examples={
            name: [sample.text[:LONGEST] for sample in samples]
            for name, samples in report.evaluation.examples.items()
        },
        film=_film(report.evaluation.films),
        provenance=report.provenance,
    )  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """A film on the page: its models with their finished samples, the data of its script, and the colours' legend.

    length: the number of calls in words.
    """

    calls: int
    length: str
    models: Sequence[tuple[str, str]]
    data: Mapping[str, Any]
    legend: Sequence[Key]


def _film(films: Films | None) -> Shot | None:
    if films is None:
        return None
    colours = colour_of_letters(films.groups)
    return Shot(
        films.calls,
        counted(films.calls, "call"),
        [(film.model, film.text) for film in films.films],
        {"colours": colours, "films": [{"start": film.start, "changes": film.changes} for film in films.films]},
        legend_of(films.groups),
    )


def _training(report: Report) -> Table | None:
    return training_data(report.training)


def _drawn(report: Report, plot: Plot, data: Callable[[Report], Table | None]) -> Drawn:
    table = data(report)
    return Drawn(plot) if table is None else Drawn(plot, table.title, _grid(report, table))


def _shown(report: Report, table: Table) -> Shown:
    short = table.shorter()
    return Shown(short.title, short.about, _grid(report, short))


def _grid(report: Report, table: Table) -> Grid:
    named = 0 in table.words
    lines = [
        Line((Cell(line[0], dot=_colour(report, line[0]) if named else ""), *map(_read, line[1:])))
        for line in table.cells
    ]
    return Grid(table.headers, lines, table.words)


def _tiles(report: Report) -> list[Cell]:
    """Key figures: one comparison for each number of steps of the first compared model and method."""
    shown = [c for c in report.findings.comparisons if c.ratio is not None and c.method.steps is not None]
    shown = [c for c in shown if (c.model, c.method.label) == (shown[0].model, shown[0].method.label)]
    tiles = []
    for item in sorted(shown, key=lambda c: c.method.steps or 0)[:6]:
        if item.ratio is not None:
            at = counted(item.method.steps or 0, "step")
            label = f"{report.evaluation.metrics[0].label} at {at} against the {item.baseline}"
            tone = item.verdict if item.verdict in TONES else ""
            tiles.append(Cell(percent(item.ratio.value), f"{label}, matched entropy", tone=tone))
    return tiles


def _matched(report: Report) -> Shown:
    headers, cells = matched_table(report)
    title = f"{headed(report.evaluation.metrics[0].label)} at matched entropy ({report.evaluation.at:.3f} nats)"
    verdict = headers.index("verdict")
    table = Table(title, MATCHED, tuple(headers), tuple(map(tuple, cells)), (0, 1, verdict)).shorter()
    return Shown(table.title, table.about, _grid(report, table))


def _read(text: str) -> Cell:
    """A value with its interval, or why there is none, in a line below; a verdict in its colour."""
    if text in TONES:
        return Cell(text, tone=text)
    what, bracket, why = text.partition(" (")
    return Cell(what, why.rstrip(")")) if bracket and "[" not in text else Cell.ranged(text)


def _main(report: Report) -> Grid:
    headers, cells, rows = main_table(report)
    marks = misjudged(report.evaluation, report.evaluation.metrics[0])
    words = tuple(i for i, header in enumerate(headers) if header in ("", "method"))
    lines, before = [], ""
    for line, row in zip(cells, rows, strict=True):
        dot = "" if row.is_reference else _colour(report, row.model)
        name = Cell(row.model, marks.get(row.model, ""), dot)
        rate = f"{figure(row.rate)}" if row.rate else ""
        made = (name, *map(Cell.ranged, line[1:]), Cell(rate), Cell(f"{row.n:,}"))
        group = "reference" if row.is_reference else row.model
        kinds = [*(["control"] if row.kind == "control" else []), *(["first"] if before and group != before else [])]
        lines.append(Line(made, " ".join(kinds)))
        before = group
    return Grid([*headers, "samples / s", "samples"], lines, words)


def _all_metrics(report: Report) -> Grid:
    """Every metric of every row, temperatures included."""
    metrics = report.evaluation.metrics
    lines = []
    for row in report.evaluation.rows:
        method = (row.method.label, str(row.method.steps or "")) if row.method else ("", "")
        temperature = f"{row.temperature:g}" if row.temperature is not None else ""
        values = [Cell.ranged(estimate(row.values.get(metric.name))) for metric in metrics]
        name = Cell(row.model, dot=_colour(report, row.model))
        lines.append(Line((name, *map(Cell, (*method, temperature)), *values)))
    return Grid(["", "method", "steps", "T", *(metric.label for metric in metrics)], lines, (0, 1))


def _colour(report: Report, model: str) -> str:
    """The model's colour in the pictures; '' if it has none."""
    models = report.evaluation.evaluated
    return f"var(--series-{models.index(model) % len(SERIES)})" if model in models else ""
