"""The records of an evaluation: methods, rows of numbers, and the evaluation as a whole."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from didi_core.evaluation.frontier import Frontier
from didi_core.evaluation.intervals import Interval
from didi_core.types import NFE, Sample

HELD_OUT = "held-out data"
Kind = Literal["model", "data", "control", "file"]


@dataclass(frozen=True)
class Method:
    """How a row's samples were written, apart from temperature. Rows of the same method lie on one frontier."""

    sampler: str
    law: str  # empty for a sampler without a law
    grid: str  # empty for a sampler without steps
    steps: int | None  # None where the number of calls follows from the length or from the model
    top_p: float = 1.0

    @property
    def label(self) -> str:
        """Sampler, law and grid in a few words, without uninformative defaults."""
        words = [] if self.sampler == "ancestral" else [self.sampler.replace("_", " ")]
        words += [word for word in (self.law, self.grid) if word]
        words += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return " · ".join(words)


@dataclass(frozen=True)
class Row:
    """One set of samples and its measured values.

    method, temperature: None for data, controls and files. seconds: time in the sampler for all n samples.
    rates: samples per second of each batch. skipped: metrics that were not computed, with reasons.
    """

    model: str
    kind: Kind
    n: int
    values: Mapping[str, Interval]
    method: Method | None = None
    temperature: float | None = None
    seeds: tuple[int, ...] = ()
    nfe: NFE | None = None
    seconds: float | None = None
    model_hash: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    rates: tuple[float, ...] = ()

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it."""
        return self.kind in ("data", "control")

    @property
    def rate(self) -> float | None:
        """Samples per second: the median over batches, which a short stall of the machine does not move."""
        if self.rates:
            return statistics.median(self.rates)
        return self.n / self.seconds if self.seconds else None


@dataclass(frozen=True)
class MetricInfo:
    """A metric's entry in a report."""

    name: str
    label: str
    better: str
    description: str = ""


@dataclass(frozen=True)
class Drawn:
    """A quality with its bootstrap draws. Sets of equal size are resampled alike, so draws of two of them are pairs."""

    value: Interval
    draws: Float[np.ndarray, "R"]


@dataclass(frozen=True)
class Film:
    """One sample of a model, call by call.

    start: text of each token of the template, None for a mask. changes: for each call, the places whose text it changed
        and their new text (None where it took a token back).
    """

    model: str
    start: tuple[str | None, ...]
    changes: tuple[tuple[tuple[int, str | None], ...], ...]

    @property
    def text(self) -> str:
        """The finished sample."""
        return "".join(text or "" for text in [*self.states()][-1])

    def states(self) -> Iterator[list[str | None]]:
        """Text of every token before the first call, and after each."""
        texts = list(self.start)
        yield list(texts)
        for changed in self.changes:
            for place, text in changed:
                texts[place] = text
            yield list(texts)


@dataclass(frozen=True)
class Films:
    """Films of several models from one template, at the same number of calls.

    groups: letters that share a colour, by the name of their group; empty for a domain without groups.
    """

    calls: int
    films: tuple[Film, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Everything measured: rows (references first), a frontier per (model, method), and a few samples to read.

    metrics: the first is the quality, the second the entropy.
    at: the entropy of the held-out data, at which models are compared. notes: caveats about the samples.
    variety, variety_frontiers: the metric that models are matched at beside the entropy, where the domain names one,
        and the frontiers over it.
    plain: a quality of which more is better, by model and method, at the temperature nearest to 1. It has no frontier:
        it is compared as it is.
    films: a sample of each model to watch, where there are any.
    """

    domain: str
    metrics: tuple[MetricInfo, ...]
    rows: tuple[Row, ...]
    frontiers: Mapping[tuple[str, Method], Frontier]
    at: float | None
    examples: Mapping[str, Sequence[Sample]]
    notes: tuple[str, ...] = ()
    variety: MetricInfo | None = None
    variety_frontiers: Mapping[tuple[str, Method], Frontier] = field(default_factory=dict)
    plain: Mapping[tuple[str, Method], Drawn] = field(default_factory=dict)
    films: Films | None = None

    @property
    def data(self) -> Row | None:
        """The row of held-out data, where there is one."""
        return next((row for row in self.rows if row.kind == "data"), None)

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Names of the models and files, in order."""
        return tuple(dict.fromkeys(row.model for row in self.rows if not row.is_reference))


def table_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of the main table: references, files, and of every sweep the temperature nearest to 1."""
    chosen: list[Row] = []
    for row in rows:
        if row.kind != "model":
            chosen.append(row)
            continue
        mates = [r for r in rows if r.kind == "model" and (r.model, r.method) == (row.model, row.method)]
        if row is min(mates, key=lambda r: (abs((r.temperature or 1.0) - 1), r.temperature or 1.0)):
            chosen.append(row)
    return chosen


def diversity(evaluation_metrics: Sequence[MetricInfo], limit: int = 2) -> list[MetricInfo]:
    """Metrics of variety in the tables: the first ones after quality and entropy for which higher is better."""
    return [metric for metric in evaluation_metrics[2:] if metric.better == "higher"][:limit]
