"""Tables of a report beside the two main ones: data of the plots, cost, precision, diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from didi_core.evaluation.conclusion import indistinct
from didi_core.evaluation.intervals import interval
from didi_core.evaluation.rows import Method, MetricInfo, Row, table_rows
from didi_core.evaluation.wording import change, figure, headed, signed
from didi_core.report.record import Report
from didi_core.report.tables import estimate

# Metrics of variety and naturalness, beside a domain's own metrics for which higher is better.
VARIETY = ("entropy", "distinct", "repeated", "length", "length_distance", "energy")
CURVE_LINES = 20  # of a training curve's table
METHOD = "method"  # header of the second column, where there is one
JOINT = "joint_fp32"  # the sampler of published code


@dataclass(frozen=True)
class Table:
    """Cells as text; ``words`` are the columns of text, which are aligned left."""

    title: str
    about: str
    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0, 1)

    @property
    def method(self) -> str:
        """The method that all lines share; '' where there are several, or no such column."""
        methods = {line[1] for line in self.cells} if METHOD in self.headers else set()
        return methods.pop() if len(methods) == 1 else ""

    def shorter(self) -> Table:
        """Without the column of a method that all lines share, which ``about`` then names."""
        if not self.method:
            return self
        about = f"{self.about} All lines: {self.method}.".lstrip()
        cells = tuple(_without_second(line) for line in self.cells)
        words = tuple(i - (i > 1) for i in self.words if i != 1)
        return Table(self.title, about, _without_second(self.headers), cells, words)


def frontier_data(report: Report) -> Table | None:
    """Points of the frontier plot."""
    quality, entropy = (report.evaluation.metrics + report.evaluation.metrics[-1:])[:2]
    cells = []
    for (model, method), curve in report.evaluation.frontiers.items():
        for i, temperature in enumerate(curve.temperatures):
            x = interval(float(curve.entropy[i]), curve.entropy_draws[:, i], curve.n)
            y = interval(float(np.exp(curve.log_quality[i])), np.exp(curve.log_quality_draws[:, i]), curve.n)
            cells.append((model, method.label, _steps(method), f"{temperature:g}", estimate(x), estimate(y)))
    headers = ("", "method", "steps", "T", entropy.label, quality.label)
    return Table("Data of the frontier", "", headers, tuple(cells)) if cells else None


def difference_table(report: Report) -> Table | None:
    """Models against the baseline at equal calls, of a quality that is compared as it is."""
    found, quality = report.findings.differences, report.evaluation.metrics[0]
    cells = tuple(
        (
            item.model,
            item.method.label,
            _steps(item.method),
            estimate(item.other),
            estimate(item.own),
            signed(item.difference),
            item.verdict,
        )
        for item in found
    )
    headers = ("", "method", "steps", report.findings.baseline, "model", "difference", "verdict")
    about = "The same tasks for both, resampled in pairs."
    return Table(f"{headed(quality.label)} at equal calls", about, headers, cells, (0, 1, 6)) if cells else None


def steps_data(report: Report) -> Table | None:
    """Points of the plot of quality over steps."""
    quality = report.evaluation.metrics[0]
    cells = [
        (
            row.model,
            row.method.label,
            _steps(row.method),
            estimate(row.values.get(quality.name)),
            estimate(found.quality)
            if (found := report.findings.matched.get((row.model, row.method))) and found.usable
            else "–",
        )
        for row in table_rows(report.evaluation.rows)
        if row.method is not None and row.method.steps is not None
    ]
    headers = ("", "method", "steps", f"{quality.label}, as sampled", f"{quality.label}, at matched entropy")
    return Table("Data of quality over steps", "", headers, tuple(cells)) if cells else None


def training_data(metrics: Sequence[Mapping[str, float]]) -> Table | None:
    """About twenty lines of the training curves, from the lines of metrics.jsonl."""
    from didi_core.report.plots import TRAINING

    known = [key for _, keys in TRAINING for key in keys if any(key in line for line in metrics)]
    lines = metrics[:: max(len(metrics) // CURVE_LINES, 1)]
    cells = tuple((f"{line['step']:g}", *(figure(line.get(key)) for key in known)) for line in lines if "step" in line)
    headers = ("step", *(key.replace("_", " ") for key in known))
    return Table("Data of the training curves", "", headers, cells, words=()) if known and cells else None


def cost_table(report: Report) -> Table | None:
    """Network calls and time of every model, method and number of steps."""
    cells = []
    unit = next((m.label for m in report.evaluation.metrics if m.name == "length" and m.label != "length"), "tokens")
    for row in _model_rows(report):
        if row.nfe is None or row.method is None:
            continue
        length = row.values.get("length")
        tokens = row.rate * length.value if row.rate and length else None
        cells.append(
            (
                row.model,
                row.method.label,
                _steps(row.method),
                f"{row.nfe.denoiser:.4g}",
                f"{row.nfe.scorer:.4g}",
                f"{row.nfe.total:.4g}",
                figure(row.seconds) if row.seconds is not None else "–",
                f"{row.n:,}",
                figure(row.rate) if row.rate else "–",
                figure(tokens) if tokens else "–",
            )
        )
    about = (
        "NFE: calls per sample of every network, in forward equivalents (forward and backward are three). Seconds: in "
        "the sampler, for all samples, after a warm-up, until the device finished. Samples per second: median over "
        "batches."
    )
    headers = (
        "", "method", "steps", "denoiser", "scorer", "NFE", "seconds", "samples", "samples / s", f"{unit} / s"
    )  # fmt: skip
    return Table("Cost", about, headers, tuple(cells)) if cells else None


def diversity_table(report: Report) -> Table:
    """Variety, repetition, lengths and distances of distributions, beside held-out data and its controls."""
    chosen = [metric for metric in report.evaluation.metrics[1:] if _is_variety(metric)]
    several = len({row.method.label for row in report.evaluation.rows if row.method}) > 1
    cells = []
    for row in table_rows(report.evaluation.rows):
        values = [estimate(row.values.get(metric.name)) for metric in chosen]
        method = [row.method.label if row.method else ""] if several else []
        cells.append((row.model, *method, _steps(row.method), *values))
    headers = ("", *(["method"] if several else []), "steps", *(metric.label for metric in chosen))
    return Table("Diversity", _blind(report, chosen), headers, tuple(cells), words=(0, 1) if several else (0,))


def variety_table(report: Report) -> Table | None:
    """Models against the baseline at matched variety; None where the domain has no metric for that."""
    variety, quality = report.evaluation.variety, report.evaluation.metrics[0]
    if variety is None or not report.findings.at_variety:
        return None
    cells = tuple(
        (
            item.model,
            item.method.label,
            _steps(item.method),
            figure(item.at),
            estimate(item.baseline_quality),
            estimate(item.model_quality),
            change(item.ratio) if item.ratio else "–",
            item.verdict,
        )
        for item in report.findings.at_variety
    )
    about = (
        f"The entropy of single samples hardly moves with temperature here, so models are also compared at one "
        f"{variety.label}: the value nearest to that of the held-out data which both sweeps of temperature reach."
    )
    headers = ("", "method", "steps", variety.label, report.findings.baseline, "model", "difference", "verdict")
    return Table(f"{headed(quality.label)} at matched {variety.label}", about, headers, cells, words=(0, 1, 7))


def precision_pairs(report: Report) -> list[tuple[Row, Row]]:
    """Rows of the exact draw, each with that of the fp32 joint draw of the same model, grid, steps and temperature."""
    rows = [row for row in report.evaluation.rows if row.method is not None]
    pairs = []
    for joint in rows:
        if joint.method is None or joint.method.sampler != JOINT:
            continue
        wanted = replace(joint.method, sampler="ancestral", law="iid")
        pairs += [
            (row, joint)
            for row in rows
            if (row.model, row.method, row.temperature) == (joint.model, wanted, joint.temperature)
        ]
    return pairs


def precision_table(report: Report) -> Table | None:
    """The exact draw beside that of published code."""
    quality, entropy = (report.evaluation.metrics + report.evaluation.metrics[-1:])[:2]
    cells = tuple(
        (
            exact.model,
            exact.method.grid if exact.method else "",
            _steps(exact.method),
            f"{exact.temperature:g}",
            *(estimate(row.values.get(metric.name)) for metric in (quality, entropy) for row in (exact, joint)),
        )
        for exact, joint in precision_pairs(report)
    )
    columns = [f"{metric.label}, {name}" for metric in (quality, entropy) for name in ("exact", "fp32 joint")]
    about = (
        "Published code draws token and mask jointly from fp32 noise of 24 bits, which never draws tokens rarer than "
        "about 2^-24 at each step. With many steps this acts as a lower temperature. See docs/precision.md."
    )
    return Table("Precision", about, ("", "grid", "steps", "T", *columns), cells) if cells else None


def _without_second(line: tuple[str, ...]) -> tuple[str, ...]:
    return line[:1] + line[2:]


def _is_variety(metric: MetricInfo) -> bool:
    return metric.name in VARIETY or metric.name.startswith("distinct_") or metric.better == "higher"


def _blind(report: Report, chosen: Sequence[MetricInfo]) -> str:
    """A sentence on controls that metrics do not distinguish from data; a failure of that kind would go unnoticed."""
    failures = []
    for metric in chosen:
        failed = indistinct(report.evaluation, metric)
        if failed:
            failures.append(f"{metric.label} ({', '.join(failed)})")
    blind = f"Metrics that do not notice the negative controls in brackets: {'; '.join(failures)}. " if failures else ""
    return blind + "Numbers of a set (distinct, clusters) depend on its size: compare rows of equal size."


def _model_rows(report: Report) -> list[Row]:
    return [row for row in table_rows(report.evaluation.rows) if row.kind == "model"]


def _steps(method: Method | None) -> str:
    return str(method.steps) if method is not None and method.steps is not None else ""
