"""Films: one sample of each model, call by call, for the eye. Nothing is measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from didi_core.domain.conditioning import own_templates
from didi_core.domain.palette import letter_groups
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.rows import Film, Films
from didi_core.run import Run
from didi_core.sampling.base import TracedSampler
from didi_core.sampling.batching import parse_length
from didi_core.sampling.generate import SamplerSettings
from didi_core.sampling.trace import spelled, trace
from didi_core.streams import generator
from didi_core.types import Denoiser, Domain

CALLS = 4  # that a film has where the evaluation has such a row: enough to see something, and few
LONGEST = 1024  # tokens; a longer sample has no film, since it would be larger than the rest of a page
SHOWN = ("teacher", "student", "model")


def film_models(run: Run, models: Mapping[str, Contender], how: Measuring) -> Films | None:
    """One sample of the teacher and one of the student (or of a model alone), from one template, at equal calls.

    None where the plan has no sampler with a given number of calls that can be watched, or samples are too long.
    """
    last = list(models.values())[-1]
    settings = chosen(last.plan)
    shown = {name: models[name] for name in SHOWN if name in models and isinstance(models[name].denoiser, Denoiser)}
    if settings is None or not shown:
        return None
    template = _template(run.domain, how)
    if len(template) > LONGEST:
        return None
    films = tuple(film_of(run.domain, name, model, settings, template, how.seeds[0]) for name, model in shown.items())
    return Films(settings.calls or 0, films, {name: tuple(own) for name, own in letter_groups(run.domain).items()})


def chosen(plan: Sequence[SamplerSettings]) -> SamplerSettings | None:
    """The settings of a plan that a film shows: ``CALLS`` calls or the next number, at the temperature nearest to 1."""
    known = [one for one in plan if one.calls is not None and isinstance(one.make(), TracedSampler)]
    return min(
        known, key=lambda one: ((one.calls or 0) < CALLS, abs((one.calls or 0) - CALLS), abs(one.temperature - 1)),
        default=None,
    )  # fmt: skip


def film_of(
    domain: Domain, name: str, model: Contender, settings: SamplerSettings, template: Sequence[int], seed: int
) -> Film:
    """The states of one sample as changes of the texts of its tokens."""
    states = trace(domain, model.denoiser, settings, [template], seed=seed, entropy_at=model.entropy_at)
    start, *others = (spelled(domain, state.rows[0]) for state in states)
    changes, before = [], start
    for texts in others:
        pairs = enumerate(zip(before, texts, strict=True))
        changes.append(tuple((place, new) for place, (old, new) in pairs if old != new))
        before = texts
    return Film(name, tuple(start), tuple(changes))


def _template(domain: Domain, how: Measuring) -> list[int]:
    """A template of the domain's own, or one of a length from its prior."""
    stream = generator(how.seeds[0], "film")
    own = own_templates(domain, "validation", 1, stream) if how.length is None else None
    row: list[int] = own[0] if own else domain.template(parse_length(how.length, domain, 1, stream))[0].tolist()
    return row
