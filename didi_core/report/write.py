"""A report on disk: report.json, report.md, report.html and plots/*.png."""

from __future__ import annotations

from pathlib import Path

from didi_core.report.plots import evaluation_plots, training_plot
from didi_core.report.record import Report
from didi_core.report.to_html import html
from didi_core.report.to_json import report_json
from didi_core.report.to_markdown import markdown
from didi_core.storage.files import write_atomic, write_json


def write_report(folder: Path, report: Report) -> list[Path]:
    """Write report.json, report.md, report.html and plots/*.png into ``folder``. Returns their paths."""
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
