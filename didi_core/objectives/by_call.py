"""A student whose first call has blocks of its own: they learn from coupled noise, those of later calls from rollouts.

Each half is a learner with a rate of its own. Where there are rollouts of one call, the first half follows these too.
Then each half has its own fake denoiser. A single one would follow what both write together, and what one call writes
of a whole sequence is so much worse than what the last of eight calls adds that the later calls would be pushed away
from mistakes that they do not make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from didi_core.errors import InputError, at_least
from didi_core.models.noise import as_later_calls, of_first_call
from didi_core.objectives.base import Materials
from didi_core.objectives.coupled import CoupledNoise, CouplingSettings
from didi_core.objectives.ratio import Completion, RatioObjective
from didi_core.objectives.states import KeptSettings, StateSettings
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms
from didi_core.training.optimiser import RateSettings
from didi_core.training.settings import TrainingSettings

FIRST = "first"  # the learner of the first call's blocks
OF_FIRST = f"{FIRST}_"  # how its scalars begin


@dataclass(frozen=True)
class FirstSettings(RateSettings):
    """The keys of ``objective.coupling`` beside another loss: how the blocks of the first call learn.

    updates: first updates of these blocks, from coupled noise alone. All other networks wait for them.
    weight: of coupled noise afterwards, beside the loss of rollouts of one call. It holds the first call to all that
        the teacher writes.
    batch_size: sequences of an update, over all processes; None for as many as ``training.batch_size``.
    group: sequences of about one length among which noise is shared out.
    states: the sequences.
    lr, lr_warmup, lr_final, gradient_clip: settings of AdamW, as in ``training``.
    """

    updates: int = 120
    weight: float = 1.0
    batch_size: int | None = None
    group: int = 64
    states: KeptSettings = field(default_factory=lambda: KeptSettings(source="teacher", samples=1024))

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, "", updates=self.updates)
        at_least(2, "", group=self.group)
        if self.batch_size is not None:
            at_least(1, "", batch_size=self.batch_size)
        if not self.weight >= 0:
            raise InputError(f"weight={self.weight} is out of range: it must not be negative.")

    def training(self, whole: TrainingSettings, processes: int) -> TrainingSettings:
        """The settings with the batch of the first call. Raises InputError where it cannot be cut evenly."""
        if self.batch_size is None:
            return whole
        try:
            own = replace(whole, batch_size=self.batch_size)
            own.slice_size(processes)
        except InputError as error:
            raise InputError(str(error).replace("training.batch_size", "objective.coupling.batch_size")) from None
        return own

    @property
    def rows(self) -> CouplingSettings:
        """All rows begin with nothing written."""
        kept = StateSettings(self.states.source, self.states.samples, self.states.steps)
        return CouplingSettings(empty=1.0, group=self.group, states=kept)


@dataclass(frozen=True)
class Halves:
    """What the first call of a rollout of one call wrote, without its graph, and a later call of a longer rollout."""

    first: Completion | None
    later: Completion


@dataclass
class ByCall(Objective[Halves | None]):
    """Both halves of the student, apart: they share no parameter that learns.

    In the first ``rules.updates`` steps only the first call's blocks learn, and there is no batch.

    first: rollouts of one call; None where only coupled noise teaches the first call.
    """

    materials: Materials
    rules: FirstSettings
    noise: CoupledNoise
    first: RatioObjective | None
    later: RatioObjective

    def learners(self) -> Sequence[Learner]:
        materials = self.materials
        own = of_first_call(materials.student)
        fake, student = self.later.learners()
        rest = frozenset(student.learnt) - own
        first = replace(student, name=FIRST, optimiser=self.rules.optimiser, warmup=0, only=own)
        fakes = [fake] if self.first is None else [self.first.learners()[0], fake]
        waiting = [replace(one, warmup=one.warmup + self.rules.updates) for one in [*fakes, student]]
        return [*waiting[:-1], first, replace(waiting[-1], only=rest)]

    def batch(self, slice: Slice) -> Halves | None:
        if slice.step < self.rules.updates:
            return None
        with torch.no_grad():
            first = None if self.first is None else self.first.batch(slice)
        with as_later_calls(self.materials.student):
            later = self.later.batch(slice)
        return Halves(first, later)

    def loss(self, learner: str, batch: Halves | None, slice: Slice) -> Terms:
        if learner == FIRST:
            return self._first_loss(slice)
        assert batch is not None, "all others wait for the first updates"
        if self.first is not None and learner == self.first.fake_name:
            assert batch.first is not None, "there are rollouts of one call"
            return self.first.loss(learner, batch.first, slice)
        return self.later.loss(learner, batch.later, slice)

    def _first_loss(self, slice: Slice) -> Terms:
        """Of coupled noise, and of another rollout of one call, once the fake denoiser has begun to follow these."""
        coupled = self.noise.loss(self.noise.draw(slice))
        named = {f"{OF_FIRST}nll": coupled.measured["nll"]}
        if self.first is None or slice.step < self.rules.updates + self.first.critic.warmup:
            return Terms(coupled.loss, named)
        own = self.first.loss("student", self.first.batch(slice), slice)
        named |= {f"{OF_FIRST}{name}": value for name, value in own.measured.items()}
        return Terms(own.loss + self.rules.weight * coupled.loss, named)

    def check(self, step: int, scalars: Scalars) -> None:
        self.later.check(step, scalars)
        if self.first is not None:
            own = {name.removeprefix(OF_FIRST): value for name, value in scalars.items() if name.startswith(OF_FIRST)}
            self.first.check(step, own)

    def record(self) -> Mapping[str, Any]:
        return self.later.record()
