"""The tables of a report in a terminal, about 110 columns wide."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from didi_core.evaluation.conclusion import indistinct
from didi_core.report.record import Report
from didi_core.report.side_tables import Table as Plain
from didi_core.report.side_tables import difference_table, variety_table
from didi_core.report.tables import main_table, matched_table

WIDTH = 112  # columns that the tables with their intervals need
COLOURS = {"better": "green", "worse": "red", "not reached": "yellow", "no difference shown": "dim"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the main table, the table at matched entropy, the sentence and its caveats.

    On a narrow terminal the values have no intervals, so that none is cut in the middle.
    """
    console = console or Console(markup=False, width=None if sys.stdout.isatty() else WIDTH)
    narrow = console.width < WIDTH
    console.print(samples_table(report, narrow))
    if report.findings.comparisons:
        console.print(matched_entropy_table(report, narrow))
    at_variety = variety_table(report)
    if at_variety is not None:
        console.print(matched_variety_table(at_variety, narrow))
    differences = difference_table(report)
    if differences is not None:
        console.print(equal_calls_table(differences, narrow))
    console.print(Text(report.sentence, style="bold"))
    for note in report.notes:
        console.print(Text(note, style="yellow"))


def samples_table(report: Report, narrow: bool = False) -> Table:
    """One line per model and steps; a control that the quality does not distinguish from data is marked."""
    headers, cells, rows = main_table(report)
    quality = report.evaluation.metrics[0]
    blurred = set(indistinct(report.evaluation, quality))
    table = _table("as sampled" + ("" if narrow else "; 95 % intervals"), headers)
    before = ""
    for line, row in zip(cells, rows, strict=True):
        group = row.model if row.kind in ("model", "file") else "references"
        if before and group != before:
            table.add_section()
        before = group
        line = [_bare(cell) for cell in line] if narrow else line
        marked = [f"{line[0]} (≈ data)" if row.model in blurred else line[0], *line[1:]]
        table.add_row(*marked, style="dim" if row.kind == "control" else None)
    return table


def matched_entropy_table(report: Report, narrow: bool = False) -> Table:
    """Model against baseline at the entropy of the data. The decisive interval is that of the difference."""
    headers, cells = matched_table(report)
    keep = [i for i in range(len(headers)) if i != 1 or len({line[1] for line in cells}) > 1]
    method = f"; {cells[0][1]}" if 1 not in keep else ""
    table = _table(
        f"{report.evaluation.metrics[0].label} at matched entropy ({report.evaluation.at:.3f} nats{method})",
        [headers[i] for i in keep],
    )
    for line in cells:
        line = [*line[:3], *map(_bare, line[3:5]), *line[5:]]
        line = [_shorter(cell) for cell in line] if narrow else line
        chosen = [Text(line[i], style=COLOURS.get(line[i], "") if headers[i] == "verdict" else "") for i in keep]
        table.add_row(*chosen)
    return table


def matched_variety_table(plain: Plain, narrow: bool = False) -> Table:
    """The same at one variety of the two sets."""
    several = len({line[1] for line in plain.cells}) > 1
    keep = [i for i in range(len(plain.headers)) if i != 1 or several]
    table = _table(plain.title + ("" if several else f"; {plain.cells[0][1]}"), [plain.headers[i] for i in keep])
    for line in plain.cells:
        shown = [*line[:4], *map(_bare, line[4:6]), *line[6:]]
        verdict = Text(shown[7], style=COLOURS.get(shown[7], ""))
        table.add_row(*(verdict if i == 7 else (_bare(shown[i]) if narrow else shown[i]) for i in keep))
    return table


def equal_calls_table(plain: Plain, narrow: bool = False) -> Table:
    """Model against baseline at equal calls."""
    table = _table(plain.title, list(plain.headers))
    for line in plain.cells:
        shown = [*line[:3], *map(_bare, line[3:5]), _bare(line[5]) if narrow else line[5]]
        table.add_row(*shown, Text(line[6], style=COLOURS.get(line[6], "")))
    return table


def _bare(cell: str) -> str:
    """A value without its interval."""
    return cell.partition(" [")[0]


def _shorter(cell: str) -> str:
    """A factor without its number of steps: ``≥ 8 (2.0×)`` becomes ``≥ 2.0×``."""
    before, opened, factor = cell.partition(" (")
    return f"{'≥ ' if before.startswith('≥') else ''}{factor.rstrip(')')}" if opened else cell


def _table(title: str, headers: list[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        collapse_padding=True,
    )
    for header in headers:
        words = header in ("", "method", "verdict")
        table.add_column(header, justify="left" if words else "right", no_wrap=not words)
    return table
