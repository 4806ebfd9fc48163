"""States that a few-call student visits in its own rollouts of 4, 8, ... calls. It learns from one call of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from didi_core.config import Choice
from didi_core.diffusion.grids import shares_of
from didi_core.domain.conditioning import draw_templates
from didi_core.errors import InputError
from didi_core.objectives.base import Materials
from didi_core.objectives.ratio import Completion
from didi_core.objectives.rollout import LawAndGrid, roll_out
from didi_core.streams import generator
from didi_core.training.objective import Slice


@dataclass(frozen=True)
class FewCalls(LawAndGrid):
    """The keys of ``objective.rollout`` for objectives that learn from one call of a rollout.

    calls: possible numbers of calls k. One is drawn for each slice, and then one of its k calls to learn from. The
        calls before that one follow law and grid without gradient.
    complete: whether the call that is learnt from writes all that is left, and not its own share. A call that has to
        complete an empty sequence can only do so by concentrating on one kind of sequence, and what it learns there
        holds for every number of calls, since the state is the same (docs/recipe.md).
    law, grid, power: as in ``SamplerSettings``.
    """

    calls: tuple[int, ...] = (4, 8)
    complete: bool = False
    law: Choice = field(default="stratified", hash=False)
    grid: Choice = field(default="uniform", hash=False)
    power: float = 3.0

    def __post_init__(self) -> None:
        if not self.calls or min(self.calls) < 1:
            raise InputError(f"objective.rollout.calls={list(self.calls)} is out of range: name some, each at least 1.")
        self.check_law_and_grid()


def one_call(materials: Materials, settings: FewCalls, slice: Slice, begun: bool = False) -> Completion:
    """What one call of a rollout writes, with the graph of that call, for the rows of one slice.

    begun: never the first call, of rollouts that have more than one.
    """
    run, rows = materials.run, materials.slice_size
    plan = generator(run.seed, "few_calls", slice.step, slice.number)
    calls = settings.calls[int(torch.randint(len(settings.calls), (1,), generator=plan))]
    before = int(torch.randint(calls - begun, (1,), generator=plan)) + begun
    shares = shares_of(settings.make_grid(), calls)[: before + 1].clone()
    if settings.complete:
        shares[-1] = 1.0
    stream = generator(run.seed, "lengths", slice.step, slice.number)
    template = draw_templates(run.domain, "train", rows, stream).to(run.device)
    found = roll_out(materials.student, template, shares.expand(rows, -1), settings.make_law(), slice.stream, trained=1)
    last = found.calls[-1]
    return Completion(last.tokens, last.where, last.at(last.where), found.completions[0])
