"""Pictures: frontier, quality over steps, training curves; as PNG files and as SVG that follows the page's light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from didi_core.compare import Findings, figure, table_rows
from didi_core.evaluate import Evaluation, Method

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each colour of a figure is one CSS variable of the page: the SVG is drawn in these and then renamed.
INK, MUTED, GRID = "#1f2430", "#6b7280", "#e3e6eb"
SERIES = ("#3b6fb6", "#d1571f", "#2a8c6e", "#8a5bb5", "#b08a1e", "#5b6472")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", **{colour: f"series-{i}" for i, colour in enumerate(SERIES)}}
STYLE = {
    "font.size": 10.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Plot:
    """One picture: file name, caption, PNG bytes, and an SVG element to stand in a page."""

    name: str
    caption: str
    png: bytes
    svg: str


def evaluation_plots(evaluation: Evaluation, findings: Findings) -> list[Plot]:
    """Frontier and quality over steps, whichever the evaluation has the data for."""
    plots = []
    if evaluation.frontiers:
        plots.append(frontier_plot(evaluation))
    if any(row.method and row.method.steps is not None for row in evaluation.rows):
        plots.append(steps_plot(evaluation, findings))
    return plots


def frontier_plot(evaluation: Evaluation) -> Plot:
    """Entropy against quality (log scale): a curve per model and number of steps, a panel per law and grid."""
    families = list(dict.fromkeys(replace(method, steps=None) for _, method in evaluation.frontiers))
    quality, entropy = evaluation.metrics[:2]
    data = next((row for row in evaluation.rows if row.kind == "data"), None)
    canvas, panels = _panels(len(families), height=3.9)
    for axes, family in zip(panels, families, strict=True):
        for (model, method), curve in evaluation.frontiers.items():
            if replace(method, steps=None) != family:
                continue
            steps = sorted({m.steps or 0 for n, m in evaluation.frontiers if n == model and replace(m, steps=None) == family})
            strength = 0.45 + 0.55 * (steps.index(method.steps or 0) + 1) / len(steps)
            colour, values = _colour(evaluation, model), np.exp(curve.log_quality)
            axes.errorbar(
                curve.entropy,
                values,
                xerr=_bars(curve.entropy, curve.entropy_draws),
                yerr=_bars(values, np.exp(curve.log_quality_draws)),
                color=colour, alpha=strength, marker="o", markersize=3.5, linewidth=1.6, elinewidth=0.8,
            )  # fmt: skip
            end = int(np.argmax(curve.entropy))
            axes.annotate(
                str(method.steps or "1/token"), (curve.entropy[end], values[end]), xytext=(5, 0),
                textcoords="offset points", color=colour, fontsize=9, va="center",
            )  # fmt: skip
        if data is not None and evaluation.at is not None:
            axes.axvline(evaluation.at, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
            if quality.name in data.values:
                axes.plot(evaluation.at, data.values[quality.name].value, marker="D", color=INK, markersize=6, linestyle="")
        axes.set(title=_family_label(family), xlabel=f"{entropy.label} (nats)", ylabel=quality.label)
        _log_axis(axes.yaxis)
        axes.margins(x=0.09)
    _legend(panels[0], evaluation, {m for m, _ in evaluation.frontiers}, held_out="held-out data")
    caption = (
        f"Frontier: each curve is one model at one number of steps (the figure at its end) over temperatures. "
        f"Lower and further right is better; models are compared on the dashed line, the {entropy.label} of held-out data."
    )
    return _finish(canvas, "frontier", caption)


def steps_plot(evaluation: Evaluation, findings: Findings) -> Plot:
    """Quality over steps with intervals: as sampled at temperature 1 and, where it was reached, at matched entropy."""
    quality = evaluation.metrics[0]
    matched_any = any(value.usable for (_, m), value in findings.matched.items() if m.steps is not None)
    canvas, panels = _panels(2 if matched_any else 1, height=3.7)
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
                    (m.steps or 0, value) for (n, m), value in values.items() if n == model and m and replace(m, steps=None) == family
                )
                if not line:
                    continue
                x, y = np.array([k for k, _ in line]), np.array([v.value for _, v in line])
                low = np.array([v.value - v.low for _, v in line])
                high = np.array([v.high - v.value for _, v in line])
                axes.errorbar(
                    x, y, yerr=np.maximum(np.stack([low, high]), 0), color=_colour(evaluation, model), marker="osD^v"[number % 5],
                    linestyle=("-", "--", ":", "-.")[number % 4], markersize=5, linewidth=1.7, elinewidth=1.1, capsize=2.5,
                )  # fmt: skip
        _reference_line(axes, evaluation, quality.name)
        axes.set_xscale("log", base=2)
        ticks = sorted({k for _, m in values for k in [m.steps if m else None] if k})
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.xaxis.set_tick_params(which="minor", bottom=False)
        axes.set(title=title, xlabel="steps", ylabel=quality.label)
        _log_axis(axes.yaxis)
    _legend(panels[0], evaluation, {model for model, _ in sampled}, families=families if len(families) > 1 else ())
    return _finish(canvas, "steps", f"{quality.label.capitalize()} over steps with 95 % intervals; dashed: held-out data.")


TRAINING = (
    ("reward", ("reward",)),
    ("scorer accuracy", ("scorer_accuracy",)),
    ("KL to the teacher", ("kl",)),
    ("entropy (nats)", ("entropy", "teacher_entropy")),
    ("gradient norm", ("gradient_norm", "scorer_gradient")),
    ("loss", ("loss", "validation_loss")),
)


def training_plot(metrics: Sequence[Mapping[str, float]]) -> Plot | None:
    """Curves of a training run from the lines of metrics.jsonl; None when there are too few."""
    present = [(title, [k for k in keys if sum(k in line for line in metrics) > 1]) for title, keys in TRAINING]
    present = [(title, keys) for title, keys in present if keys]
    if not present:
        return None
    canvas, panels = _panels(len(present), height=2.3)
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
            axes.legend(fontsize=8.5, loc="best", handlelength=1.2)
        axes.set(title=title)
        axes.margins(x=0.02)
    for axes in panels[-2:]:
        axes.set_xlabel("step")
    return _finish(canvas, "training", "Training: raw values pale, running mean in full colour.")


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of up to two columns; panels beyond ``count`` are absent."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(count, 2)
    rows = -(-count // columns)
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        canvas = Figure(figsize=(6.2 if columns == 1 else 8.6, height * rows))
        grid = canvas.subplots(rows, columns, squeeze=False).ravel()
        for spare in grid[count:]:
            spare.remove()
    return canvas, list(grid[:count])


def _finish(canvas: Figure, name: str, caption: str) -> Plot:
    import matplotlib as mpl

    png, svg = io.BytesIO(), io.StringIO()
    # The salt makes identifiers repeatable and different between pictures of one page.
    with mpl.rc_context({**STYLE, "svg.hashsalt": f"didi-{name}"}):  # type: ignore[arg-type]
        canvas.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})  # type: ignore[arg-type]
    return Plot(name, caption, png.getvalue(), _inline(svg.getvalue(), caption))


def _inline(svg: str, label: str) -> str:
    """An SVG file as an element of an HTML page: no addresses, no fixed size, colours as CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    text = f'{head} role="img" aria-label="{_escape(label)}">{rest}'
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _colour(evaluation: Evaluation, model: str) -> str:
    models = list(dict.fromkeys(row.model for row in evaluation.rows if row.kind in ("model", "file")))
    return SERIES[models.index(model) % len(SERIES)]


