"""Pictures of a set of designs: confidence along the chain, over steps, lengths and novelty; composition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from didi_core.evaluation.intervals import Interval, interval, resampled_means
from didi_core.report.pictures import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Plot,
    finish,
    lay_out,
    legend_below,
    panels_of,
    styled,
)

from ..metrics.composition import UNIREF50
from ..vocabulary import RESIDUES
from .designs import BANDS, CONFIDENT, Design, band, confidence_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IDENTITY = "nn_identity"
MODEL, STEPS = "model", "steps"


def design_plots(designs: Sequence[Design], best: Sequence[Design]) -> list[Plot]:
    """Every picture that the designs have the data for; ``best`` are drawn residue by residue."""
    plots = []
    if any(d.residues is not None for d in best):
        plots.append(residue_plot([d for d in best if d.residues is not None]))
    drawn = [d for d in designs if d.confidence is not None and d.number(STEPS) is not None]
    if len({d.number(STEPS) for d in drawn}) > 1 or len(by_model(drawn)) > 1:
        plots.append(steps_plot(designs))
    plots.append(length_plot(designs))
    if any(d.confidence is not None and d.number(IDENTITY) is not None for d in designs):
        plots.append(novelty_plot(designs))
    plots.append(composition_plot(designs))
    return plots


@styled
def residue_plot(best: Sequence[Design]) -> Plot:
    """pLDDT along the chain, a panel per design, over the confidence bands."""
    canvas, panels = panels_of(len(best), height=2.1)
    for axes, design in zip(panels, best, strict=True):
        _shade(axes)
        length = len(design.letters)
        axes.plot(np.arange(1, length + 1), design.residues, color=INK, linewidth=1.3)  # type: ignore[arg-type]
        for end in np.cumsum([len(chain) for chain in design.chains])[:-1]:
            axes.axvline(end + 0.5, color=INK, linewidth=1, linestyle=":")
        axes.set(title=shortened(design.id), ylim=(0, 100), xlim=(1, max(length, 2)), yticks=[0, 50, 70, 90, 100])
        axes.grid(False)
    for axes in panels[-2:]:
        axes.set_xlabel("residue")
    for axes in panels[::2]:
        axes.set_ylabel("pLDDT")
    caption = (
        "pLDDT of CA atoms along the chain of the first designs of the table. Bands as in AlphaFold DB: "
        + ", ".join(f"{name} {_range(i)}" for i, (_, name, _) in enumerate(BANDS))
        + "."
        + (" A dotted line is the end of a chain." if any(len(design.chains) > 1 for design in best) else "")
    )
    return finish(canvas, "plddt_per_residue", caption)


@styled
def steps_plot(designs: Sequence[Design]) -> Plot:
    """Mean pLDDT over sampling steps, a curve per model, with intervals."""
    canvas, (axes,) = panels_of(1, height=3.8)
    groups = by_model(designs)
    for number, (model, members) in enumerate(groups.items()):
        taken = sorted({steps for d in members if (steps := d.number(STEPS)) is not None})
        found = {steps: mean_plddt([d for d in members if d.number(STEPS) == steps]) for steps in taken}
        points = {steps: mean for steps, mean in found.items() if mean is not None}
        if not points:
            continue
        values = np.array([p.value for p in points.values()])
        low, high = (np.array([getattr(p, end) for p in points.values()]) for end in ("low", "high"))
        axes.errorbar(
            list(points), values, yerr=np.nan_to_num([values - low, high - values]),
            color=SERIES[number % len(SERIES)], marker=MARKERS[number % len(SERIES)], markersize=4.5, linewidth=1.6,
            elinewidth=1, label=model,
        )  # fmt: skip
    ticks = sorted({float(d.scores[STEPS]) for d in designs if d.number(STEPS) is not None})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.set(xlabel="steps", ylabel="mean pLDDT")
    if len(groups) > 1:
        legend_below(canvas, axes.get_legend_handles_labels()[0])
    caption = f"Mean {confidence_of(designs)} against sampling steps, 95 % bootstrap intervals."
    return finish(canvas, "plddt_over_steps", caption)


@styled
def length_plot(designs: Sequence[Design]) -> Plot:
    """How many designs of each length, stacked by confidence band."""
    from matplotlib.ticker import MaxNLocator

    canvas, (axes,) = panels_of(1, height=3.8)
    lengths = np.array([len(d.letters) for d in designs])
    edges = np.histogram_bin_edges(lengths, bins=min(24, max(1, int(np.ptp(lengths)) + 1)))
    folded = any(d.confidence is not None for d in designs)
    bottom = np.zeros(len(edges) - 1)
    for number, (_, name, colour) in reversed(list(enumerate(BANDS))) if folded else []:
        inside = [len(d.letters) for d in designs if d.confidence is not None and band(d.confidence) == number]
        counts = np.histogram(inside, edges)[0]
        label = f"{name} {_range(number)}"
        axes.bar(edges[:-1], counts, np.diff(edges), bottom, align="edge", color=colour, label=label)
        bottom += counts
    rest = np.histogram([len(d.letters) for d in designs if d.confidence is None], edges)[0]
    if rest.any():
        axes.bar(edges[:-1], rest, np.diff(edges), bottom, align="edge", color=MUTED, label="not folded")
    axes.set(xlabel="length (residues)", ylabel="designs")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        legend_below(canvas, handles[::-1])
    bands = f", coloured by the band of their mean {confidence_of(designs)}" if folded else ""
    return finish(canvas, "lengths", f"Designs by length{bands}.")


@styled
def novelty_plot(designs: Sequence[Design]) -> Plot:
    """Confidence against identity to the nearest sequence of the reference."""
    canvas, (axes,) = panels_of(1, height=3.8)
    axes.axhline(CONFIDENT, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    groups = by_model(designs)
    for number, (model, members) in enumerate(groups.items()):
        points = [(d.number(IDENTITY), d.confidence) for d in members]
        kept = np.array([(100 * x, y) for x, y in points if x is not None and y is not None]).reshape(-1, 2)
        colour, mark = SERIES[number % len(SERIES)], MARKERS[number % len(SERIES)]
        axes.scatter(kept[:, 0], kept[:, 1], s=16, color=colour, alpha=0.6, linewidths=0, marker=mark, label=model)
    axes.set(xlabel="identity to the nearest reference sequence (%)", ylabel="mean pLDDT")
    axes.set(xlim=(-2, 102), ylim=(0, 100))
    if len(groups) > 1:
        legend_below(canvas, axes.get_legend_handles_labels()[0])
    caption = (
        f"Confidence (mean {confidence_of(designs)}) against novelty. Upper left: confident and new. A high pLDDT far "
        "to the right is a protein that the reference already holds."
    )
    return finish(canvas, "novelty", caption)


def lifts(places: Float[np.ndarray, "n 2"], width: float = 10.0, height: float = 12.5) -> list[float]:
    """How far each label is raised, in points, so that none lies on another; the lowest stay where they are."""
    taken: list[tuple[float, float]] = []
    raised = [0.0] * len(places)
    for number in np.argsort(places[:, 1], kind="stable"):
        x, y = places[number]
        for _, over in sorted(((a, b) for a, b in taken if abs(a - x) < width), key=lambda place: place[1]):
            y = over + height if abs(over - y) < height else y
        raised[number] = float(y - places[number, 1])
        taken.append((float(x), float(y)))
    return raised


@styled
def composition_plot(designs: Sequence[Design]) -> Plot:
    """Share of each amino acid in the designs against UniRef50; on the diagonal is parity."""
    canvas, (axes,) = panels_of(1, height=3.8)
    natural = 100 * UNIREF50 / UNIREF50.sum()
    highest = np.zeros(len(RESIDUES))
    for number, (model, members) in enumerate(by_model(designs).items()):
        counts = Counter("".join(d.letters for d in members))
        made = np.array([counts[letter] for letter in RESIDUES], dtype=np.float64)
        made *= 100 / max(made.sum(), 1)
        highest = np.maximum(highest, made)
        colour, mark = SERIES[number % len(SERIES)], MARKERS[number % len(SERIES)]
        axes.scatter(natural, made, s=16, color=colour, marker=mark, label=model)
    top = 1.12 * max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([0, top], [0, top], color=MUTED, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    axes.set(xlabel="UniRef50 (%)", ylabel="designs (%)", xlim=(0, top), ylim=(0, top), aspect="equal")
    if len(by_model(designs)) > 1:
        legend_below(canvas, axes.get_legend_handles_labels()[0])
    lay_out(canvas)  # places are final only after the layout
    places = axes.transData.transform(np.stack([natural, highest], axis=1)) * 72 / canvas.dpi
    for letter, x, y, lift in zip(RESIDUES, natural, highest, lifts(places), strict=True):
        axes.annotate(letter, (x, y), (0, 4 + lift), textcoords="offset points", ha="center", fontsize=9.5)
    return finish(canvas, "composition", "Amino-acid composition against UniRef50. On the dashed line: parity.")


def by_model(designs: Sequence[Design]) -> dict[str, list[Design]]:
    """Designs by the model that wrote them, as their row says; one group where none does."""
    groups: dict[str, list[Design]] = {}
    for design in designs:
        groups.setdefault(str(design.scores.get(MODEL) or "designs"), []).append(design)
    return dict(sorted(groups.items()))


def mean_plddt(designs: Sequence[Design]) -> Interval | None:
    """Mean over designs with its bootstrap interval; None where none was folded."""
    values = np.array([d.confidence for d in designs if d.confidence is not None])[:, None]
    if not len(values):
        return None
    return interval(float(values.mean()), resampled_means(values)[:, 0], len(values))


def shortened(name: str, most: int = 36) -> str:
    """A name without its middle where it is longer than a panel: ends tell designs apart."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[1 - most + most // 3 :]}"


def _shade(axes: Axes) -> None:
    """The confidence bands behind a curve."""
    top = 100.0
    for low, _, colour in BANDS:
        axes.axhspan(low, top, color=colour, alpha=0.28, linewidth=0)
        top = low


def _range(number: int) -> str:
    low = BANDS[number][0]
    return f"< {BANDS[number - 1][0]:g}" if low == 0 else f"≥ {low:g}"
