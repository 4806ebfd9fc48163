"""Evaluation: the same numbers, with intervals, for any set of samples; models compared over steps and temperatures.

It reads samples, not models: a model's samples, a file's, the held-out data and its negative controls go through one
function. Every temperature of a sweep is measured for quality and entropy (the frontier); the metrics that cost more
are measured at temperature 1, where the table is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import nn

from didi_core.controls import negative_controls
from didi_core.drawing import Curve, Drawing
from didi_core.errors import InputError
from didi_core.frontier import Frontier, SweepPoint, frontier
from didi_core.generate import SamplerSettings
from didi_core.plugins import registry
from didi_core.random import derive_seed
from didi_core.sample_cache import SampleCache, model_hash
from didi_core.statistics import RESAMPLES, Interval, bootstrap
from didi_core.training.loop import Reporter, Silent
from didi_core.types import NFE, Domain, Metric, Sample

HELD_OUT = "held-out data"


@dataclass(frozen=True)
class Method:
    """How a row's samples were written, apart from temperature: rows that share it lie on one frontier."""

    sampler: str
    law: str
    grid: str
    steps: int | None  # None where the number of calls follows from the length (first_hitting)
    precision: str = "exact"
    top_p: float = 1.0

    @property
    def label(self) -> str:
        """Sampler, law and grid in a few words; defaults that say nothing are left out."""
        words = [] if self.sampler == "ancestral" else [self.sampler.replace("_", " ")]
        words += [self.law, self.grid] if self.steps is not None else []
        words += [self.precision] if self.precision != "exact" else []
        words += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return " · ".join(words)


@dataclass(frozen=True)
class Row:
    """One set of samples and what was measured of it.

    method, temperature: None for data, controls and files. seconds: spent in the sampler for all n samples.
    skipped: metrics that were not computed, and why.
    """

    model: str
    kind: str  # "model", "data", "control" or "file"
    n: int
    values: Mapping[str, Interval]
    method: Method | None = None
    temperature: float | None = None
    seeds: tuple[int, ...] = ()
    nfe: NFE | None = None
    seconds: float | None = None
    model_hash: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> float | None:
        """Samples per second."""
        return self.n / self.seconds if self.seconds else None


@runtime_checkable
class HasReferenceStatistics(Protocol):
    """A domain that carries statistics of held-out data instead of the data, whose licence may not let it."""

    def reference_statistics(self) -> Mapping[str, Mapping[str, np.ndarray]] | None:
        """Statistics [n, k] by set and metric name, held-out data first; None where it has the data itself."""
        ...


@runtime_checkable
class HasDescription(Protocol):
    """A metric that says in a few words what it is; a judge must, since perplexities of two judges do not compare."""

    @property
    def description(self) -> str: ...