def _bars(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Distances to the ends of the 95 % intervals, [2, P]."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return np.maximum(np.stack([values - low, high - values]), 0)


def _reference_line(axes: Axes, evaluation: Evaluation, metric: str) -> None:
    data = next((row for row in evaluation.rows if row.kind == "data" and metric in row.values), None)
    if data is not None:
        axes.axhline(data.values[metric].value, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)


def _log_axis(axis: Any) -> None:
    """Logarithmic, with plain numbers at round values."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set_yscale("log")
    low, high = axis.get_view_interval()
    subs = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0) if high / low > 8 else tuple(np.arange(1, 10, 0.5 if high / low < 2.5 else 1))
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: figure(value, 2)))
    axis.set_minor_formatter(NullFormatter())


def _legend(
    axes: Axes, evaluation: Evaluation, models: set[str], *, held_out: str = "", families: Sequence[Method] = ()
) -> None:
    for model in dict.fromkeys(row.model for row in evaluation.rows if row.model in models):
        axes.plot([], [], color=_colour(evaluation, model), linewidth=2, label=model)
    for number, family in enumerate(families):
        style = ("-", "--", ":", "-.")[number % 4]
        axes.plot([], [], color=MUTED, linestyle=style, marker="osD^v"[number % 5], markersize=4, label=_family_label(family))
    if held_out:
        axes.plot([], [], color=INK, marker="D", linestyle="", label=held_out)
    axes.legend(fontsize=9, loc="best")


def _family_label(family: Method) -> str:
    return replace(family, steps=0).label if family.sampler != "first_hitting" else family.label


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over ``window`` values, narrower at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    left = np.maximum(np.arange(len(values)) - window // 2, 0)
    right = np.minimum(np.arange(len(values)) + window // 2 + 1, len(values))
    return np.asarray((total[right] - total[left]) / (right - left))
