"""The report of scored designs: ``report.html`` in the score folder, with plots beside it. Needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from didi_core.evaluation.wording import headed
from didi_core.storage.files import check_links, write_atomic

from .designs import Design, best_first, designs_frame, read_designs
from .page import html, sentence
from .plots import design_plots

REPORT = "report.html"
BEST = 6  # drawn residue by residue and shown as structures

__all__ = ["Design", "designs_frame", "read_designs", "summary", "write_design_report"]


def summary(folder: Path) -> str:
    """The sentence at the head of the report on the scores in a folder."""
    return sentence(read_designs(folder))


def write_design_report(
    folder: Path, record: Mapping[str, Any] | None = None, best: int = BEST, order: str | None = None
) -> Path:
    """Write ``report.html`` and ``plots/*.png`` from the scores in a folder; returns the page's path.

    Args:
        record: command, models and versions behind the scores, for the end of the page.
        best: number of the first designs that are drawn residue by residue and shown as structures.
        order: the order of the file in words, if it is to stay; otherwise the most confident come first.

    Raises:
        InputError: the folder is not an output of ``score``, or a link leads out of it.
    """
    check_links(folder)
    designs = read_designs(folder, ranked=order is not None)
    order = order or best_first([design.scores for design in designs])[1]
    chosen = [design for design in designs if design.residues is not None][:best]
    plots = design_plots(designs, chosen)
    for plot in plots:
        write_atomic(folder / "plots" / f"{plot.name}.png", plot.png)
    write_atomic(folder / REPORT, html(designs, chosen, plots, record or {}, headed(order)))
    return folder / REPORT
