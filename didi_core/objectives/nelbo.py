"""The teacher's objective: the negative evidence lower bound of masked diffusion."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.masking import forward_mask, log_p_x0
from didi_core.diffusion.schedules import Schedule
from didi_core.types import Denoiser


def nelbo(
    denoiser: Denoiser,
    x0: Int[Tensor, "B L"],
    times: Float[Tensor, "B"],
    schedule: Schedule,
    generator: torch.Generator | None = None,
    weight_clip: float = float("inf"),
) -> Float[Tensor, ""]:
    """The teacher's objective in nats per maskable position (MDLM, equation 10).

    -dalpha_t / (1 - alpha_t) * sum over masked positions of -log p(x0_l | xt), averaged over sequences and times,
    divided by the number of maskable positions. Only masked positions go through the head.

    Args:
        weight_clip: bound on the weight, for training with less noise; the result is then no longer a bound.
    """
    vocabulary = denoiser.vocabulary
    maskable = vocabulary.maskable(x0)
    alpha = schedule.alpha(times).to(x0.device)
    xt = forward_mask(x0, alpha, maskable, vocabulary.mask, generator)
    masked = xt == vocabulary.mask
    rate = (-schedule.dalpha(times).to(x0.device) / (1 - alpha).clamp_min(1e-4)).clamp_max(weight_clip)
    weight = rate[:, None].expand_as(x0)[masked]
    log_p = log_p_x0(denoiser.head(denoiser.trunk(xt)[masked]), vocabulary)
    nll = -log_p.gather(1, x0[masked][:, None]).squeeze(1)
    return (nll * weight).sum() / maskable.sum()
