"""A student whose first call has blocks of its own: they learn from rollouts of one call, the others from longer ones.

Each half has a fake denoiser of its own. A single one would follow what both write together, and what one call writes
of a whole sequence is so much worse than what the last of eight calls adds that the later calls would be pushed away
from mistakes that they do not make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from didi_core.objectives.ratio import Completion, RatioObjective
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms

FIRST = "first_"  # of the first call's scalars


@dataclass(frozen=True)
class Halves:
    """What the first call of a rollout of one call wrote, and a later call of a longer one."""

    first: Completion
    later: Completion


@dataclass
class ByCall(Objective[Halves]):
    """The losses of both halves, added: they share no parameter that learns."""

    first: RatioObjective
    later: RatioObjective

    def learners(self) -> Sequence[Learner]:
        fake, _ = self.first.learners()
        return [fake, *self.later.learners()]

    def batch(self, slice: Slice) -> Halves:
        return Halves(self.first.batch(slice), self.later.batch(slice))

    def loss(self, learner: str, batch: Halves, slice: Slice) -> Terms:
        if learner == self.later.fake_name:
            return self.later.loss(learner, batch.later, slice)
        first = self.first.loss(learner, batch.first, slice)
        if learner == self.first.fake_name:
            return first
        later = self.later.loss(learner, batch.later, slice)
        named = {f"{FIRST}{name}": value for name, value in first.measured.items()}
        loss = first.loss + later.loss
        return Terms(loss, {**named, **later.measured, "loss": loss})

    def check(self, step: int, scalars: Scalars) -> None:
        self.later.check(step, scalars)
        own = {name.removeprefix(FIRST): value for name, value in scalars.items() if name.startswith(FIRST)}
        self.first.check(step, own)

    def record(self) -> Mapping[str, Any]:
        return self.later.record()
