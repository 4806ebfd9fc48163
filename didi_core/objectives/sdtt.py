"""SDTT: one call of the student matches several steps of its teacher; rounds double the step (arXiv 2410.21035).

From a state x_t of corrupted data the teacher takes m small steps. The target p_l of a position is the teacher's
distribution in the call that revealed it, or in the last call if it is still masked. The student minimises

    E[ mean over masked l of D(p_l, p_nu(. | x_t)_l) ]

with the divergence D in one call at x_t. After a round the student becomes the teacher of the next one, whose steps are
m times as wide.

A target is the distribution from which a token was drawn, so the mean target of a position is the distribution of its
tokens in samples of m calls, the last of which reveals what is left. ``divergence=forward`` fits this distribution. A
factorised student cannot learn from it how tokens of one call depend on each other.

Unlike the paper, the next teacher has the student's current weights, not their EMA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.divergences import divergence
from didi_core.diffusion.heads import draw_tokens, token_statistics
from didi_core.diffusion.masking import mean_or_zero
from didi_core.diffusion.noise import noisy_trunk
from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError, at_least
from didi_core.models.adapter import copied
from didi_core.objectives.base import Materials, ObjectiveSettings, check_entropy
from didi_core.objectives.states import State, States, StateSettings
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms
from didi_core.types import Denoiser


@dataclass(frozen=True, kw_only=True)
class Sdtt(ObjectiveSettings):
    """The keys of ``sdtt``.

    calls: number n of the teacher's calls in the first round: its steps have width 1/n in time.
    jump: number m of teacher steps that one call of the student matches.
    rounds: number of rounds; the steps of round r have width m^r / n.
    round_updates: updates of a round; the last round lasts to the end of the run.
    divergence: divergence from the targets. ``reverse`` (as published) seeks likely tokens, ``forward`` covers all.
    """

    calls: int = 32
    jump: int = 2
    rounds: int = 3
    round_updates: int = 100
    divergence: str = "reverse"
    schedule: str = "log_linear"
    states: StateSettings = field(default_factory=StateSettings)

    def __post_init__(self) -> None:
        if self.jump < 2:
            raise InputError(f"objective.jump={self.jump} is out of range: at least 2 steps of the teacher.")
        at_least(1, "objective.", rounds=self.rounds, round_updates=self.round_updates)
        if self.jump**self.rounds > self.calls:
            raise InputError(
                f"objective.calls={self.calls} cannot be divided by {self.jump} in {self.rounds} rounds: set "
                f"objective.calls to at least {self.jump**self.rounds}, or fewer rounds."
            )
        divergence(self.divergence, "objective.divergence")

    def prepare(self, materials: Materials) -> SdttObjective:
        earlier = copied(materials.student)
        return SdttObjective(self, materials, earlier, States.of(self.states, materials, schedule(self.schedule)))


@dataclass(frozen=True)
class Targets:
    """A state, and the teacher's hidden states at its masked positions, row by row, from the calls that reveal them."""

    state: State
    teacher: Denoiser
    hidden: Float[Tensor, "N D"]


@dataclass
class SdttObjective(Objective[Targets]):
    """One student call on corrupted sequences, and m calls of a teacher.

    earlier: the student at the end of the previous round, which is part of checkpoints.
    """

    rules: Sdtt
    materials: Materials
    earlier: Denoiser
    states: States

    def learners(self) -> list[Learner]:
        earlier = Learner("earlier", self.earlier, self.materials.training.optimiser, updates=0)
        return [earlier, self.materials.student_learner()]

    def round(self, step: int) -> int:
        """The round of a step, from 0."""
        return min(step // self.rules.round_updates, self.rules.rounds - 1)

    def teacher(self, step: int) -> Denoiser:
        """The teacher of a step; the first one of a round makes the student that of the round."""
        number = self.round(step)
        if number and step == number * self.rules.round_updates:
            self.earlier.load_state_dict(self.materials.student.state_dict())
        return self.earlier if number else self.materials.frozen

    @torch.no_grad()
    def batch(self, slice: Slice) -> Targets:
        teacher, state = self.teacher(slice.step), self.states.draw(slice)
        width = self.rules.jump ** self.round(slice.step) / self.rules.calls
        steps = torch.arange(self.rules.jump + 1, device=state.time.device)
        times = (state.time[:, None] - width * steps).clamp_min(0)
        alpha = self.states.schedule.alpha(times)
        return Targets(state, teacher, decided(teacher, state.xt, state.masked, alpha, slice.stream))

    def loss(self, learner: str, batch: Targets, slice: Slice) -> Terms:
        student, state = self.materials.student, batch.state
        found = token_statistics(
            student,
            noisy_trunk(student, state.xt, slice.stream)[state.masked],
            state.x0[state.masked][:, None],
            reference=batch.teacher,
            reference_hidden=batch.hidden,
            divergence=divergence(self.rules.divergence),
        )
        loss, entropy, teacher_entropy = map(
            mean_or_zero, (found.divergence, found.entropy, found.reference_entropy)
        )
        shown = {"loss": loss, "entropy": entropy, "teacher_entropy": teacher_entropy}
        return Terms(loss, shown)

    def check(self, step: int, scalars: Scalars) -> None:
        check_entropy(step, scalars, self.materials.collapse)

    def record(self) -> Mapping[str, Any]:
        return self.rules.for_card()


def decided(
    teacher: Denoiser,
    xt: Int[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    alpha: Float[Tensor, "B k"],
    stream: torch.Generator,
) -> Float[Tensor, "N D"]:
    """Hidden states at the masked positions of x_t, from the teacher's call that reveals them, or from its last call.

    Args:
        alpha: shares at x_t and after each of m = k - 1 steps. A masked position is revealed in a step with probability
            (alpha_s - alpha_t) / (1 - alpha_t).
    """
    z, hidden = xt, None
    for i in range(alpha.shape[1] - 1):
        still = z == teacher.vocabulary.mask
        now = noisy_trunk(teacher, z, stream)
        hidden = now if hidden is None else torch.where((still & masked)[..., None], now, hidden)
        chance = (alpha[:, i + 1] - alpha[:, i]) / (1 - alpha[:, i]).clamp_min(1e-9)
        keys = torch.rand(z.shape, generator=stream, device=stream.device).to(z.device)
        revealed = still & masked & (keys < chance[:, None])
        if bool(revealed.any()):
            z = z.masked_scatter(revealed, draw_tokens(teacher, now[revealed], stream))
    assert hidden is not None, "there is at least one step"
    return hidden[masked]
