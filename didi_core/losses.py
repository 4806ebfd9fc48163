"""Losses as pure functions: the teacher's NELBO, the policy gradient, the scorer's cross-entropy, weights and
advantages."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from didi_core.errors import InputError
from didi_core.process import forward_mask, log_p_x0
from didi_core.schedules import Schedule
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


def integral_weight(times: Float[Tensor, "B"], schedule: Schedule, low: float, high: float) -> Float[Tensor, "B"]:
    """omega(t) = -dalpha_t / (1 - alpha_t), clipped: how much the divergence at time t counts."""
    return (-schedule.dalpha(times) / (1 - schedule.alpha(times)).clamp_min(1e-6)).clamp(low, high)


def grouped_advantage(
    rewards: Float[Tensor, "B"],
    group: int,
    *,
    normalise: bool = True,
    leave_one_out: bool = False,
    clip: float = 3.0,
    eps: float = 1e-4,
) -> Float[Tensor, "B"]:
    """Reward relative to the other samples of its group (consecutive rows), in units of the group's spread.

    (r - mean) / (std + eps), clipped to +-clip (DiDi-Instruct, section 3.3). ``leave_one_out`` takes the mean of the
    *other* samples, which keeps the policy gradient unbiased; dividing by the spread, and the clipping, bias it
    whichever mean is taken.
    """
    if group < 2 or rewards.numel() % group:
        raise InputError(
            f"group={group} must be at least 2 and divide the batch: got {rewards.numel()} samples. "
            "Set objective.group to a divisor of the batch."
        )
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if leave_one_out:
        centred = centred * (group / (group - 1))
    if normalise:
        centred = centred / (grouped.std(1, correction=0, keepdim=True) + eps)
    return centred.clamp(-clip, clip).reshape(-1)


def policy_loss(log_p: Float[Tensor, "B"], weight: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """Surrogate whose gradient is -E[weight * grad log p]: minimising it raises what has a positive weight."""
    return -(weight.detach() * log_p).mean()


def masked_mean(values: Float[Tensor, "B L"], where: Bool[Tensor, "B L"]) -> Float[Tensor, "B"]:
    """Mean over the chosen positions of each row; zero for a row without any."""
    return (values * where).sum(1) / where.sum(1).clamp_min(1)


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
