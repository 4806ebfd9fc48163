"""``dry_run=true`` of ``distill`` for a large teacher: what the run will hold, from its config.json alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from didi_core.checkpoints.importers import outline_of
from didi_core.commands.common import make_domain
from didi_core.device import Machine
from didi_core.domain.conditioning import own_templates
from didi_core.errors import InputError
from didi_core.models.llama import Llama
from didi_core.run import Run
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.streams import generator, seeded
from didi_core.training.objective import Objective, Slice
from didi_core.training.parallel import SHARD
from didi_core.training.settings import TrainingSettings
from didi_core.training.sizing import Sized, graph_layers, print_sized, shrunk, sized
from didi_core.types import Denoiser, Domain

SHORT = 32  # tokens of the sequences on which activations are counted, if they can be so short


@dataclass(frozen=True)
class PlannedRun:
    """The run whose size is asked for.

    data: the keys of the domain. parallel: what is asked of several processes. prepare: makes the objective of a run
        from a teacher, as the command does.
    """

    domain: str
    data: Mapping[str, Any]
    teacher: str
    training: TrainingSettings
    processes: int
    parallel: str
    prepare: Callable[[Run, Denoiser], Objective[Any]]


def plan_of_sizes(asked: PlannedRun, domain: Domain, about: Run) -> Sized | None:
    """Print and return what the run will hold; None where the teacher is not a large one."""
    teacher = outline_of(asked.teacher, domain.vocabulary)
    if teacher is None:
        return None
    teacher.requires_grad_(False)
    on_meta = replace(about, machine=Machine(torch.device("meta"), "bf16"))
    learners = asked.prepare(on_meta, teacher).learners()
    rows, width = asked.training.slice_size(asked.processes), _width(domain)
    layers = round(_counted(asked, domain, teacher, about) * width)
    shards = asked.processes if asked.parallel == SHARD else 1
    planned = sized(teacher, learners, layers, rows, rows * width, shards)
    print_sized(planned, asked.teacher)
    return planned


def _counted(asked: PlannedRun, domain: Domain, teacher: Llama, about: Run) -> float:
    """Sequences times layers that keep activations at once, by a small network on short sequences."""
    short = _shortened(asked, domain)
    with seeded(0, "weights of a network that only counts"):
        small = Llama(shrunk(teacher.config), short.vocabulary).to(next(teacher.parameters()).dtype)
    run = replace(about, domain=short, machine=Machine(torch.device("cpu"), "bf16"))
    objective = asked.prepare(run, small.eval().requires_grad_(False))
    slice = Slice(total=asked.training.accumulate * asked.processes, stream=torch.Generator())
    return graph_layers(objective, run, slice) / _width(short)


def _shortened(asked: PlannedRun, domain: Domain) -> Domain:
    """The domain with sequences as short as its templates allow, where it draws some (prompts); SHORT without."""
    length = SHORT
    while length < _width(domain):
        short = make_domain(asked.domain, {**asked.data, "length": length})
        with suppress(InputError):  # a prompt that does not fit; any other fault is met again at the full length
            own_templates(short, "train", 1, generator(0, "plan"))
            return short
        length *= 2
    return domain


def _width(domain: Domain) -> int:
    """Positions of a sequence of the domain."""
    lengths = domain.lengths(1, generator(0, "plan"))
    return int(domain.template(lengths).shape[1])


def seconds_per_call(about: Run, teacher: Denoiser, num: int) -> float:
    """Seconds per call of one sample, of a batch of ``num``. All share the first call, which costs almost nothing."""
    with about.autocast():
        made = generate(about.domain, teacher, settings=SamplerSettings(steps=3), num=num, batch_size=num)
    return made.seconds / (2 * num)
