"""Plain masked cross-entropy on the states of the other objectives: the control of a distillation.

An objective that sees data improves a teacher that has not finished learning, which is not distillation. The control
shows the effect of the same time spent on the teacher's own training, from the same weights and on the same sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from didi_core.diffusion.masking import mean_or_zero
from didi_core.diffusion.schedules import schedule
from didi_core.errors import positive
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.cross_entropy import masked_nll
from didi_core.objectives.nelbo import nelbo_rate
from didi_core.objectives.states import FromStates, State, States, StateSettings
from didi_core.training.objective import Slice, Terms


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(ObjectiveSettings):
    """The NELBO of the student: E_t[ -dalpha_t / (1 - alpha_t) * sum_l -log p(x0_l | xt) ] (MDLM, equation 10).

    weight_clip: bound on the weight -dalpha/(1 - alpha).
    """

    schedule: str = "log_linear"
    weight_clip: float = 1000.0
    states: StateSettings = field(default_factory=StateSettings)

    def __post_init__(self) -> None:
        positive("objective.", weight_clip=self.weight_clip)

    def prepare(self, materials: Materials) -> ControlObjective:
        return ControlObjective(materials, States.of(self.states, materials, schedule(self.schedule)), self)


@dataclass
class ControlObjective(FromStates):
    """The NELBO of the student at the states."""

    rules: CrossEntropy

    def loss(self, learner: str, batch: State, slice: Slice) -> Terms:
        student = self.materials.student
        nll = masked_nll(student, batch.xt, batch.x0, slice.stream)
        rate = nelbo_rate(self.states.schedule, batch.time, batch.alpha, self.rules.weight_clip)
        weight = rate[:, None].expand_as(batch.x0)[batch.masked]
        loss = (nll * weight).sum() / student.vocabulary.maskable(batch.x0).sum()
        return Terms(loss, {"loss": loss, "nll": mean_or_zero(nll)})

    def record(self) -> Mapping[str, Any]:
        return self.rules.for_card()
