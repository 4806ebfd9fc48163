"""One request of a visitor: checked, laid out, and drawn by two models in turn, call by call."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from didi_core.config import convert
from didi_core.device import autocast
from didi_core.diffusion.laws import LAWS
from didi_core.domain.abilities import HasForm
from didi_core.domain.conditioning import Conditioning, Field, verify
from didi_core.errors import InputError, at_least
from didi_core.evaluation.intervals import defined
from didi_core.evaluation.measure import all_metrics, on_device
from didi_core.sampling.batching import length_ranges, parse_length
from didi_core.sampling.generate import DEFAULT_GRID, SamplerSettings, trained_with
from didi_core.sampling.laying_out import lay_out
from didi_core.sampling.trace import Snapshot, trace
from didi_core.streams import generator
from didi_core.types import Domain, Sample
from didi_core.web.models import Pair, Shelf

AS_TRAINED = "as trained"  # law and grid of the model's training
TYPED = 20_000  # characters of a field
UPLOADED = 5_000_000  # bytes of a file


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: tokens of a sequence, sequences, and calls."""

    length: int = 512
    num: int = 8
    calls: int = 256

    def __post_init__(self) -> None:
        at_least(1, "max_", length=self.length, num=self.num, calls=self.calls)


@dataclass(frozen=True)
class Asked:
    """What a visitor filled in. ``given``: the fields of the domain's form; for a file its content, or its path."""

    num: Any = 1
    calls: Any = 4
    more_calls: Any = 4
    law: Any = AS_TRAINED
    temperature: Any = 1.0
    length: Any = ""
    template: Any = ""
    seed: Any = 0
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One of the two models at some moment.

    since: of every sequence, the call that wrote each token; 0 for what was there before.
    total: calls that it makes; None where the law decides.
    """

    label: str
    now: Snapshot
    since: tuple[tuple[int, ...], ...]
    total: int | None
    finished: bool = False


@dataclass(frozen=True)
class View:
    """Both models at some moment. ``templates``: what was fixed; ``samples``: of each side, once it has finished."""

    domain: Domain
    templates: Sequence[Sequence[int]]
    sides: tuple[Side, Side]
    samples: tuple[tuple[Sample, ...], tuple[Sample, ...]] = ((), ())


def watch(shelf: Shelf, domain: str, model: str, asked: Asked, limits: Limits) -> Iterator[View]:
    """Both models from the first call to the last, in turn. Nothing is sampled before the next view is asked for.

    Raises:
        InputError: the request cannot be met, or asks for more than the limits allow; the message names the field.
    """
    wanted = _checked(asked, limits)
    pair = shelf.find(domain, model)
    settings = _settings(wanted, pair.card)
    with tempfile.TemporaryDirectory(prefix="didi-") as folder:
        fixed = _laid_out(pair, wanted, limits, Path(folder))
    templates = fixed.templates or ()
    within = partial(autocast, shelf.machine.device, shelf.machine.precision)
    shelf.warm_up(pair, templates[:1])
    traces = [
        trace(pair.domain, network, how, templates, seed=wanted.seed, bias=fixed.bias, within=within)
        for network, how in zip((pair.first, pair.second), settings, strict=True)
    ]
    start = [next(one) for one in traces]
    sides = [
        Side(label, now, tuple((0,) * len(row) for row in now.rows), how.calls)
        for label, now, how in zip(pair.labels, start, settings, strict=True)
    ]
    view = View(pair.domain, templates, (sides[0], sides[1]))
    yield view
    while not all(side.finished for side in sides):
        for i, states in enumerate(traces):
            if not sides[i].finished:
                now = next(states, None)
                sides[i] = replace(sides[i], finished=True) if now is None else _after(sides[i], now)
        view = View(pair.domain, templates, (sides[0], sides[1]))
        if not all(side.finished for side in sides):
            yield view
    records = [{**how.record(), "seed": wanted.seed} for how in settings]
    on_device(all_metrics(pair.domain), shelf.machine.device)  # for the scores of the finished view
    yield replace(view, samples=(_samples(view, 0, fixed, records[0]), _samples(view, 1, fixed, records[1])))


def _after(side: Side, now: Snapshot) -> Side:
    """A side after one more call."""
    since = tuple(
        tuple(now.call if new != old else call for new, old, call in zip(*rows, strict=True))
        for rows in zip(now.rows, side.now.rows, side.since, strict=True)
    )
    return Side(side.label, now, since, side.total, now.call == side.total)


def _samples(view: View, number: int, fixed: Conditioning, record: Mapping[str, Any]) -> tuple[Sample, ...]:
    """The finished sequences of a side with their records; what was pinned is compared with the request."""
    side, samples = view.sides[number], []
    label = re.sub(r"[^A-Za-z0-9]+", "_", side.label).strip("_")
    for i, row in enumerate(side.now.rows):
        own = fixed.info[i % len(fixed.info)] if fixed.info else {}
        about = {**own, **record, "nfe": side.now.call}
        samples.append(Sample(view.domain.decode(row), f"{label}_{side.now.call}_calls_{i + 1}", row, about))
    verify(samples, fixed, view.domain.vocabulary)
    return tuple(samples)


def scores(domain: Domain, samples: Sequence[Sample]) -> dict[str, tuple[str, float]]:
    """Label and value of each metric that so few samples allow, by name: the judge's perplexity, entropy and others."""
    found = {}
    for metric in all_metrics(domain):
        if metric.minimum <= len(samples):
            usable, _ = defined(metric.statistics(samples))
            if len(usable) >= max(metric.minimum, 1):
                found[metric.name] = (metric.label, float(metric.aggregate(usable.mean(0))))
    return found


