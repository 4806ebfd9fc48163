"""States that a student of few calls visits: its own rollouts of 1, 2, 4 ... calls, any one of which it learns from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from didi_core.diffusion.laws import LAWS, grid, law
from didi_core.errors import InputError
from didi_core.objectives.base import Materials
from didi_core.objectives.ratio import Completion
from didi_core.objectives.rollout import roll_out
from didi_core.streams import generator
from didi_core.training.objective import Slice


@dataclass(frozen=True)
class FewCalls:
    """calls: numbers of calls k. One is drawn for a slice, and then one of its k calls, which the student learns from.

    The calls before it follow the sampler's law and grid, without a gradient; the student then completes what is left.
    """

    calls: tuple[int, ...] = (1, 2, 4)
    law: str = "stratified"
    grid: str = "uniform"
    power: float = 3.0

    def __post_init__(self) -> None:
        if not self.calls or min(self.calls) < 1:
            raise InputError(f"objective.rollout.calls={list(self.calls)} is out of range: each is at least 1.")
        LAWS.find(self.law, "objective.rollout.law")
        grid(self.grid, 1, power=self.power)


def complete(materials: Materials, settings: FewCalls, slice: Slice) -> Completion:
    """One slice of completions, with the graph of the call that completes."""
    run, rows = materials.run, materials.slice_size
    plan = generator(run.seed, "few_calls", slice.step, slice.number)
    calls = settings.calls[int(torch.randint(len(settings.calls), (1,), generator=plan))]
    before = int(torch.randint(calls, (1,), generator=plan))
    shares = grid(settings.grid, calls, power=settings.power)[: before + 1].clone()
    shares[-1] = 1.0
    lengths = run.domain.lengths(rows, generator(run.seed, "lengths", slice.step, slice.number))
    template = run.domain.template(lengths).to(run.device)
    found = roll_out(
        materials.student, template, shares.expand(rows, -1), law(settings.law), slice.stream, trained=1
    )
    last = found.calls[-1]
    return Completion(last.tokens, last.where, last.at(last.where), found.completions[0])
