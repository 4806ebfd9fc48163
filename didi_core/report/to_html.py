"""report.html: one file that stands alone, follows light or dark, and reads on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from didi_core.evaluation.findings import figure, headed, indistinct
from didi_core.evaluation.rows import Row
from didi_core.report.page import page, picture, provenance, table_of, table_row
from didi_core.report.pictures import SERIES, Plot
from didi_core.report.record import Report
from didi_core.report.side_tables import (
    Table,
    cost_table,
    diversity_table,
    frontier_data,
    precision_table,
    steps_data,
    training_data,
)
from didi_core.report.tables import described, estimate, main_table, matched_table


def html(report: Report, plots: Sequence[Plot]) -> str:
    """The page: verdict, figures, pictures, tables, samples to read, provenance. No address in it leads out."""
    named = {plot.name: plot for plot in plots}
    body = [
        f'<p class="lead">{escape(report.sentence)}</p>',
        _notes(report),
        _tiles(report),
        '<h2>Frontier</h2>' if named else "",
        *(_plot(report, named[name], data) for name, data in FIGURES.items() if name in named),
        _matched(report),
        _main(report),
        _all_metrics(report),
        _section(report, cost_table(report)),
        _section(report, precision_table(report)),
        _section(report, diversity_table(report)),
        "<h2>Training</h2>" + _plot(report, named["training"], training_data) if "training" in named else "",
        _examples(report),
        provenance(report.provenance),
        "<footer>Written by didi_core. Intervals: percentile bootstrap over samples, 95 %. "
        "All numbers are in report.json.</footer>",
    ]
    return page(report.title, f"didi_core · {report.evaluation.domain}", body)


FIGURES: dict[str, Callable[[Report], Table | None]] = {"frontier": frontier_data, "steps": steps_data}


def _plot(report: Report, plot: Plot, data: Callable[[Report], Table | None]) -> str:
    """A picture, and below it what it was drawn from."""
    table = data(report)
    below = f"<details><summary>{escape(table.title)}</summary>{_cells(report, table)}</details>" if table else ""
    return picture(plot) + below


def _section(report: Report, table: Table | None) -> str:
    if table is None:
        return ""
    return f'<h2>{escape(table.title)}</h2><p class="about">{escape(table.about)}</p>{_cells(report, table)}'


def _cells(report: Report, table: Table) -> str:
    named = 0 in table.words
    lines = [
        table_row(
            [(_dot(report, line[0]) if named else "") + escape(line[0]), *(_range(cell) for cell in line[1:])],
            words=table.words,
        )
        for line in table.cells
    ]
    return table_of(table.headers, lines, words=table.words)


def _notes(report: Report) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _tiles(report: Report) -> str:
    """The comparisons as large figures, one for each number of steps of the first compared model and method."""
    shown = [c for c in report.findings.comparisons if c.ratio is not None and c.method.steps is not None]
    shown = [c for c in shown if (c.model, c.method.label) == (shown[0].model, shown[0].method.label)]
    tiles = []
    for item in sorted(shown, key=lambda c: c.method.steps or 0)[:6]:
        if item.ratio is not None:
            percent = f"{100 * (item.ratio.value - 1):+.0f} %".replace("-", "−")
            tone = item.verdict if item.verdict in ("better", "worse") else ""
            label = f"{report.evaluation.metrics[0].label} at {item.method.steps} steps against the {item.baseline}"
            tiles.append(
                f'<div class="tile"><b class="{tone}">{percent}</b><span>{escape(label)}, matched entropy</span></div>'
            )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _matched(report: Report) -> str:
    if not report.findings.comparisons:
        return ""
    headers, cells = matched_table(report)
    lines = []
    for line in cells:
        marked = [_dot(report, line[0]) + escape(line[0]), *(_range(cell) for cell in line[1:])]
        tone = line[6] if line[6] in ("better", "worse") else ""
        marked[6] = f'<span class="{tone}">{escape(line[6])}</span>'
        lines.append(table_row(marked, words=(0, 1, 6)))
    return (
        f"<h2>{escape(headed(report.evaluation.metrics[0].label))} at matched entropy "
        f"({report.evaluation.at:.3f} nats)</h2>"
        '<p class="about">Both models read where their temperature sweeps meet the entropy of held-out data, under the '
        "same sampler, law, grid and steps. Difference: model against baseline, lower is better. "
        "Worth: steps that the baseline needs for the same quality.</p>" + table_of(headers, lines, words=(0, 1, 6))
    )


def _main(report: Report) -> str:
    headers, cells, rows = main_table(report)
    blurred = set(indistinct(report.evaluation, report.evaluation.metrics[0]))
    words = tuple(i for i, header in enumerate(headers) if header in ("", "method"))
    headers = [*headers, "samples / s", "samples"]
    lines, before = [], ""
    for line, row in zip(cells, rows, strict=True):
        name = _dot(report, row.model) + escape(row.model) if row.kind in ("model", "file") else escape(row.model)
        name += ' <span class="range">≈ data</span>' if row.model in blurred else ""
        rate = f"{figure(row.rate)}" if row.rate else ""
        marked = [name, *(_range(cell) for cell in line[1:]), rate, f"{row.n:,}"]
        group = row.model if row.kind in ("model", "file") else "reference"
        kind = " ".join(
            ([row.kind] if row.kind == "control" else []) + (["first"] if before and group != before else [])
        )
        lines.append(table_row(marked, words=words, kind=kind))
        before = group
    return (
        "<h2>Samples as they come, temperature 1</h2>"
        f'<p class="about">{escape(described(report))}NFE: calls of every network per sample. '
        "Seconds: in the sampler, for all samples of the row, "
        "after a warm-up. Controls are held-out data made worse: where the quality rates them like data, “≈ data”.</p>"
        + table_of(headers, lines, words)
    )


def _all_metrics(report: Report) -> str:
    """Every metric of every row, temperatures included, behind a fold."""
    metrics = report.evaluation.metrics
    headers = ["", "method", "steps", "T", *(metric.label for metric in metrics)]
    lines = [table_row(_metric_cells(report, row), words=(0, 1)) for row in report.evaluation.rows]
    table = table_of(headers, lines, words=(0, 1))
    return f"<details><summary>All metrics of all rows, every temperature</summary>{table}</details>"


def _metric_cells(report: Report, row: Row) -> list[str]:
    method = [escape(row.method.label), str(row.method.steps or "")] if row.method else ["", ""]
    temperature = f"{row.temperature:g}" if row.temperature is not None else ""
    values = [_range(estimate(row.values.get(metric.name))) for metric in report.evaluation.metrics]
    return [_dot(report, row.model) + escape(row.model), *method, temperature, *values]


def _examples(report: Report) -> str:
    parts = [
        f"<h3>{escape(name)}</h3><pre>{escape(chr(10).join(sample.text[:600] for sample in samples))}</pre>"
        for name, samples in report.evaluation.examples.items()
    ]
    return (
        f"<h2>Samples to read</h2><p class='about'>The first of each set, not chosen.</p>{''.join(parts)}"
        if parts
        else ""
    )


def _dot(report: Report, model: str) -> str:
    """The model's colour in the pictures."""
    models = list(dict.fromkeys(row.model for row in report.evaluation.rows if row.kind in ("model", "file")))
    if model not in models:
        return ""
    return f'<span class="dot" style="background: var(--series-{models.index(model) % len(SERIES)})"></span>'


def _range(cell: str) -> str:
    """``value [low, high]`` with the interval in a quieter colour."""
    value, bracket, rest = cell.partition(" [")
    return f'{escape(value)} <span class="range">[{escape(rest)}</span>' if bracket else escape(cell)