@dataclass(frozen=True)
class MetricInfo:
    """What a report must know of a metric."""

    name: str
    label: str
    better: str
    description: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Everything measured: rows (references first), a frontier per (model, method), and a few samples to read.

    metrics: the first is the quality, the second the entropy.
    at: the entropy of the held-out data, where models are matched.
    """

    domain: str
    metrics: tuple[MetricInfo, ...]
    rows: tuple[Row, ...]
    frontiers: Mapping[tuple[str, Method], Frontier]
    at: float | None
    examples: Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Measured:
    """Values of a set with intervals, the statistics they came from, and the metrics that were skipped."""

    values: dict[str, Interval]
    statistics: dict[str, np.ndarray]
    skipped: dict[str, str]


def evaluate_samples(
    metrics: Sequence[Metric], samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = 0
) -> Measured:
    """Every metric of one set of samples; a metric that needs more samples than there are is skipped by name."""
    values, statistics, skipped = {}, {}, {}
    for metric in metrics:
        if len(samples) < max(metric.minimum, 1):
            skipped[metric.name] = f"needs at least {max(metric.minimum, 1)} samples, got {len(samples)}"
            continue
        statistics[metric.name] = np.asarray(metric.statistics(samples), dtype=np.float64)
        values[metric.name] = bootstrap(metric, statistics[metric.name], resamples, seed)
    return Measured(values, statistics, skipped)


def sweep(base: SamplerSettings, steps: Sequence[int], temperatures: Sequence[float] = (1.0,)) -> list[SamplerSettings]:
    """Settings for every number of steps at every temperature, otherwise like ``base``."""
    return [replace(base, steps=k, temperature=t) for k, t in itertools.product(steps, temperatures)]


def reference_rows(
    domain: Domain, metrics: Sequence[Metric], num: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[list[Row], list[Sample]]:
    """Rows of the held-out data and its negative controls, and the data (empty where only statistics are known)."""
    known = domain.reference_statistics() if isinstance(domain, HasReferenceStatistics) else None
    if known is not None:
        return [_known_row(name, found, metrics, resamples, seed) for name, found in known.items()], []
    held_out = domain.held_out(num, derive_seed(seed, "held out") % 2**31)
    if not held_out:
        raise InputError(f"domain {domain.name!r} has no held-out samples to compare with.")
    sets = {HELD_OUT: held_out, **negative_controls(domain, held_out, seed)}
    rows = []
    for name, samples in sets.items():
        measured = evaluate_samples(metrics, samples, resamples=resamples, seed=seed)
        kind = "data" if name == HELD_OUT else "control"
        rows.append(Row(name, kind, len(samples), measured.values, skipped=measured.skipped))
    return rows, held_out


def _known_row(name: str, found: Mapping[str, np.ndarray], metrics: Sequence[Metric], resamples: int, seed: int) -> Row:
    """A reference row from kept statistics; a metric that they lack is skipped by name."""
    values = {m.name: bootstrap(m, found[m.name], resamples, seed) for m in metrics if m.name in found}
    skipped = {m.name: "not among the bundled statistics" for m in metrics if m.name not in found}
    kind = "data" if name == HELD_OUT else "control"
    return Row(name, kind, max(map(len, found.values())), values, skipped=skipped)


def evaluate_files(
    domain: Domain, sets: Mapping[str, Sequence[Sample]], *, num: int, seed: int = 0, resamples: int = RESAMPLES
) -> Evaluation:
    """Rows for named sets of samples, whoever made them, beside ``num`` held-out samples and their controls."""
    metrics = registry().metrics(domain)
    rows, held_out = reference_rows(domain, metrics, num, seed=seed, resamples=resamples)
    for name, samples in sets.items():
        measured = evaluate_samples(metrics, samples, resamples=resamples, seed=seed)
        rows.append(Row(name, "file", len(samples), measured.values, skipped=measured.skipped))
    examples = {
        **({HELD_OUT: held_out[:3]} if held_out else {}),
        **{name: samples[:3] for name, samples in sets.items()},
    }
    return Evaluation(domain.name, _described(metrics), tuple(rows), {}, _entropy(metrics, rows), examples)


def evaluate_models(
    domain: Domain,
    models: Mapping[str, tuple[nn.Module, nn.Module | None]],
    plan: Mapping[str, Sequence[SamplerSettings]] | Sequence[SamplerSettings],
    *,
    num: int,
    seeds: Sequence[int] = (0,),
    cache_dir: Path | None = None,
    reporter: Reporter | None = None,
    length: str | int | None = None,
    batch_size: int = 64,
    entropy_at: Mapping[str, Curve] | None = None,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Sample every model by its plan, ``num`` samples for each seed, and measure all of it.

    Args:
        models: (denoiser, scorer or None) by name; by custom ``teacher`` and ``student``.
        plan: settings by model, or one list for all. Settings that differ in temperature only make a frontier.
        seeds: sampling seeds; their samples are pooled in one row.
        cache_dir: where sets of samples are kept (``<run>/evaluation``); what is there is not drawn again.
        entropy_at: NLL curves by model, for ``grid=optimised``.
    """
    if not models or not seeds:
        raise InputError("nothing to evaluate: give at least one model and one seed.")
    plans = {name: list(plan[name] if isinstance(plan, Mapping) else plan) for name in models}
    reporter = reporter or Silent()
    drawing = Drawing(domain, num, tuple(seeds), SampleCache(cache_dir), reporter, length, batch_size)
    metrics = registry().metrics(domain)
    rows, held_out = reference_rows(domain, metrics, num * len(seeds), seed=seeds[0], resamples=resamples)
    examples: dict[str, Sequence[Sample]] = {HELD_OUT: held_out[:3]} if held_out else {}
    points: dict[tuple[str, Method], list[SweepPoint]] = {}
    reporter.start("evaluate", sum(map(len, plans.values())) * num * len(seeds))
    for name, (denoiser, scorer) in models.items():
        digests = (model_hash(denoiser), model_hash(scorer))
        curve = (entropy_at or {}).get(name)
        for settings in plans[name]:
            made = drawing.all_seeds(denoiser, scorer, settings, digests, curve)
            read = metrics if _is_table(settings, plans[name]) else metrics[:2]
            measured = evaluate_samples(read, made.samples, resamples=resamples, seed=seeds[0])
            row = Row(
                name,
                "model",
                len(made.samples),
                measured.values,
                method_of(settings),
                settings.temperature,
                tuple(seeds),
                made.nfe,
                made.seconds,
                digests[0],
                measured.skipped,
            )
            rows.append(row)
            quality, entropy = (measured.statistics.get(metric.name) for metric in metrics[:2])
            if quality is not None and entropy is not None and row.method is not None:
                points.setdefault((name, row.method), []).append(SweepPoint(settings.temperature, quality, entropy))
            if _is_table(settings, plans[name]):
                examples[_example_label(name, settings)] = made.samples[:3]
    reporter.stop()
    frontiers = {
        key: frontier(metrics[0], metrics[1], found, seed=seeds[0], resamples=resamples)
        for key, found in points.items()
        if metrics[0].better == "lower"
    }
    return Evaluation(domain.name, _described(metrics), tuple(rows), frontiers, _entropy(metrics, rows), examples)


def method_of(settings: SamplerSettings) -> Method:
    """The method of sampler settings."""
    steps = settings.steps if settings.make().stepwise else None
    grid = f"power {settings.power:g}" if settings.grid == "power" else settings.grid
    return Method(settings.sampler, settings.law, grid, steps, settings.precision, settings.top_p)


def _is_table(settings: SamplerSettings, plan: Sequence[SamplerSettings]) -> bool:
    """Whether these settings make a row of the table: the temperature of their sweep that is nearest to 1."""
    swept = [s.temperature for s in plan if method_of(s) == method_of(settings)]
    return settings.temperature == min(swept, key=lambda t: (abs(t - 1), t))


def _example_label(name: str, settings: SamplerSettings) -> str:
    method = method_of(settings)
    steps = f", {method.steps} steps" if method.steps is not None else ""
    return f"{name}{steps} ({method.label})"


def _described(metrics: Sequence[Metric]) -> tuple[MetricInfo, ...]:
    return tuple(
        MetricInfo(m.name, m.label, m.better, m.description if isinstance(m, HasDescription) else "") for m in metrics
    )


def _entropy(metrics: Sequence[Metric], rows: Sequence[Row]) -> float | None:
    """Entropy of the held-out data, where models are matched."""
    if len(metrics) < 2:
        return None
    for row in rows:
        if row.kind == "data" and metrics[1].name in row.values:
            return row.values[metrics[1].name].value
    return None
