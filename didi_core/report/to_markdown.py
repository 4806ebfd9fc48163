"""report.md: the report for a terminal, a pull request or a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from didi_core.evaluation.wording import headed
from didi_core.report.pictures import Plot
from didi_core.report.record import Report
from didi_core.report.side_tables import (
    Table,
    cost_table,
    difference_table,
    diversity_table,
    precision_table,
    variety_table,
)
from didi_core.report.tables import described, main_table, matched_table


def markdown(report: Report, plots: Sequence[Plot]) -> str:
    """The tables and the plots beside them."""
    evaluation = report.evaluation
    parts = [f"# {inline(report.title)}", inline(report.sentence), *(f"> {inline(note)}" for note in report.notes)]
    headers, cells, _ = main_table(report)
    parts += [
        "## As sampled",
        inline("Intervals are 95 % bootstrap intervals. " + _explained(report)),
        markdown_table(headers, cells),
    ]
    if report.findings.comparisons:
        headers, cells = matched_table(report)
        parts += [
            f"## {inline(headed(evaluation.metrics[0].label))} at matched entropy "
            f"({evaluation.at:.3f} nats, that of held-out data)",
            markdown_table(headers, cells),
        ]
    parts += [f"![{inline(plot.caption)}](plots/{plot.name}.png)" for plot in plots]
    sides = (variety_table, difference_table, cost_table, precision_table, diversity_table)
    for table in (make(report) for make in sides):
        parts += section(table) if table else []
    parts.append("## A few samples")
    for name, samples in evaluation.examples.items():
        lines = [line for sample in samples for line in sample.text[:300].splitlines()]
        parts.append(f"**{inline(name)}**\n\n" + "\n".join(f"    {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def section(table: Table) -> list[str]:
    """A heading, an explanation, and the table."""
    return [f"## {inline(table.title)}", inline(table.about), markdown_table(table.headers, table.cells)]


def _explained(report: Report) -> str:
    """The meaning of the columns."""
    counts = sorted({row.n for row in report.evaluation.rows if row.kind != "control"})
    shown = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return (
        f"{described(report)}{shown} samples per row. NFE counts the calls of every network per sample; "
        "seconds are those of the sampler for all samples."
    )


def markdown_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *cells]
    return "\n".join("| " + " | ".join(inline(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def inline(text: str) -> str:
    """A text for a line of Markdown, in which it makes no element, link or line of its own."""
    return " ".join(text.split()).replace("<", "\\<").replace("](", "]\\(")
