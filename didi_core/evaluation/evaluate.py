"""Evaluation: the same numbers, with intervals, for any set of samples; models compared over steps and temperatures.

It reads samples, not models: samples of a model, samples of a file, held-out data and negative controls go through one
function. Quality and entropy are measured at every temperature of a sweep (the frontier). Costlier metrics are measured
at temperature 1, for the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from didi_core.config import labelled
from didi_core.diffusion.laws import PROTOCOL
from didi_core.errors import InputError, counted
from didi_core.evaluation.cache import StatisticsCache
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.drawing import Drawing
from didi_core.evaluation.films import film_models
from didi_core.evaluation.frontier import Frontier, SweepPoint, frontier
from didi_core.evaluation.held_out import overlap_notes, reference_rows
from didi_core.evaluation.intervals import bootstrap, defined, resampled_means
from didi_core.evaluation.measure import Measured, all_metrics, described, evaluate_samples, on_device, variety_metric
from didi_core.evaluation.rows import HELD_OUT, Drawn, Evaluation, Method, Row
from didi_core.run import Run
from didi_core.sampling.generate import Generated, SamplerSettings
from didi_core.storage.sample_files import SampleSet
from didi_core.streams import derive_seed
from didi_core.types import Domain, Metric, Sample

EXAMPLES = 3  # samples of each set that a report shows


def sweep(base: SamplerSettings, steps: Sequence[int], temperatures: Sequence[float] = (1.0,)) -> list[SamplerSettings]:
    """Settings for every number of steps at every temperature, otherwise like ``base``."""
    return [replace(base, steps=k, temperature=t) for k, t in itertools.product(steps, temperatures)]


def evaluate_files(run: Run, sets: Mapping[str, SampleSet | Sequence[Sample]], how: Measuring) -> Evaluation:
    """Rows for named sets of samples of any origin, beside the reference and its controls.

    The reference is ``how.reference``, or ``how.num`` held-out samples of the domain.
    """
    results, held_out = _begin(run, how, how.num)
    notes = list(overlap_notes(run.domain, held_out))
    run.reporter.start("evaluate", sum(len(_samples(found)) for found in sets.values()))
    for name, found in sets.items():
        results.add_file(name, _samples(found))
        notes += found.notes if isinstance(found, SampleSet) else ()
        run.reporter.advance(by=len(_samples(found)))
    run.reporter.stop()
    return results.together(run.domain, notes)


def _samples(found: SampleSet | Sequence[Sample]) -> Sequence[Sample]:
    return found.samples if isinstance(found, SampleSet) else found


def evaluate_models(run: Run, models: Mapping[str, Contender], how: Measuring) -> Evaluation | None:
    """Sample every model by its plan, and measure all samples. Several processes share the sampling.

    Args:
        models: by name, usually ``teacher`` and ``student``.

    Returns:
        what was found; None in all processes but the first, which measures.

    Raises:
        InputError: there is no model.
    """
    if not models:
        raise InputError("nothing to evaluate: give at least one model.")
    drawing = Drawing(run, how)
    if not run.processes.first:
        for model in models.values():
            for settings in model.plan:
                drawing.all_seeds(model, settings)
        return None
    results, held_out = _begin(run, how, how.num * len(how.seeds))
    plan = [settings for model in models.values() for settings in model.plan]
    run.reporter.start("evaluate (network calls)", sum(map(drawing.cost, plan)))
    for name, model in models.items():
        for settings in model.plan:
            made = drawing.all_seeds(model, settings)
            results.add(name, model.digest, settings, made, _is_table(settings, model.plan))
    run.reporter.stop()
    evaluation = results.together(run.domain, overlap_notes(run.domain, held_out))
    return replace(evaluation, films=film_models(run, models, how))


def _begin(run: Run, how: Measuring, num: int) -> tuple[_Results, list[Sample]]:
    """Begin an evaluation.

    Returns:
        results that hold the reference rows, and the held-out samples (empty if only their statistics are known).
    """
    metrics, cache = on_device(all_metrics(run.domain), run.device), StatisticsCache(how.cache_dir)
    rows, held_out = reference_rows(
        run.domain, metrics, num, given=how.reference, seed=how.seeds[0], resamples=how.resamples, cache=cache
    )
    results = _Results(metrics, cache, how, rows)
    if held_out:
        results.examples[HELD_OUT] = held_out[:EXAMPLES]
    return results, held_out


@dataclass
class _Results:
    """Collects the results of measured sets: rows, points of the frontiers, examples to read."""

    metrics: Sequence[Metric]
    cache: StatisticsCache
    how: Measuring
    rows: list[Row]
    points: dict[tuple[str, Method], list[SweepPoint]] = field(default_factory=dict)
    variety_points: dict[tuple[str, Method], list[SweepPoint]] = field(default_factory=dict)
    examples: dict[str, Sequence[Sample]] = field(default_factory=dict)

    def measured(self, metrics: Sequence[Metric], samples: Sequence[Sample]) -> Measured:
        """The metrics of one set."""
        how = self.how
        return evaluate_samples(metrics, samples, resamples=how.resamples, seed=how.seeds[0], cache=self.cache)

    def add_file(self, name: str, samples: Sequence[Sample]) -> None:
        """Measure a set of samples from a file."""
        measured = self.measured(self.metrics, samples)
        self.rows.append(Row(name, "file", len(samples), measured.values, skipped=measured.skipped))
        self.examples[name] = samples[:EXAMPLES]

    def add(self, name: str, digest: str, settings: SamplerSettings, made: Generated, in_table: bool) -> None:
        """Measure one set of a model's samples: the metrics of frontiers, and for a row of the table all others."""
        swept = [*self.metrics[:2], *([self.variety] if self.variety else [])]
        measured = self.measured(self.metrics if in_table else swept, made.samples)
        method = method_of(settings)
        self.rows.append(
            Row(
                name,
                "model",
                len(made.samples),
                measured.values,
                method,
                settings.temperature,
                self.how.seeds,
                made.nfe,
                made.seconds,
                digest,
                measured.skipped,
                made.rates,
            )
        )
        quality, *others = (measured.statistics.get(metric.name) for metric in swept)
        for points, other in zip((self.points, self.variety_points), others, strict=False):
            if quality is not None and other is not None:
                points.setdefault((name, method), []).append(SweepPoint(settings.temperature, quality, other))
        if in_table:
            self.examples[_example_label(name, settings)] = made.samples[:EXAMPLES]

    @property
    def variety(self) -> Metric | None:
        """The second metric at which models are matched, beside the entropy."""
        return variety_metric(self.metrics)

    def frontiers(
        self, points: Mapping[tuple[str, Method], Sequence[SweepPoint]], other: Metric
    ) -> dict[tuple[str, Method], Frontier]:
        """Quality against another metric over the temperatures of each method, if lower quality values are better."""
        quality = self.metrics[0]
        if quality.better != "lower":
            return {}
        return {
            key: frontier(quality, other, found, seed=self.how.seeds[0], resamples=self.how.resamples)
            for key, found in points.items()
        }

    def plain(self) -> dict[tuple[str, Method], Drawn]:
        """A quality of which more is better, of each method at the temperature nearest to 1."""
        quality, how = self.metrics[0], self.how
        if quality.better != "higher":
            return {}
        found = {}
        for key, points in self.points.items():
            point = min(points, key=lambda point: (abs(point.temperature - 1), point.temperature))
            rows, _ = defined(point.quality)
            means = resampled_means(rows, how.resamples, derive_seed(how.seeds[0], "plain"))
            found[key] = Drawn(bootstrap(quality, rows, how.resamples, how.seeds[0]), quality.aggregate(means))
        return found

    def together(self, domain: Domain, notes: Sequence[str]) -> Evaluation:
        """The evaluation of everything that was measured."""
        variety = self.variety
        return Evaluation(
            domain.name,
            described(self.metrics),
            tuple(self.rows),
            self.frontiers(self.points, self.metrics[1]) if self.points else {},
            _entropy(self.metrics, self.rows),
            self.examples,
            tuple(notes),
            described([variety])[0] if variety else None,
            self.frontiers(self.variety_points, variety) if variety else {},
            self.plain(),
        )


