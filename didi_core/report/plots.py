"""Plots of an evaluation and of a training run: frontier, quality over steps, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    data = next((row for row in evaluation.rows if row.kind == "data"), None)
    canvas, panels = panels_of(len(families), height=3.9)
    named: list[list[tuple[float, float, str, str]]] = []
    furthest: list[float] = []  # where the intervals of a panel end
    for axes, family in zip(panels, families, strict=True):
        ends: list[tuple[float, float, str, str]] = []
        right = -np.inf
        for (model, method), curve in evaluation.frontiers.items():
            if replace(method, steps=None) != family:
                continue
            steps = sorted(
                {m.steps or 0 for n, m in evaluation.frontiers if n == model and replace(m, steps=None) == family}
            )
            strength = 0.45 + 0.55 * (steps.index(method.steps or 0) + 1) / len(steps)
            colour, values = _colour(evaluation, model), np.exp(curve.log_quality)
            across = _bars(curve.entropy, curve.entropy_draws)
            axes.errorbar(
                curve.entropy,
                values,
                xerr=across,
                yerr=_bars(values, np.exp(curve.log_quality_draws)),
                color=colour, alpha=strength, marker=_marker(evaluation, model), markersize=3.5, linewidth=1.6,
                elinewidth=0.8,
            )  # fmt: skip
            right = max(right, float(np.max(curve.entropy + across[1])))
            end = int(np.argmax(curve.entropy))
            figure = str(method.steps or method.law or "1/token")
            ends.append((float(curve.entropy[end]), float(values[end]), figure, colour))
        if data is not None and evaluation.at is not None:
            axes.axvline(evaluation.at, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
            if quality.name in data.values:
                axes.plot(
                    evaluation.at, data.values[quality.name].value, marker="D", color=INK, markersize=6, linestyle=""
                )
        axes.set(title=family.label, xlabel=f"{entropy.label} (nats)", ylabel=quality.label)
        log_axis(axes.yaxis)
        axes.margins(x=0.1)
        named.append(ends)
        furthest.append(right)
    _legend(canvas, evaluation, {m for m, _ in evaluation.frontiers}, held_out="held-out data")
    lay_out(canvas)
    for axes, ends, right in zip(panels, named, furthest, strict=True):
        _end_labels(axes, ends, right)
    caption = (
        f"Frontier: each curve is one model at one number of steps (the figure at its end) over temperatures. "
        f"Lower and further right is better; models are compared on the dashed line, the "
        f"{entropy.label} of held-out data."
    )
    return finish(canvas, "frontier", caption)


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
                    marker=FAMILIES[number % 5] if len(families) > 1 else _marker(evaluation, model),
                    linestyle=DASHES[number % 4],
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
    ("KL to the teacher", ("kl",)),
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
    models = list(dict.fromkeys(row.model for row in evaluation.rows if row.kind in ("model", "file")))
    return SERIES[models.index(model) % len(SERIES)]


def _marker(evaluation: Evaluation, model: str) -> str:
    """The marker of a model, which says what its colour says."""
    return MARKERS[SERIES.index(_colour(evaluation, model))]


def _bars(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Distances to the ends of the 95 % intervals, [2, P]."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return np.maximum(np.stack([values - low, high - values]), 0)


def _end_labels(axes: Axes, ends: Sequence[tuple[float, float, str, str]], right: float, apart: float = 10.5) -> None:
    """Label curves in one column, at least ``apart`` points from each other, beyond ``right``, where intervals end.

    The line to a label has the curve's colour, the label one that can be read.
    """
    scale = axes.figure.dpi / 72
    ordered = sorted(ends, key=lambda end: end[1])
    places = np.array([axes.transData.transform(end[:2]) for end in ordered]).reshape(-1, 2) / scale
    column = axes.transData.transform((right, ordered[0][1]))[0] / scale + 7
    heights = spread(places[:, 1], apart)
    for (x, y, text, colour), (left, own), height in zip(ordered, places, heights, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            text, (x, y), xytext=(column - left, height - own), textcoords="offset points", color=INK, fontsize=8.5,
            va="center", arrowprops=line,
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
    data = next((row for row in evaluation.rows if row.kind == "data" and metric in row.values), None)
    if data is not None:
        axes.axhline(data.values[metric].value, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)


def _legend(
    canvas: Figure, evaluation: Evaluation, models: set[str], *, held_out: str = "", families: Sequence[Method] = ()
) -> None:
    from matplotlib.lines import Line2D

    made = []
    for model in dict.fromkeys(row.model for row in evaluation.rows if row.model in models):
        marker = "" if families else _marker(evaluation, model)
        made.append(Line2D([], [], color=_colour(evaluation, model), linewidth=2, marker=marker, label=model))
    for number, family in enumerate(families):
        style = DASHES[number % 4]
        made.append(Line2D([], [], color=MUTED, linestyle=style, marker=FAMILIES[number % 5], label=family.label))
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
