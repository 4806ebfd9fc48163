"""IDLM's reward: the log-ratio of the teacher and a denoiser that follows the student (arXiv 2602.19066).

It scores every token and needs no reference samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.heads import expected_log_ratio
from didi_core.errors import positive, unknown
from didi_core.objectives.cross_entropy import masked_nll
from didi_core.objectives.rewards.base import Context, Corrupted, CriticSettings, Reward, Scores, corrupt
from didi_core.training.objective import Learner, Slice, Terms
from didi_core.types import Denoiser

CREDITS = ("sample", "token", "expected")


@dataclass(frozen=True)
class LogRatioSettings:
    """The keys of the reward ``log_ratio``.

    credit: ``sample`` gives every token the mean ratio of its sequence; ``token`` gives each token its own ratio;
        ``expected`` replaces the drawn token by the expectation over the vocabulary.
    clip: bound of the ratio.
    """

    credit: str = "sample"
    clip: float = 8.0

    def __post_init__(self) -> None:
        if self.credit not in CREDITS:
            raise unknown("credit", self.credit, CREDITS)
        positive(clip=self.clip)

    def make(self, context: Context) -> LogRatioReward:
        fake = context.materials.copy_of_teacher("fake")
        return LogRatioReward(context.materials.frozen, fake, context.critic, self.credit, self.clip)


@dataclass
class LogRatioReward(Reward):
    """log p_theta(x_l | z_t) - log p_fake(x_l | z_t) at the masked positions.

    ``fake`` is a denoiser trained on the student's samples with the masked cross-entropy that trained the teacher on
    data, so the difference shows which tokens the student writes too often in that context.
    """

    teacher: Denoiser
    fake: Denoiser
    settings: CriticSettings
    credit: str = "sample"
    clip: float = 8.0
    name: str = "log_ratio"

    @torch.no_grad()
    def score(self, noised: Corrupted) -> Scores:
        if self.credit == "expected":
            hidden = self.teacher.trunk(noised.zt), self.fake.trunk(noised.zt)
            return TokenRatios(self.teacher, self.fake, *hidden, self.clip)
        ratios = self.ratios(noised)
        return ratios if self.credit == "token" else ratios.sum(1) / noised.masked.sum(1)

    def ratios(self, noised: Corrupted) -> Float[Tensor, "B L"]:
        """The clipped log-ratio of each token that z_t masks; zero elsewhere."""
        teacher_log_p = -masked_nll(self.teacher, noised.zt, noised.x)
        fake_log_p = -masked_nll(self.fake, noised.zt, noised.x)
        ratio = torch.zeros(noised.x.shape, device=noised.x.device)
        return ratio.masked_scatter(noised.masked, (teacher_log_p - fake_log_p).clamp(-self.clip, self.clip))

    def critic(self) -> Learner:
        return self.settings.learner("fake", self.fake)

    def critic_loss(self, samples: Int[Tensor, "B L"], alpha: Float[Tensor, "B"], slice: Slice) -> Terms:
        """Masked cross-entropy of the fake denoiser on the student's samples."""
        noised = corrupt(samples, alpha, self.fake.vocabulary, slice.stream)
        loss = masked_nll(self.fake, noised.zt, samples).mean()
        return Terms(loss, {"fake_loss": loss})


@dataclass(frozen=True)
class TokenRatios:
    """Log-ratios of every token at every masked position, from the hidden states of both denoisers at z_t."""

    teacher: Denoiser
    fake: Denoiser
    teacher_hidden: Float[Tensor, "B L E"]
    fake_hidden: Float[Tensor, "B L F"]
    clip: float

    def expected(
        self,
        student: Denoiser,
        hidden: Float[Tensor, "N D"],
        rows: Int[Tensor, "N"],
        columns: Int[Tensor, "N"],
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Expected ratio at each position under the student.

        Returns:
            the expectation, and the standard deviation.
        """
        wanted, made = self.teacher_hidden[rows, columns], self.fake_hidden[rows, columns]
        return expected_log_ratio(student, hidden, self.teacher, wanted, self.fake, made, self.clip)
