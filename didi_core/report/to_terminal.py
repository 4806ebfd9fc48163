"""The tables of a report in a terminal, about 110 columns wide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from didi_core.evaluation.conclusion import misjudged
from didi_core.evaluation.wording import headed
from didi_core.report.record import Report
from didi_core.report.side_tables import Table as Plain
from didi_core.report.side_tables import difference_table, variety_table
from didi_core.report.tables import main_table, matched_table

WIDTH = 112  # columns that the tables with their intervals need
NONE, FEW_WORDS = "no difference shown", "none shown"
COLOURS = {"better": "green", "worse": "red", "not reached": "yellow", NONE: "dim", FEW_WORDS: "dim"}


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
    marks = misjudged(report.evaluation, quality)
    table = _table("As sampled" + ("" if narrow else "; 95 % intervals"), headers)
    before = ""
    for line, row in zip(cells, rows, strict=True):
        group = "references" if row.is_reference else row.model
        if before and group != before:
            table.add_section()
        before = group
        line = [_bare(cell) for cell in line] if narrow else line
        marked = [f"{line[0]} ({marks[row.model]})" if row.model in marks else line[0], *line[1:]]
        table.add_row(*marked, style="dim" if row.kind == "control" else None)
    return table


def matched_entropy_table(report: Report, narrow: bool = False) -> Table:
    """Model against baseline at the entropy of the data. The decisive interval is that of the difference."""
    headers, cells = matched_table(report)
    title = f"{headed(report.evaluation.metrics[0].label)} at matched entropy, {report.evaluation.at:.3f} nats"
    return _comparison(Plain(title, "", tuple(headers), tuple(map(tuple, cells))), _shorter if narrow else str)


def matched_variety_table(plain: Plain, narrow: bool = False) -> Table:
    """The same at one variety of the two sets."""
    return _comparison(plain, _bare if narrow else str)


def equal_calls_table(plain: Plain, narrow: bool = False) -> Table:
    """Model against baseline at equal calls."""
    return _comparison(plain, _bare if narrow else str)


def _comparison(plain: Plain, short: Callable[[str], str]) -> Table:
    """A table of models against a baseline. Values between the steps and the difference lose their intervals, and the
    verdict has a colour; a method that all lines share stands in the title. short: how a cell is written."""
    title, brief = f"{plain.title} ({plain.method})" if plain.method else plain.title, plain.shorter()
    values = range(brief.headers.index("steps") + 1, brief.headers.index("difference"))
    table = _table(title, brief.headers)
    for line in brief.cells:
        shown = [short(_bare(cell) if i in values else cell) for i, cell in enumerate(line)]
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in shown))
    return table


def _bare(cell: str) -> str:
    """A value without its interval; a verdict in few words."""
    return cell.partition(" [")[0].replace(NONE, FEW_WORDS)


def _shorter(cell: str) -> str:
    """A factor without its number of steps: ``≥ 8 (2.0×)`` becomes ``≥ 2.0×``."""
    before, opened, factor = cell.partition(" (")
    return f"{'≥ ' if before.startswith('≥') else ''}{factor.rstrip(')')}" if opened else cell


def _table(title: str, headers: Sequence[str]) -> Table:
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
