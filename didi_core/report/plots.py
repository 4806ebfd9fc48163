"""Plots of an evaluation and of a training run: frontier, quality over steps, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from didi_core.evaluation.findings import Findings
from didi_core.evaluation.rows import Evaluation, Method, table_rows
from didi_core.evaluation.wording import headed
from didi_core.report.pictures import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Plot,
    finish,
    lay_out,
    legend_below,
    log_axis,
    panels_of,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")  # of laws and grids
FAMILIES = "osD^v"  # markers of laws and grids, where there are several
DASHED = (0, (4, 3))  # the line of held-out data


@dataclass(frozen=True)
class End:
    """Where a curve of the frontier ends, what is written there, and where its intervals end."""

    entropy: float
    quality: float
    label: str
    colour: str
    right: float


def evaluation_plots(evaluation: Evaluation, findings: Findings) -> list[Plot]:
    """Frontier and quality over steps, as far as the evaluation has data for them."""
    plots = []
    if evaluation.frontiers:
        plots.append(frontier_plot(evaluation))
    if any(row.method and row.method.steps is not None for row in evaluation.rows):
        plots.append(steps_plot(evaluation, findings))
    return plots


@styled
def frontier_plot(evaluation: Evaluation) -> Plot:
    """Quality (log scale) against entropy: a curve per model and number of steps, a panel per law and grid."""
    families = list(dict.fromkeys(replace(method, steps=None) for _, method in evaluation.frontiers))
    quality, entropy = evaluation.metrics[:2]
    canvas, panels = panels_of(len(families), height=3.9)
    ends = []
    for axes, family in zip(panels, families, strict=True):
        of_family = [key for key in evaluation.frontiers if replace(key[1], steps=None) == family]
        ends.append([_frontier_curve(axes, evaluation, key, _strength(key, of_family)) for key in of_family])
        _held_out_point(axes, evaluation, quality.name)
        axes.set(title=family.label, xlabel=f"{entropy.label} (nats)", ylabel=quality.label)
        log_axis(axes.yaxis)
        axes.margins(x=0.1)
    _legend(canvas, evaluation, {m for m, _ in evaluation.frontiers}, held_out="held-out data")
    lay_out(canvas)
    for axes, own in zip(panels, ends, strict=True):
        _end_labels(axes, own)
    caption = (
        f"Frontier: each curve is one model at one number of steps (the figure at its end) over temperatures. "
        f"Lower and further right is better; models are compared on the dashed line, the "
        f"{entropy.label} of held-out data."
    )
    return finish(canvas, "frontier", caption)


def _strength(key: tuple[str, Method], of_family: Sequence[tuple[str, Method]]) -> float:
    """How opaque a curve is: the more steps its model takes, the more."""
    steps = sorted({method.steps or 0 for model, method in of_family if model == key[0]})
    return 0.45 + 0.55 * (steps.index(key[1].steps or 0) + 1) / len(steps)


def _frontier_curve(axes: Axes, evaluation: Evaluation, key: tuple[str, Method], strength: float) -> End:
    """Draw one curve with its intervals."""
    model, method = key
    curve, colour = evaluation.frontiers[key], _colour(evaluation, model)
    values, across = np.exp(curve.log_quality), _bars(curve.entropy, curve.entropy_draws)
    axes.errorbar(
        curve.entropy, values, xerr=across, yerr=_bars(values, np.exp(curve.log_quality_draws)),
        color=colour, alpha=strength, marker=_marker(evaluation, model), markersize=3.5, linewidth=1.6, elinewidth=0.8,
    )  # fmt: skip
    last = int(np.argmax(curve.entropy))
    label = str(method.steps or method.law or "1/token")
    right = float(np.max(curve.entropy + across[1]))
    return End(float(curve.entropy[last]), float(values[last]), label, colour, right)


def _held_out_point(axes: Axes, evaluation: Evaluation, quality: str) -> None:
    """Draw the entropy at which models are compared, and the quality of held-out data on it."""
    data = evaluation.data
    if data is None or evaluation.at is None:
        return
    axes.axvline(evaluation.at, color=MUTED, linestyle=DASHED, linewidth=1)
    if quality in data.values:
        axes.plot(evaluation.at, data.values[quality].value, marker="D", color=INK, markersize=6, linestyle="")


@styled
def steps_plot(evaluation: Evaluation, findings: Findings) -> Plot:
    """Quality over steps with intervals: as sampled at temperature 1, and at matched entropy where it was reached."""
    quality = evaluation.metrics[0]
    matched_any = any(value.usable for (_, m), value in findings.matched.items() if m.steps is not None)
    canvas, panels = panels_of(2 if matched_any else 1, height=3.7)
    sampled = {
        (row.model, row.method): row.values[quality.name]
        for row in table_rows(evaluation.rows)
        if row.method and row.method.steps is not None and quality.name in row.values
    }
    at_entropy = {k: v.quality for k, v in findings.matched.items() if v.usable and k[1].steps is not None}
    families = list(dict.fromkeys(replace(method, steps=None) for _, method in sampled if method))
    titles = ("as sampled, temperature 1", "at matched entropy")
    for axes, title, values in zip(panels, titles, (sampled, at_entropy), strict=False):
        for model in dict.fromkeys(name for name, _ in values):
            for number, family in enumerate(families):
                line = sorted(
                    (m.steps or 0, value)
                    for (n, m), value in values.items()
                    if n == model and m and replace(m, steps=None) == family
                )
                if not line:
                    continue
                x, y = np.array([k for k, _ in line]), np.array([v.value for _, v in line])
                low = np.array([v.value - v.low for _, v in line])
                high = np.array([v.high - v.value for _, v in line])
                axes.errorbar(
                    x, y, yerr=np.maximum(np.stack([low, high]), 0), color=_colour(evaluation, model),
                    marker=FAMILIES[number % len(FAMILIES)] if len(families) > 1 else _marker(evaluation, model),
                    linestyle=DASHES[number % len(DASHES)],
                    markersize=5, linewidth=1.7, elinewidth=1.1, capsize=2.5,
                )  # fmt: skip
        _reference_line(axes, evaluation, quality.name)
        axes.set_xscale("log", base=2)
        ticks = sorted({k for _, m in values for k in [m.steps if m else None] if k})
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.xaxis.set_tick_params(which="minor", bottom=False)
        axes.set(title=title, xlabel="steps", ylabel=quality.label)
        log_axis(axes.yaxis)
    _legend(canvas, evaluation, {model for model, _ in sampled}, families=families if len(families) > 1 else ())
    return finish(canvas, "steps", f"{headed(quality.label)} over steps with 95 % intervals; dashed: held-out data.")


TRAINING = (
    ("reward", ("reward",)),
    ("scorer accuracy", ("scorer_accuracy",)),
    ("KL to the teacher", ("kl", "first_kl")),
    ("entropy (nats)", ("entropy", "teacher_entropy")),
    ("gradient norm", ("gradient_norm", "scorer_gradient")),
    ("loss", ("loss", "validation_loss")),
)


@styled
def training_plot(metrics: Sequence[Mapping[str, float]]) -> Plot | None:
    """Curves of a training run from the lines of metrics.jsonl; None if there are too few."""
    present = [(title, [k for k in keys if sum(k in line for line in metrics) > 1]) for title, keys in TRAINING]
    present = [(title, keys) for title, keys in present if keys]
    if not present:
        return None
    canvas, panels = panels_of(len(present), height=2.3)
    for axes, (title, keys) in zip(panels, present, strict=True):
        for number, key in enumerate(keys):
            line = [(entry["step"], entry[key]) for entry in metrics if key in entry]
            x, y = np.array([k for k, _ in line]), np.array([v for _, v in line], dtype=np.float64)
            colour, window = SERIES[number], max(len(y) // 25, 1)
            axes.plot(x, y, color=colour, alpha=0.3 if window > 1 else 1.0, linewidth=1)
            if window > 1:
                axes.plot(x, _running_mean(y, window), color=colour, linewidth=1.7)
            if len(keys) > 1:
                axes.plot([], [], color=colour, label=key.replace("_", " "))
        if len(keys) > 1:
            axes.legend(
                loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, ncols=len(keys), fontsize=8.5,
                handlelength=1.2, columnspacing=1,
            )  # fmt: skip  # above the panel, where no curve is
        axes.set(title=title)
        axes.margins(x=0.02)
    for axes in panels[-2:]:
        axes.set_xlabel("step")
    return finish(canvas, "training", "Training: raw values pale, running mean in full colour.")


def _colour(evaluation: Evaluation, model: str) -> str:
    return SERIES[evaluation.evaluated.index(model) % len(SERIES)]


def _marker(evaluation: Evaluation, model: str) -> str:
    """The marker of a model, which says what its colour says."""
    return MARKERS[SERIES.index(_colour(evaluation, model))]


def _bars(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Distances to the ends of the 95 % intervals, [2, P]."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return np.maximum(np.stack([values - low, high - values]), 0)


def _end_labels(axes: Axes, ends: Sequence[End], apart: float = 10.5) -> None:
    """Label curves in one column, at least ``apart`` points from each other, beyond all of their intervals.

    The line to a label has the curve's colour, the label one that can be read.
    """
    scale = axes.figure.dpi / 72
    ordered = sorted(ends, key=lambda end: end.quality)
    places = np.array([axes.transData.transform((end.entropy, end.quality)) for end in ordered]).reshape(-1, 2) / scale
    right = max(end.right for end in ends)
    column = axes.transData.transform((right, ordered[0].quality))[0] / scale + 7
    heights = spread(places[:, 1], apart)
    for end, (left, own), height in zip(ordered, places, heights, strict=True):
        line = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            end.label, (end.entropy, end.quality), xytext=(column - left, height - own), textcoords="offset points",
            color=INK, fontsize=8.5, va="center", arrowprops=line,
        )  # fmt: skip


def spread(places: Float[np.ndarray, "n"], apart: float) -> Float[np.ndarray, "n"]:
    """Ascending places, moved as little as possible (in squares) so that neighbours are at least ``apart``.

    Isotonic regression of places minus rank times ``apart``, by pooling neighbours that are too near.
    """
    ranks = apart * np.arange(len(places))
    pools: list[tuple[float, int]] = []  # mean and size, ascending
    for value in places - ranks:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            before, more = pools.pop()
            mean, size = (before * more + mean * size) / (more + size), more + size
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools]) + ranks


def _reference_line(axes: Axes, evaluation: Evaluation, metric: str) -> None:
    data = evaluation.data
    if data is not None and metric in data.values:
        axes.axhline(data.values[metric].value, color=MUTED, linestyle=DASHED, linewidth=1)


def _legend(
    canvas: Figure, evaluation: Evaluation, models: set[str], *, held_out: str = "", families: Sequence[Method] = ()
) -> None:
    from matplotlib.lines import Line2D

    made = []
    for model in dict.fromkeys(row.model for row in evaluation.rows if row.model in models):
        marker = "" if families else _marker(evaluation, model)
        made.append(Line2D([], [], color=_colour(evaluation, model), linewidth=2, marker=marker, label=model))
    for number, family in enumerate(families):
        style, marker = DASHES[number % len(DASHES)], FAMILIES[number % len(FAMILIES)]
        made.append(Line2D([], [], color=MUTED, linestyle=style, marker=marker, label=family.label))
    if held_out:
        made.append(Line2D([], [], color=INK, marker="D", linestyle="", label=held_out))
    for line in made:
        line.set_markersize(4.5)
    legend_below(canvas, made)


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over ``window`` values, narrower at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    left = np.maximum(np.arange(len(values)) - window // 2, 0)
    right = np.minimum(np.arange(len(values)) + window // 2 + 1, len(values))
    return np.asarray((total[right] - total[left]) / (right - left))
