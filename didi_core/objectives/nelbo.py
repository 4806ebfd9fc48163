"""The teacher's objective: the negative evidence lower bound (NELBO) of masked diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.masking import forward_mask
from didi_core.diffusion.schedules import Schedule, antithetic_times, schedule
from didi_core.errors import positive
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.cross_entropy import masked_nll
from didi_core.objectives.from_data import FromData
from didi_core.types import Denoiser


@dataclass(frozen=True, kw_only=True)
class Nelbo(ObjectiveSettings):
    """Trains a masked denoiser on data: E_t[ -dalpha_t / (1 - alpha_t) * sum_l -log p(x0_l | xt) ] (MDLM, equation 10).

    weight_clip: bound on the weight -dalpha/(1 - alpha) in training. Without it, small times make most of the noise of
        the gradient. Validation is always the unclipped NELBO.
    """

    schedule: str = "log_linear"
    weight_clip: float = 1000.0

    commands: ClassVar[tuple[str, ...]] = ("pretrain",)

    def __post_init__(self) -> None:
        schedule(self.schedule)
        positive(weight_clip=self.weight_clip)

    def prepare(self, materials: Materials) -> FromData:
        return FromData.of(
            materials,
            partial(self.loss, materials.student),
            {"schedule": self.schedule, "weight_clip": self.weight_clip},
        )

    def loss(self, denoiser: Denoiser, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, ""]:
        """NELBO at antithetic times, in nats per position; unclipped where gradients are off."""
        times = antithetic_times(tokens.shape[0], stream, low=1e-3)
        clip = self.weight_clip if torch.is_grad_enabled() else float("inf")
        return nelbo(denoiser, tokens, times, schedule(self.schedule), stream, clip)


def nelbo(
    denoiser: Denoiser,
    x0: Int[Tensor, "B L"],
    times: Float[Tensor, "B"],
    schedule: Schedule,
    generator: torch.Generator | None = None,
    weight_clip: float = float("inf"),
) -> Float[Tensor, ""]:
    """The teacher's objective in nats per maskable position (MDLM, equation 10).

    It is -dalpha_t / (1 - alpha_t) * sum over masked l of -log p(x0_l | xt), averaged over sequences and times and
    divided by the number of maskable positions. Only masked positions go through the head.

    Args:
        weight_clip: bound on the weight, for training with less noise. The result is then no longer a bound.
    """
    vocabulary = denoiser.vocabulary
    maskable = vocabulary.maskable(x0)
    alpha = schedule.alpha(times).to(x0.device)
    xt = forward_mask(x0, alpha, maskable, vocabulary.mask, generator)
    rate = nelbo_rate(schedule, times, alpha, weight_clip)
    weight = rate[:, None].expand_as(x0)[xt == vocabulary.mask]
    return (masked_nll(denoiser, xt, x0, generator) * weight).sum() / maskable.sum()


def nelbo_rate(
    schedule: Schedule, times: Float[Tensor, "B"], alpha: Float[Tensor, "B"], clip: float
) -> Float[Tensor, "B"]:
    """The weight -dalpha_t / (1 - alpha_t) of each row, at most ``clip``. ``alpha`` is that of the times."""
    return (-schedule.dalpha(times).to(alpha.device) / (1 - alpha).clamp_min(1e-4)).clamp_max(clip)
