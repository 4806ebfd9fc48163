"""DiDi-Instruct's reward: a discriminator between student samples and reference samples (section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from didi_core.diffusion.masking import masked_mean
from didi_core.errors import InputError, positive
from didi_core.objectives.reference import Reference, pad_together
from didi_core.objectives.rewards.base import Context, Corrupted, CriticSettings, Reward, corrupt
from didi_core.training.objective import Learner, Slice, Terms
from didi_core.types import Scorer


@dataclass(frozen=True)
class ScorerSettings:
    """The keys of the reward ``scorer``.

    smoothing: of the labels. clip: bound of the reward.
    trainable_blocks: number of last blocks that learn (norms and head always do); 0 for all of them.
    """

    smoothing: float = 0.1
    clip: float = 8.0
    trainable_blocks: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing={self.smoothing} is out of range: it must be in [0, 1).")
        positive(clip=self.clip)

    def make(self, context: Context) -> ScorerReward:
        scorer = context.materials.scorer(self.trainable_blocks)
        return ScorerReward(scorer, context.reference(), context.critic, self.smoothing, self.clip)


@dataclass
class ScorerReward(Reward):
    """The clipped mean logit over masked positions; higher means more like the reference.

    R = mean over masked l of D_lambda(z_t)_l, an estimate of log q_theta(z_t) - log q_nu(z_t).

    reference: teacher samples or real data, as many rows per batch as there are student samples.
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

        The spectral norms are refined in the first slice only, so once per update, however many slices it has.
        """
        vocabulary = self.scorer.vocabulary
        real = slice.of(self.reference.batch(slice.update, samples.shape[0] * slice.total)).to(samples.device)
        both = pad_together(real, samples, vocabulary.pad)
        noised = corrupt(both, torch.cat([alpha[: real.shape[0]], alpha]), vocabulary, slice.stream)
        labels = torch.arange(both.shape[0], device=both.device) < real.shape[0]
        self.scorer.train(slice.first)
        loss, accuracy = scorer_loss(self.scorer(noised.zt), noised.masked, labels, self.smoothing)
        return Terms(loss, {"scorer_loss": loss, "scorer_accuracy": accuracy})


def scorer_loss(
    logits: Float[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    real: Bool[Tensor, "B"],
    smoothing: float = 0.1,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Binary cross-entropy at masked positions, reference against student; every sequence has the same weight.

    -[y log sigma(D_l) + (1 - y) log(1 - sigma(D_l))] with y = 1 - smoothing / 2 for the reference and y = smoothing / 2
    for the student, averaged over masked l and then over sequences (DiDi-Instruct, section 3.2).

    Returns:
        the loss, and the detached accuracy of the decision per sequence (sign of the mean logit).
    """
    target = torch.where(real, 1 - smoothing / 2, smoothing / 2).to(logits.dtype)[:, None].expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    correct = ((masked_mean(logits.detach(), masked) > 0) == real).float().mean()
    return masked_mean(each, masked).mean(), correct
