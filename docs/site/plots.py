"""Draws the plots of the pages of results from their own tables: ``python docs/site/plots.py``.

Each SVG carries the figures that it shows, so that a test can tell when a table has moved on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

DOCS = Path(__file__).resolve().parents[1]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")  # Okabe and Ito
MARKERS = "osD^vP*X"
NUMBER = re.compile(r"[−+-]?\d+(?:\.\d+)?")

Series = Mapping[str, list[list[float]]]  # name -> for each point the value, or value, low and high


def rows(page: str, section: str) -> Iterator[list[str]]:
    """Cells of the rows of all tables of a section, without headers."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for line in re.findall(r"^\|(.+)\|$", text, re.M):
        yield [cell.strip() for cell in line.split("|")]


def figures(cell: str) -> list[float]:
    """The numbers of a cell: a value, or a value with its interval."""
    return [float(number.replace("−", "-")) for number in NUMBER.findall(cell)]


def main_jobs() -> Series:
    """Change of perplexity by number of calls, percent."""
    wanted = re.compile(r"(protein|text), (seed \d|cross-entropy)$")
    return {
        name: [figures(cell) for cell in cells]
        for name, *cells in rows("recipe.md", "What the main jobs show")
        if wanted.match(name)
    }


def objectives() -> Series:
    """Pair KL by number of calls, on the chain: the first table of its section."""
    found: dict[str, list[list[float]]] = {}
    for name, *cells in rows("objectives.md", "The chain"):
        if len(cells) == 7 and re.fullmatch(r"`\w+`|teacher", name):
            found.setdefault(name.strip("`"), [figures(cell) for cell in cells[1:5]])
    return found


def laws() -> Series:
    """Perplexity at 4, 8 and 16 calls of the teachers alone: proteins, then text."""
    return {
        name: [figures(cell) for cell in cells]
        for name, *cells in rows("recipe.md", "Law and grid alone")
        if re.fullmatch(r"\w+, (uniform|power 3)", name)
    }


def line(axes: Axes, calls: list[float], points: list[list[float]], **style: Any) -> None:
    """One curve; points without a figure are left out, and those with an interval have a bar."""
    kept = [(k, point) for k, point in zip(calls, points, strict=True) if point]
    values = [point[0] for _, point in kept]
    bars = [[p[0] - p[1] if len(p) == 3 else 0 for _, p in kept], [p[2] - p[0] if len(p) == 3 else 0 for _, p in kept]]
    look = {"capsize": 2, "linewidth": 1.5, "markersize": 4, **style}
    axes.errorbar([k for k, _ in kept], values, yerr=bars if any(map(any, bars)) else None, **look)


def finish(axes: Axes, calls: list[int], **labels: Any) -> None:
    """Axis of calls, labels, a light grid."""
    axes.set(xlabel="calls", **labels)
    axes.set_xscale("log", base=2)
    axes.set_xticks(calls, [str(k) for k in calls])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_main_jobs(series: Series) -> Any:
    """Two panels, a curve for each seed and one for the control."""
    calls = [1, 2, 4, 8, 16]
    figure, both = plt.subplots(1, 2, figsize=(7.6, 3.2), sharex=True)
    for axes, domain in zip(both, ("protein", "text"), strict=True):
        for i, (name, points) in enumerate((n, p) for n, p in series.items() if n.startswith(domain)):
            control = "cross" in name
            style = {"color": COLOURS[7] if control else COLOURS[i], "marker": "x" if control else MARKERS[i]}
            label = "control: cross-entropy" if control else name.partition(", ")[2]
            line(axes, [k * (1 + 0.03 * i) for k in calls], points, label=label, **style)
        axes.axhline(0, color="#444444", linewidth=0.8)
        finish(axes, calls, title=domain, ylabel="change of perplexity, %")
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_objectives(series: Series) -> Any:
    """A curve for each objective; the teacher and the control are dashed."""
    calls = [1, 2, 4, 8]
    figure, axes = plt.subplots(figsize=(7.6, 3.8))
    for i, (name, points) in enumerate(series.items()):
        style = {"linestyle": "--" if name in ("teacher", "cross_entropy") else "-" if i < 8 else ":"}
        style |= {"color": COLOURS[i % 8], "marker": MARKERS[i % 8]}
        style["markerfacecolor"] = style["color"] if i < 8 else "white"
        line(axes, calls, [p[:1] for p in points], label=name, **style)
    finish(axes, calls, ylabel="pair KL, nats")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_laws(series: Series) -> Any:
    """Two panels; a colour for each law, dashed under the power grid."""
    calls = [4, 8, 16]
    figure, both = plt.subplots(1, 2, figsize=(7.6, 3.0))
    for axes, domain, start in zip(both, ("protein", "text"), (0, 3), strict=True):
        for i, (name, points) in enumerate(series.items()):
            style = {"linestyle": "--" if "power" in name else "-", "marker": MARKERS[i // 2], "label": name}
            line(axes, calls, points[start : start + 3], color=COLOURS[i // 2], **style)
        finish(axes, calls, title=f"{domain}, teacher alone", ylabel="perplexity")
    both[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


PLOTS: Mapping[str, tuple[Callable[[], Series], Callable[[Series], Any]]] = {
    "main_jobs": (main_jobs, draw_main_jobs),
    "objectives": (objectives, draw_objectives),
    "laws": (laws, draw_laws),
}


def shown(name: str) -> Any:
    """The figures that a plot in ``docs/images`` shows; None where it carries none."""
    text = (DOCS / "images" / f"{name}.svg").read_text(encoding="utf-8")
    found = re.search(r"<dc:description>(.*?)</dc:description>", text, re.S)
    return json.loads(found[1].replace("&quot;", '"')) if found else None


def main() -> None:
    """Draw all plots."""
    look = {"svg.hashsalt": "didi", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    plt.rcParams.update(look | {"figure.constrained_layout.use": True})
    for name, (read, draw) in PLOTS.items():
        series = read()
        figure = draw(series)
        about = {"Description": json.dumps(series), "Date": None, "Creator": None}
        figure.savefig(DOCS / "images" / f"{name}.svg", metadata=about, facecolor="white")
        plt.close(figure)


if __name__ == "__main__":
    main()