def method_of(settings: SamplerSettings) -> Method:
    """The method of sampler settings."""
    made, steps = settings.make(), settings.calls
    law = labelled(settings.law, settings.make_law(), PROTOCOL, (float,)) if made.uses_law else ""
    grid = labelled(settings.grid, settings.make_grid(), (), (float,)) if steps is not None else ""
    return Method(labelled(settings.sampler, made), law, grid, steps, settings.top_p)


def _is_table(settings: SamplerSettings, plan: Sequence[SamplerSettings]) -> bool:
    """Whether these settings form a row of the table: their temperature is the one of the sweep nearest to 1."""
    swept = [s.temperature for s in plan if method_of(s) == method_of(settings)]
    return settings.temperature == min(swept, key=lambda t: (abs(t - 1), t))


def _example_label(name: str, settings: SamplerSettings) -> str:
    method = method_of(settings)
    steps = f", {counted(method.steps, 'step')}" if method.steps is not None else ""
    return f"{name}{steps} ({method.label})"


def _entropy(metrics: Sequence[Metric], rows: Sequence[Row]) -> float | None:
    """Entropy of the held-out data, at which models are compared."""
    if len(metrics) < 2:
        return None
    for row in rows:
        if row.kind == "data" and metrics[1].name in row.values:
            return row.values[metrics[1].name].value
    return None