def written(domain: Domain, samples: Sequence[Sample]) -> bytes:
    """The samples in the domain's format: FASTA or JSON lines."""
    with tempfile.TemporaryDirectory(prefix="didi-") as folder:
        path = Path(folder) / f"samples{domain.suffix}"
        domain.write(path, samples)
        return path.read_bytes()


@dataclass(frozen=True)
class _Wanted:
    """A request with numbers for numbers (``didi_core.sampling.laying_out.Wanted``). calls: of both sides."""

    num: int
    calls: tuple[int, int]
    law: str
    temperature: float
    length: str | None
    template: str | None
    seed: int
    conditioning: Mapping[str, Any]


def _checked(asked: Asked, limits: Limits) -> _Wanted:
    """The request, read and held against the limits."""
    num = _whole("samples", asked.num, limits.num)
    calls = (_whole("calls", asked.calls, limits.calls), _whole("calls of the second", asked.more_calls, limits.calls))
    law = str(asked.law)
    if law != AS_TRAINED:
        LAWS.find(law)
    for label, text in (("template", asked.template), ("length", asked.length), *asked.given.items()):
        if isinstance(text, str) and len(text) > TYPED:
            raise InputError(f"{label} has {len(text):,} characters; this page reads {TYPED:,} at most.")
    length = str(asked.length or "").strip() or None
    if length is not None and max(high for _, high in length_ranges(length)) > limits.length:
        raise InputError(f"length={length} is too long: this page writes {limits.length} tokens at most.")
    return _Wanted(
        num,
        calls,
        law,
        convert(float, asked.temperature, "temperature"),
        length,
        str(asked.template or "") or None,
        _whole("seed", asked.seed, 2**62, least=0),
        {key: value for key, value in asked.given.items() if value not in (None, "")},
    )


def _settings(wanted: _Wanted, card: Mapping[str, Any]) -> list[SamplerSettings]:
    """The sampler of each side: law and grid as the model was trained, or the chosen law with the uniform grid."""
    law, grid = trained_with(card) if wanted.law == AS_TRAINED else (wanted.law, DEFAULT_GRID)
    made = [SamplerSettings(steps=k, law=law, grid=grid, temperature=wanted.temperature) for k in wanted.calls]
    if made[0].needs_curve:
        raise InputError(
            f"the model was trained with grid={grid}, which needs a curve that is not measured here: choose a law."
        )
    return made


def _whole(label: str, value: Any, most: int, least: int = 1) -> int:
    """A whole number between two limits. Raises InputError."""
    number: int = convert(int, value, label)
    if not least <= number <= most:
        raise InputError(f"{label}={number} is out of range: this page takes {least} to {most}.")
    return number


def _laid_out(pair: Pair, wanted: _Wanted, limits: Limits, folder: Path) -> Conditioning:
    """The templates of the request, one for each sample.

    Args:
        folder: for files that fields of the form stand for; they are read here, and not needed later.
    """
    form = {one.key: one for one in (pair.domain.form if isinstance(pair.domain, HasForm) else ())}
    unknown = [key for key in wanted.conditioning if key not in form]
    if unknown:
        raise InputError(f"{unknown[0]} is not a field of domain {pair.domain.name!r}.")
    files = {key: _file(form[key], value, folder) for key, value in wanted.conditioning.items() if form[key].suffix}
    given = {key: str(files.get(key, value)).strip() for key, value in wanted.conditioning.items()}
    try:
        asked = lay_out(replace(wanted, conditioning=given), pair.domain, pair.card)
    except InputError as error:
        text = str(error)
        for key, path in files.items():
            text = text.replace(str(path), key)  # the visitor knows the field, and not our file
        raise InputError(text) from None
    rows = asked.templates
    if rows is None:
        lengths = parse_length(wanted.length, pair.domain, wanted.num, generator(wanted.seed, "lengths"))
        if max(lengths) <= limits.length:
            rows = [pair.domain.template([length])[0].tolist() for length in lengths]
    frame = pair.domain.vocabulary.frame
    longest = max(lengths) if rows is None else max(sum(token not in frame for token in row) for row in rows)
    if rows is None or longest > limits.length:
        raise InputError(f"a sequence of {longest} tokens is too long: this page writes {limits.length} at most.")
    chosen = [rows[i % len(rows)] for i in range(wanted.num)]
    return replace(asked, templates=chosen)


def _file(asked: Field, value: Any, folder: Path) -> Path:
    """The file that a field stands for: uploaded, or written with what was typed."""
    path = folder / f"{asked.key}{asked.suffix}"
    if asked.upload:
        given = Path(str(value))
        if given.stat().st_size > UPLOADED:
            raise InputError(f"{asked.key} has {given.stat().st_size:,} bytes; this page reads {UPLOADED:,} at most.")
        path.write_bytes(given.read_bytes())
        return path
    text = str(value).strip()
    path.write_text(text if text[:1] == asked.opening[:1] else asked.opening + text, encoding="utf-8")
    return path
