"""An objective that begins with coupled noise: the student learns it alone, then beside the objective's own loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from didi_core.errors import InputError, at_least
from didi_core.objectives.base import Materials
from didi_core.objectives.coupled import CoupledNoise, CoupledRows, CouplingSettings
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class FirstSettings(CouplingSettings):
    """The keys of ``objective.coupling`` beside another loss.

    updates: first updates of the student, from coupled noise alone. The objective's other networks wait for them.
    weight: of coupled noise afterwards, beside the objective's own loss. It holds the student to all that the teacher
        writes from an empty sequence.
    """

    updates: int = 120
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, "objective.coupling.", updates=self.updates)
        if not self.weight >= 0:
            raise InputError(f"objective.coupling.weight={self.weight} is out of range: it must not be negative.")


@dataclass(frozen=True)
class Both(Generic[Batch]):
    """What coupled noise learns from, and what the objective itself does; None in the first updates."""

    rows: CoupledRows
    own: Batch | None


@dataclass
class CoupledFirst(Objective[Both[Batch]]):
    """``then`` after ``updates`` of coupled noise, and coupled noise beside it.

    alone: steps in which the student learns from coupled noise alone: ``updates``, and the critics' warm-up after them.
    """

    noise: CoupledNoise
    then: Objective[Batch]
    updates: int
    alone: int
    weight: float

    @classmethod
    def of(cls, rules: FirstSettings, materials: Materials, then: Objective[Batch]) -> CoupledFirst[Batch]:
        """Raises InputError for a student that reads no noise, and where there are no sequences."""
        alone = rules.updates + then.learners()[-1].warmup
        return cls(CoupledNoise.of(rules, materials), then, rules.updates, alone, rules.weight)

    def later(self) -> CoupledFirst[Batch]:
        """The same without the first updates."""
        return replace(self, updates=0, alone=0)

    def learners(self) -> list[Learner]:
        *others, student = self.then.learners()
        return [*(replace(one, warmup=one.warmup + self.updates) for one in others), replace(student, warmup=0)]

    def batch(self, slice: Slice) -> Both[Batch]:
        rows = self.noise.draw(slice)
        return Both(rows, None if slice.step < self.updates else self.then.batch(slice))

    def loss(self, learner: str, batch: Both[Batch], slice: Slice) -> Terms:
        if learner != self.then.learners()[-1].name:
            assert batch.own is not None, "others wait for the first updates"
            return self.then.loss(learner, batch.own, slice)
        coupled = self.noise.loss(batch.rows)
        if batch.own is None or slice.step < self.alone:
            return coupled
        own = self.then.loss(learner, batch.own, slice)
        loss = own.loss + self.weight * coupled.loss
        return Terms(loss, {**own.measured, "loss": loss, "nll": coupled.measured["nll"]})

    def check(self, step: int, scalars: Scalars) -> None:
        self.then.check(step, scalars)

    def record(self) -> Mapping[str, Any]:
        return self.then.record()
