"""Every metric, with its interval, of one set of samples; the same for samples of a model, a file or the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from didi_core.evaluation.cache import StatisticsCache
from didi_core.evaluation.intervals import RESAMPLES, Interval, bootstrap, defined
from didi_core.evaluation.rows import MetricInfo
from didi_core.metrics.diversity import set_metrics
from didi_core.plugins import registry
from didi_core.types import Domain, Metric, Sample


@runtime_checkable
class HasDescription(Protocol):
    """A metric with a short description. One with a judge needs it: perplexities of two judges do not compare."""

    @property
    def description(self) -> str: ...


@runtime_checkable
class MatchesVariety(Protocol):
    """A metric of a set's variety that models are matched at, beside the entropy, since it moves where that does not.

    ``matched`` is true. Every temperature of a sweep is measured for it.
    """

    @property
    def matched(self) -> bool: ...


@runtime_checkable
class HasNetworks(Protocol):
    """A metric that computes with networks: a judge, the denoiser behind features. They belong on the run's device."""

    @property
    def networks(self) -> Sequence[nn.Module]: ...


@dataclass(frozen=True)
class Measured:
    """Values of a set with intervals, the statistics behind them, and the skipped metrics with reasons."""

    values: dict[str, Interval]
    statistics: dict[str, np.ndarray]
    skipped: dict[str, str]


def evaluate_samples(
    metrics: Sequence[Metric],
    samples: Sequence[Sample],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    cache: StatisticsCache | None = None,
) -> Measured:
    """Every metric of one set of samples; a metric with too few usable samples is skipped by name."""
    cache = cache or StatisticsCache(None)
    values, statistics, skipped = {}, {}, {}
    for metric in metrics:
        needed = max(metric.minimum, 1)
        if len(samples) < needed:
            skipped[metric.name] = f"needs at least {needed} samples, got {len(samples)}"
            continue
        rows = cache.statistics(metric, samples)
        usable = len(defined(rows)[0])
        if usable < needed:
            skipped[metric.name] = f"needs at least {needed} samples, and is defined for {usable} of {len(samples)}"
            continue
        statistics[metric.name], values[metric.name] = rows, bootstrap(metric, rows, resamples, seed)
    return Measured(values, statistics, skipped)


def all_metrics(domain: Domain) -> list[Metric]:
    """The metrics of the domain (quality, entropy first), of plugins, and general ones whose names are not taken."""
    own = registry().metrics(domain)
    named = {metric.name for metric in own}
    return [*own, *(metric for metric in set_metrics(domain) if metric.name not in named)]


def on_device(metrics: Sequence[Metric], device: torch.device) -> Sequence[Metric]:
    """The metrics, with their networks moved to the device."""
    for metric in metrics:
        for network in metric.networks if isinstance(metric, HasNetworks) else ():
            network.to(device)
    return metrics


def variety_metric(metrics: Sequence[Metric]) -> Metric | None:
    """The first metric after quality and entropy that models are matched at."""
    return next((m for m in metrics[2:] if isinstance(m, MatchesVariety) and m.matched), None)


def described(metrics: Sequence[Metric]) -> tuple[MetricInfo, ...]:
    """The metrics' entries in a report."""
    return tuple(
        MetricInfo(m.name, m.label, m.better, m.description if isinstance(m, HasDescription) else "") for m in metrics
    )
