"""Objectives that follow the log-ratio of the teacher and a second denoiser at re-noised completions.

The student writes into a state in one call, all that is left of it or a share. What stands there then is re-noised, and
the teacher is compared, token by token, with a "fake" denoiser that is trained on what the student writes:

    minimise  - E[ w(t') * mean_l sum_a p_l(a) (log p_teacher(a | x_t') - log p_fake(a | x_t')) ]

over the positions l that the student wrote and x_t' hides. The ratio is a constant for the gradient. Every token of the
vocabulary counts with its probability, so one update carries as much signal as hundreds of sequence rewards.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.divergences import forward_kl
from didi_core.diffusion.heads import draw_tokens, expected_log_ratio, token_statistics
from didi_core.diffusion.masking import mean_or_zero
from didi_core.diffusion.noise import noisy_trunk
from didi_core.objectives.alpha import row_means
from didi_core.objectives.anchor import AnchorSettings, anchored
from didi_core.objectives.base import Materials, check_entropy
from didi_core.objectives.cross_entropy import masked_nll
from didi_core.objectives.rewards.base import CriticSettings
from didi_core.objectives.states import State
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms
from didi_core.types import Denoiser


@dataclass(frozen=True)
class Completion:
    """A state, and what the student wrote into it in one call.

    tokens: the state. masked: where the student wrote. hidden: its hidden states there, row by row, with their graph.
    x: what the call left. Masks stand where it wrote nothing.
    time: t of the state, where it has one.
    """

    tokens: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]
    hidden: Float[Tensor, "N D"]
    x: Int[Tensor, "B L"]
    time: Float[Tensor, "B"] | None = None


@dataclass(frozen=True)
class Renoised:
    """A re-noised completion, and where a token of it is hidden.

    weight: w of each row, by which the mean over its positions counts.
    time: t' of each row, where it has one.
    """

    zt: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]
    weight: Float[Tensor, "B"]
    time: Float[Tensor, "B"] | None = None


@dataclass
class RatioObjective(Objective[Completion]):
    """The common base of IDLM and D-MMD, which differ in states, re-noising and the fake denoiser's loss.

    fake_name: of the fake denoiser as a learner; its loss is named after it.
    """

    materials: Materials
    fake: Denoiser
    critic: CriticSettings
    anchor: AnchorSettings
    clip: float
    fake_name: str = field(default="fake", kw_only=True)

    @abstractmethod
    def renoise(self, batch: Completion, stream: torch.Generator) -> Renoised:
        """Mask some of the completion's positions again."""

    @abstractmethod
    def fake_loss(self, batch: Completion, noised: Renoised) -> Float[Tensor, ""]:
        """The loss that makes the fake denoiser follow the student."""

    def learners(self) -> list[Learner]:
        return [self.critic.learner(self.fake_name, self.fake), self.materials.student_learner(self.critic.warmup)]

    def loss(self, learner: str, batch: Completion, slice: Slice) -> Terms:
        noised = self.renoise(batch, slice.stream)
        if learner == self.fake_name:
            loss = self.fake_loss(batch, noised)
            return Terms(loss, {f"{self.fake_name}_loss": loss})
        return self._student(batch, noised)

    def _student(self, batch: Completion, noised: Renoised) -> Terms:
        student, teacher = self.materials.student, self.materials.frozen
        both = noised.masked & batch.masked
        rows, columns = both.nonzero(as_tuple=True)
        with torch.no_grad():
            wanted, made = (part.trunk(noised.zt)[rows, columns] for part in (teacher, self.fake))
        hidden = batch.hidden[both[batch.masked]]
        value, spread = expected_log_ratio(student, hidden, teacher, wanted, self.fake, made, self.clip)
        policy = -(row_means(value, rows, len(both)) * noised.weight).mean()
        held = anchored(student, batch.hidden, teacher, batch.tokens, batch.masked, self.anchor)
        loss = policy + held.loss(self.anchor)
        return Terms(loss, {"loss": loss, "advantage_spread": mean_or_zero(spread)} | held.scalars)

    def check(self, step: int, scalars: Scalars) -> None:
        check_entropy(step, scalars, self.materials.collapse)


def completed(student: Denoiser, state: State, stream: torch.Generator) -> Completion:
    """The student's completion of a state from data, in one call that keeps its graph where gradients are enabled."""
    hidden = noisy_trunk(student, state.xt, stream)[state.masked]
    with torch.no_grad():
        x = state.xt.masked_scatter(state.masked, draw_tokens(student, hidden, stream))
    return Completion(state.xt, state.masked, hidden, x, state.time)


def followed(
    fake: Denoiser, student: Denoiser, batch: Completion, noised: Renoised
) -> tuple[Float[Tensor, "N"], Int[Tensor, "N"]]:
    """Cross-entropy of the fake denoiser with the student's distribution as its target, up to the student's entropy.

    At positions that the student did not write, the target is the token that stands there.

    Returns:
        the loss at each of the N masked positions, and the row of each.
    """
    both = noised.masked & batch.masked
    states = fake.trunk(noised.zt)
    soft = token_statistics(
        fake,
        states[both],
        batch.x[both][:, None],
        reference=student,
        reference_hidden=batch.hidden[both[batch.masked]].detach(),
        divergence=forward_kl,
    ).divergence
    rest = noised.masked & ~batch.masked
    hard = -token_statistics(fake, states[rest], batch.x[rest][:, None]).log_p.squeeze(1)
    return torch.cat([soft, hard]), torch.cat([part.nonzero()[:, 0] for part in (both, rest)])


def drawn_nll(fake: Denoiser, batch: Completion, noised: Renoised) -> Float[Tensor, ""]:
    """Cross-entropy of the fake denoiser with what the student drew as its target, -log p_fake(x_l | x_t')."""
    return mean_or_zero(masked_nll(fake, noised.zt, batch.x, where=noised.masked))
