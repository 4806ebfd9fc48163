"""Draws the plots of the pages of results from their own tables: ``python docs/site/plots.py [NAME ...]``.

A plot is narrow enough to be read on a phone, and needs no colour: every series has its marker. Each SVG carries the
figures that it shows, so that a test can tell when a table has moved on.
"""

from __future__ import annotations

import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

sys.path.insert(0, str(Path(__file__).parent))
from tables import (
    DOCS,
    WORTH_CALLS,
    Series,
    ablation,
    chain,
    control,
    first_teachers,
    floor,
    laws,
    lists,
    masked,
    precision,
    savings,
    table,
    text_laws,
    updates,
    worth,
)  # fmt: skip

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")  # Okabe and Ito
MARKERS = "osD^vP*X"
WIDTH = 4.8  # inches, which are 460 pixels; a phone shows 360 of them
LOOK = {
    "svg.hashsalt": "didi", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "legend.fontsize": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "figure.constrained_layout.use": True,
}  # fmt: skip
Panel = tuple[str, str]  # title, and what the names of its series begin with


class Plot(NamedTuple):
    """A plot: what it shows, and how it is drawn."""

    read: Callable[[], Series]
    draw: Callable[[Series], Any]


def curves(
    series: Series, calls: Sequence[int], ylabel: str, panels: Sequence[Panel] = (("", ""),), at: float | None = None,
    log: bool = True, height: float = 2.7,
) -> Any:  # fmt: skip
    """A curve by number of calls for each series; one whose name has a control, a teacher or a bound is dashed.

    at: where a line stands that is no change.
    """
    names = list(dict.fromkeys(shown for name in series for _, start in panels if (shown := short(name, start))))
    columns = 1 if max(map(len, names)) > 26 else 2 if max(map(len, names)) > 14 else 3
    size = (WIDTH, height * len(panels) + 0.2 * math.ceil(len(names) / columns))
    figure, every = plt.subplots(len(panels), 1, figsize=size, squeeze=False, sharex=True)
    for axes, (title, start) in zip(every[:, 0], panels, strict=True):
        for name, points in series.items():
            if shown := short(name, start):
                curve(axes, calls, points, shown, names.index(shown))
        if at is not None:
            axes.axhline(at, color="#444444", linewidth=0.8)
        axes.set(title=title, ylabel=ylabel, yscale="log" if log else "linear")
        axes.set_xscale("log", base=2)
        axes.set_xticks(calls, [str(k) for k in calls])
        plain_axis(axes, "y" if log else "")
    every[-1, 0].set_xlabel("network calls")
    handles = {h: label for axes in every[:, 0] for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    unique = {label: handle for handle, label in reversed(handles.items())}
    figure.legend([unique[name] for name in names], names, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def short(name: str, start: str) -> str:
    """A name without what it begins with; '' if it begins otherwise."""
    return name.removeprefix(start) if name.startswith(start) else ""


def curve(axes: Axes, calls: Sequence[int], points: Sequence[Sequence[float]], name: str, number: int) -> None:
    """One curve, moved a little so that bars do not cover each other; points without a figure are left out."""
    dashed = re.search(r"cross.entropy|teacher|bound|exact", name)
    kept = [(k * (1 + 0.02 * (number % 8)), point) for k, point in zip(calls, points, strict=True) if point]
    bars = [bar(point) for _, point in kept]
    colour = COLOURS[number % 8]
    axes.errorbar(
        [k for k, _ in kept], [point[0] for _, point in kept], [list(ends) for ends in zip(*bars, strict=True)],
        label=name, color=colour, marker=MARKERS[number % 8], linestyle="--" if dashed else "-", capsize=2,
        linewidth=1.4, markersize=4.5, markerfacecolor=colour if number < 8 else "white", elinewidth=0.9,
    )  # fmt: skip


def bar(point: Sequence[float]) -> tuple[float, float]:
    """How far the interval of a point reaches down and up."""
    return (max(point[0] - point[1], 0), max(point[2] - point[0], 0)) if len(point) == 3 else (0, 0)


def dots(
    series: Series, labels: Sequence[str], xlabel: str, panels: Sequence[Panel] = (("", ""),),
    at: float | None = None, log: bool = False,
) -> Any:  # fmt: skip
    """A row for each series, and in it a dot with its interval for each label. at: where a line stands."""
    count = [sum(name.startswith(start) for name in series) for _, start in panels]
    each = 0.2 + 0.13 * len(labels)
    size = (WIDTH, sum(count) * each + 0.5 * len(panels) + 0.6)
    figure, every = plt.subplots(len(panels), 1, figsize=size, squeeze=False, sharex=True, height_ratios=count)
    for axes, (title, start) in zip(every[:, 0], panels, strict=True):
        names = [name for name in series if name.startswith(start)]
        for i, label in enumerate(labels):
            kept = [(row, series[name][i]) for row, name in enumerate(names) if series[name][i]]
            bars = [bar(point) for _, point in kept]
            axes.errorbar(
                [point[0] for _, point in kept], [row + (i - (len(labels) - 1) / 2) * 0.24 for row, _ in kept],
                xerr=[list(ends) for ends in zip(*bars, strict=True)], label=label, color=COLOURS[i],
                marker=MARKERS[i], linestyle="none", markersize=4.5, capsize=2, elinewidth=1,
            )  # fmt: skip
        if at is not None:
            axes.axvline(at, color="#444444", linewidth=0.8)
        axes.set(title=title, xscale="log" if log else "linear")
        if at is None and not log:
            axes.set_xlim(left=0)
        axes.set_yticks(range(len(names)), [textwrap.fill(short(name, start), 25) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        plain_axis(axes, "x" if log else "")
    every[-1, 0].set_xlabel(xlabel)
    if len(labels) > 1:
        drawn = every[0, 0].get_legend_handles_labels()
        figure.legend(*drawn, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def plain_axis(axes: Axes, log: str) -> None:
    """A light grid, no frame, and on a logarithmic axis numbers in place of powers."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if log:
        axis = axes.yaxis if log == "y" else axes.xaxis
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        low, high = axes.get_ylim() if log == "y" else axes.get_xlim()
        between = "25" if high < 50 * low else ""  # leading digits that are written between powers of ten
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in between else "")


KL, CHANGE, PPL = "pair KL, nats", "change of perplexity, %", "perplexity"
FOUR, FIVE, NINE, THREE = (1, 2, 4, 8), (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64, 128, 256), (4, 8, 16)
MANY = (16, 128, 1024)
CHANGE_OF_ANY, OVER_CONTROL, SPEED = "change at matched entropy, %", "pair KL over the control's", "updates a second"
PROTEIN_TEXT = (("proteins", "protein, "), ("text", "text, "))
WORTH = (("text, at matched entropy", "text, "), ("proteins, as sampled", "protein, "))
ALONE = (("proteins, teacher alone", "protein, "), ("text, teacher alone", "text, "))
ABLATION = (("proteins", "Proteins: "), ("text", "Text: "))
OBJECTIVE = "didi|dmmd|mmd|sdtt|alpha|cross_entropy|few_calls|one_call_noise|coupled|few_calls_coupled|didi_paper|idlm"
CONTROLLED = "perplexity|energy distance|repeated 4-grams"
ROW = r"teacher|none of it|\+ .+|full \(RGAS\)"


def recipe(section: str, wanted: str, *cells: int) -> Callable[[], Series]:
    """Reads rows of the recipe by their first cell."""
    return partial(table, "recipe.md", section, wanted, cells)


def ablated(series: Series, xlabel: str, at: float | None = None) -> Any:
    """The rows of the ablation, proteins above text."""
    return dots(series, ("",), xlabel, ABLATION, at, log=True)


PLOTS: Mapping[str, Plot] = {
    # recipe.md
    "main_jobs": Plot(
        recipe("What the main jobs show", r"(protein|text), (seed \d|cross-entropy)", *range(1, 6)),
        partial(curves, calls=FIVE, ylabel=CHANGE, panels=PROTEIN_TEXT, at=0, log=False),
    ),
    "worth": Plot(worth, partial(curves, calls=WORTH_CALLS, ylabel=PPL, panels=WORTH)),
    "parts_protein": Plot(
        partial(lists, "recipe.md", "one_call, part by part", r"the teacher|.*(grid|rollouts).*"),
        partial(curves, calls=FOUR, ylabel=PPL),
    ),
    "parts_chain": Plot(
        partial(lists, "recipe.md", "one_call, part by part", r"teacher|didi|one_call, [14],.*"),
        partial(curves, calls=FIVE, ylabel=KL),
    ),
    "teacher": Plot(
        recipe("Teachers for which steps matter", "iid, uniform|stratified, power 3", *range(1, 10)),
        partial(curves, calls=NINE, ylabel=PPL),
    ),
    "first_teachers": Plot(first_teachers, partial(dots, labels=("4 calls", "8", "16"), xlabel=CHANGE_OF_ANY, at=0)),
    "laws": Plot(laws, partial(curves, calls=THREE, ylabel=PPL, panels=ALONE)),
    "rollouts": Plot(
        partial(lists, "recipe.md", "Rollouts that visit the sampler's states", r"teacher|\d calls.*"),
        partial(curves, calls=THREE, ylabel=KL),
    ),
    "rewards": Plot(
        partial(lists, "recipe.md", "Which reward", r"teacher.*|(log-ratio|both), .*"),
        partial(curves, calls=THREE, ylabel=KL),
    ),
    "text_laws": Plot(text_laws, partial(curves, calls=THREE, ylabel=PPL, log=False)),
    # objectives.md
    "objectives": Plot(chain, partial(curves, calls=FOUR, ylabel=KL, height=3.4)),
    "control": Plot(control, partial(dots, labels=("1 call", "2", "4", "8"), xlabel=OVER_CONTROL, at=1, log=True)),
    "floor": Plot(floor, partial(curves, calls=FOUR, ylabel=KL)),
    "cost": Plot(partial(table, "objectives.md", "Cost", OBJECTIVE, (2,)), partial(dots, labels=("",), xlabel=SPEED)),
    # ablation.md
    "ablation_sampled": Plot(partial(ablation, 2), partial(ablated, xlabel="perplexity as sampled, 8 steps")),
    "ablation_matched": Plot(partial(ablation, 6), partial(ablated, xlabel="over the teacher's, 8 steps", at=1)),
    "ablation_chain": Plot(
        partial(table, "ablation.md", "The chain", ROW, (5, 6, 7)),
        partial(dots, labels=("4 steps", "8", "16"), xlabel=KL, log=True),
    ),
    # benchmarks.md
    "savings": Plot(savings, partial(dots, labels=("time", "memory"), xlabel="plain way over ours", at=1, log=True)),
    "updates": Plot(updates, partial(dots, labels=("918cd4d", "7809949"), xlabel="ms of an update, H100")),
    # precision.md
    "precision": Plot(precision, partial(curves, calls=MANY, ylabel="perplexity as drawn", log=False)),
    "masked": Plot(masked, partial(curves, calls=MANY, ylabel="share still masked", log=False)),
    # evaluation.md
    "controls": Plot(
        partial(table, "evaluation.md", "What is measured", CONTROLLED, (1, 2, 3, 4)),
        partial(dots, labels=("held-out", "shuffled", "random", "repeats"), xlabel="value of the metric", log=True),
    ),
}


def shown(name: str) -> Any:
    """The figures that a plot in ``docs/images`` shows; None where it carries none."""
    text = (DOCS / "images" / f"{name}.svg").read_text(encoding="utf-8")
    found = re.search(r"<dc:description>(.*?)</dc:description>", text, re.S)
    return json.loads(found[1].replace("&quot;", '"')) if found else None


def main(names: Sequence[str]) -> None:
    """Draw these plots; all of them without a name."""
    plt.rcParams.update(LOOK)
    for name in names or PLOTS:
        series = PLOTS[name].read()
        figure = PLOTS[name].draw(series)
        about = {"Description": json.dumps(series), "Date": None, "Creator": None}
        figure.savefig(DOCS / "images" / f"{name}.svg", metadata=about, facecolor="white")
        plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
