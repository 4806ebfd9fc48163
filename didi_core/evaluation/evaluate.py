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

from torch import nn

from didi_core.errors import InputError
from didi_core.evaluation.cache import SampleCache, StatisticsCache
from didi_core.evaluation.drawing import Curve, Drawing
from didi_core.evaluation.frontier import Frontier, SweepPoint, frontier
from didi_core.evaluation.held_out import overlap_notes, reference_rows
from didi_core.evaluation.intervals import RESAMPLES
from didi_core.evaluation.measure import all_metrics, described, evaluate_samples
from didi_core.evaluation.rows import HELD_OUT, Evaluation, Method, Row
from didi_core.progress import Reporter, Silent
from didi_core.sampling.generate import Generated, SamplerSettings
from didi_core.storage.fingerprint import model_hash
from didi_core.storage.sample_files import SampleSet
from didi_core.types import Domain, Metric, Sample

EXAMPLES = 3  # samples of each set that a report shows


def sweep(base: SamplerSettings, steps: Sequence[int], temperatures: Sequence[float] = (1.0,)) -> list[SamplerSettings]:
    """Settings for every number of steps at every temperature, otherwise like ``base``."""
    return [replace(base, steps=k, temperature=t) for k, t in itertools.product(steps, temperatures)]


def evaluate_files(
    domain: Domain,
    sets: Mapping[str, SampleSet | Sequence[Sample]],
    *,
    num: int,
    reference: Sequence[Sample] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    cache_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Rows for named sets of samples, whoever made them, beside the reference and its controls.

    The reference is ``num`` held-out samples of the domain, or the ``reference`` samples that are given.
    """
    metrics, cache, reporter = all_metrics(domain), StatisticsCache(cache_dir), reporter or Silent()
    reporter.start("evaluate", sum(len(_samples(found)) for found in sets.values()))
    rows, held_out = reference_rows(
        domain, metrics, num, given=reference, seed=seed, resamples=resamples, cache=cache
    )
    notes = list(overlap_notes(domain, held_out))
    examples: dict[str, Sequence[Sample]] = {HELD_OUT: held_out[:EXAMPLES]} if held_out else {}
    for name, found in sets.items():
        samples = _samples(found)
        measured = evaluate_samples(metrics, samples, resamples=resamples, seed=seed, cache=cache)
        rows.append(Row(name, "file", len(samples), measured.values, skipped=measured.skipped))
        notes += found.notes if isinstance(found, SampleSet) else ()
        examples[name] = samples[:EXAMPLES]
        reporter.advance(by=len(samples))
    reporter.stop()
    return Evaluation(
        domain.name, described(metrics), tuple(rows), {}, _entropy(metrics, rows), examples, tuple(notes)
    )


def _samples(found: SampleSet | Sequence[Sample]) -> Sequence[Sample]:
    return found.samples if isinstance(found, SampleSet) else found


def evaluate_models(
    domain: Domain,
    models: Mapping[str, tuple[nn.Module, nn.Module | None]],
    plan: Mapping[str, Sequence[SamplerSettings]] | Sequence[SamplerSettings],
    *,
    num: int,
    num_at: Mapping[int, int] | None = None,
    seeds: Sequence[int] = (0,),
    cache_dir: Path | None = None,
    reporter: Reporter | None = None,
    length: str | int | None = None,
    batch_size: int = 64,
    entropy_at: Mapping[str, Curve] | None = None,
    reference: Sequence[Sample] = (),
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Sample every model by its plan, ``num`` samples for each seed, and measure all of it.

    Args:
        models: (denoiser, scorer or None) by name; by custom ``teacher`` and ``student``.
        plan: settings by model, or one list for all. Settings that differ in temperature only make a frontier.
        num_at: another number of samples for some numbers of steps.
        seeds: sampling seeds; their samples are pooled in one row.
        cache_dir: where samples and costly statistics are kept (``<run>/evaluation``); nothing there is made again.
        entropy_at: NLL curves by model, for ``grid=optimised``.
        reference: natural samples that stand in for the domain's held-out ones.
    """
    if not models or not seeds:
        raise InputError("nothing to evaluate: give at least one model and one seed.")
    plans = {name: list(plan[name] if isinstance(plan, Mapping) else plan) for name in models}
    reporter = reporter or Silent()

    def counts(settings: SamplerSettings) -> int:
        return (num_at or {}).get(settings.steps, num)

    drawing = Drawing(domain, counts, tuple(seeds), SampleCache(cache_dir), reporter, length, batch_size)
    metrics, cache = all_metrics(domain), StatisticsCache(cache_dir)
    rows, held_out = reference_rows(
        domain, metrics, num * len(seeds), given=reference, seed=seeds[0], resamples=resamples, cache=cache
    )
    findings = _Findings(metrics, cache, seeds, resamples, rows)
    if held_out:
        findings.examples[HELD_OUT] = held_out[:EXAMPLES]
    reporter.start("evaluate (denoiser calls)", sum(drawing.cost(each) for plan in plans.values() for each in plan))
    for name, (denoiser, scorer) in models.items():
        digests = (model_hash(denoiser), model_hash(scorer))
        for settings in plans[name]:
            made = drawing.all_seeds(denoiser, scorer, settings, digests, (entropy_at or {}).get(name))
            findings.add(name, settings, made, digests[0], _is_table(settings, plans[name]))
    reporter.stop()
    return Evaluation(
        domain.name,
        described(metrics),
        tuple(findings.rows),
        findings.frontiers(),
        _entropy(metrics, findings.rows),
        findings.examples,
        overlap_notes(domain, held_out),
    )


@dataclass
class _Findings:
    """What the measured sets add up to: rows, points of the frontiers, examples to read."""

    metrics: Sequence[Metric]
    cache: StatisticsCache
    seeds: Sequence[int]
    resamples: int
    rows: list[Row]
    points: dict[tuple[str, Method], list[SweepPoint]] = field(default_factory=dict)
    examples: dict[str, Sequence[Sample]] = field(default_factory=dict)

    def add(self, name: str, settings: SamplerSettings, made: Generated, digest: str, in_table: bool) -> None:
        """Measure one set of a model's samples: quality and entropy, and where it makes a row of the table the rest."""
        read = self.metrics if in_table else self.metrics[:2]
        measured = evaluate_samples(
            read, made.samples, resamples=self.resamples, seed=self.seeds[0], cache=self.cache
        )
        method = method_of(settings)
        self.rows.append(
            Row(
                name,
                "model",
                len(made.samples),
                measured.values,
                method,
                settings.temperature,
                tuple(self.seeds),
                made.nfe,
                made.seconds,
                digest,
                measured.skipped,
                made.rates,
            )
        )
        quality, entropy = (measured.statistics.get(metric.name) for metric in self.metrics[:2])
        if quality is not None and entropy is not None:
            point = SweepPoint(settings.temperature, quality, entropy)
            self.points.setdefault((name, method), []).append(point)
        if in_table:
            self.examples[_example_label(name, settings)] = made.samples[:EXAMPLES]

    def frontiers(self) -> dict[tuple[str, Method], Frontier]:
        """Quality against entropy over the temperatures of each method; of a quality that is better the lower it is."""
        if self.metrics[0].better != "lower":
            return {}
        quality, entropy = self.metrics[:2]
        return {
            key: frontier(quality, entropy, found, seed=self.seeds[0], resamples=self.resamples)
            for key, found in self.points.items()
        }


def method_of(settings: SamplerSettings) -> Method:
    """The method of sampler settings."""
    sampler = settings.make()
    steps, law = settings.steps if sampler.stepwise else None, settings.law if sampler.uses_law else ""
    grid = f"power {settings.power:g}" if settings.grid == "power" else settings.grid
    return Method(settings.sampler, law, grid, steps, settings.precision, settings.top_p)


def _is_table(settings: SamplerSettings, plan: Sequence[SamplerSettings]) -> bool:
    """Whether these settings make a row of the table: the temperature of their sweep that is nearest to 1."""
    swept = [s.temperature for s in plan if method_of(s) == method_of(settings)]
    return settings.temperature == min(swept, key=lambda t: (abs(t - 1), t))


def _example_label(name: str, settings: SamplerSettings) -> str:
    method = method_of(settings)
    steps = f", {method.steps} steps" if method.steps is not None else ""
    return f"{name}{steps} ({method.label})"


def _entropy(metrics: Sequence[Metric], rows: Sequence[Row]) -> float | None:
    """Entropy of the held-out data, where models are matched."""
    if len(metrics) < 2:
        return None
    for row in rows:
        if row.kind == "data" and metrics[1].name in row.values:
            return row.values[metrics[1].name].value
    return None
