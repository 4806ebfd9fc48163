"""DiDi-Instruct's reward: a discriminator of student samples against reference samples (section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from didi_core.diffusion.masking import masked_mean
from didi_core.errors import InputError
from didi_core.objectives.reference import Reference, pad_together
from didi_core.objectives.rewards.base import Context, Corrupted, CriticSettings, Reward, corrupt
from didi_core.training.objective import Learner, Slice, Terms
from didi_core.types import Scorer


@dataclass(frozen=True)
class ScorerSettings:
    """smoothing: of the labels. clip: of the reward.
    trainable_blocks: last blocks that learn (norms and head always do). Zero: all of them."""

    smoothing: float = 0.1
    clip: float = 8.0
    trainable_blocks: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing={self.smoothing} is out of range: it must be in [0, 1).")
        if not self.clip > 0:
            raise InputError(f"clip={self.clip} is out of range: it must be positive.")

    def make(self, context: Context) -> ScorerReward:
        scorer = context.materials.scorer(self.trainable_blocks)
        return ScorerReward(scorer, context.reference(), context.critic, self.smoothing, self.clip)


@dataclass
class ScorerReward(Reward):
    """The mean logit over masked positions, clipped; higher = more like the reference.

    reference: teacher samples or real data, as many rows a batch as there are student samples.
    """

    scorer: Scorer
    reference: Reference
    settings: CriticSettings
    smoothing: float = 0.1
    clip: float = 8.0
    name: str = "scorer"

    @torch.no_grad()
    def score(self, noised: Corrupted) -> Float[Tensor, "B"]:
        return masked_mean(self.scorer(noised.zt), noised.masked).clamp(-self.clip, self.clip)

    def critic(self) -> Learner:
        return self.settings.learner(self.name, self.scorer)

    def critic_loss(self, samples: Int[Tensor, "B L"], alpha: Float[Tensor, "B"], slice: Slice) -> Terms:
        """Student samples against as many reference samples, re-noised at the same times, in one pass.

        The spectral norms are refined at the first slice alone: once an update, into however many slices it is cut.
        """
        vocabulary = self.scorer.vocabulary
        real = slice.of(self.reference.batch(slice.update, samples.shape[0] * slice.total)).to(samples.device)
        both = pad_together(real, samples, vocabulary.pad)
        noised = corrupt(both, torch.cat([alpha[: real.shape[0]], alpha]), vocabulary, slice.stream)
        labels = torch.arange(both.shape[0], device=both.device) < real.shape[0]
        self.scorer.train(slice.first)
        loss, accuracy = scorer_loss(self.scorer(noised.zt), noised.masked, labels, self.smoothing)
        return Terms(loss, {"scorer_loss": float(loss.detach()), "scorer_accuracy": float(accuracy)})


def scorer_loss(
    logits: Float[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    real: Bool[Tensor, "B"],
    smoothing: float = 0.1,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Binary cross-entropy at masked positions, reference against student, each sequence counting the same.

    Returns:
        the loss, and the accuracy of the sequence-level call (sign of the mean logit), detached.
    """
    target = torch.where(real, 1 - smoothing / 2, smoothing / 2).to(logits.dtype)[:, None].expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    correct = ((masked_mean(logits.detach(), masked) > 0) == real).float().mean()
    return masked_mean(each, masked).mean(), correct
