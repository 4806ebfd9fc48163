"""Policy gradients: advantages within a group, the surrogate loss, and the weight of a time in the integral."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from didi_core.diffusion.schedules import Schedule
from didi_core.errors import InputError, positive


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """Grouped reward normalisation: samples per group, division by the standard deviation, leave-one-out mean, clip."""

    group: int = 4
    normalise: bool = True
    leave_one_out: bool = False
    clip: float = 3.0

    def __post_init__(self) -> None:
        if self.group < 2:
            raise InputError(f"objective.baseline.group={self.group} is out of range: a group has at least 2 samples.")
        positive("objective.baseline.", clip=self.clip)


@dataclass(frozen=True, kw_only=True)
class WeightingSettings:
    """omega(t), clipped, and division by the density of tau; each can be switched off."""

    omega: bool = True
    low: float = 0.1
    high: float = 10.0
    divide_by_density: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise InputError(
                f"objective.weighting.low={self.low}, high={self.high}: need 0 <= low <= high, the bounds of omega."
            )


def integral_weight(times: Float[Tensor, "B"], schedule: Schedule, low: float, high: float) -> Float[Tensor, "B"]:
    """omega(t) = -dalpha_t / (1 - alpha_t), clipped to [low, high]: the weight of the divergence at time t."""
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

    A = (r - mean) / (std + eps), clipped to +-clip (DiDi-Instruct, section 3.3). ``leave_one_out`` takes the mean of
    the *other* samples, which keeps the policy gradient unbiased. Dividing by the spread and clipping bias it with
    either mean.

    Raises:
        InputError: groups do not divide the batch, or have one sample.
    """
    if group < 2 or rewards.numel() % group:
        raise InputError(
            f"group={group} must be at least 2 and divide the batch: got {rewards.numel()} samples. "
            "Set objective.baseline.group to a divisor of the batch."
        )
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if leave_one_out:
        centred = centred * (group / (group - 1))
    if normalise:
        centred = centred / (grouped.std(1, correction=0, keepdim=True) + eps)
    return centred.clamp(-clip, clip).reshape(-1)


def policy_loss(log_p: Float[Tensor, "B"], weight: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """Surrogate -mean(weight * log p), whose gradient is -E[weight * grad log p]; ``weight`` gets no gradient."""
    return -(weight.detach() * log_p).mean()
