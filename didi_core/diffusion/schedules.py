"""Noise schedules: the probability alpha_t that a token is still visible at time t, and draws of training times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from didi_core.errors import positive, unknown


class Schedule(Protocol):
    """alpha falls from 1 at t=0 (clean) to 0 at t=1 (fully masked)."""

    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Probability that a token is visible at t."""
        ...

    def dalpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Derivative of alpha with respect to t; negative."""
        ...

    def inverse(self, alpha: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time at which the given alpha holds."""
        ...


@dataclass(frozen=True)
class LogLinear:
    """alpha_t = 1 - t: the schedule of MDLM, DPLM and DiDi-Instruct, named after its total noise -log(1 - t)."""

    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return 1 - t

    def dalpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return -torch.ones_like(t)

    def inverse(self, alpha: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return 1 - alpha


@dataclass(frozen=True)
class Cosine:
    """alpha_t = 1 - sin(pi t / 2): few tokens are visible for most of the path (the schedule of MaskGIT)."""

    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return 1 - torch.sin(t * (math.pi / 2))

    def dalpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return -(math.pi / 2) * torch.cos(t * (math.pi / 2))

    def inverse(self, alpha: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return torch.asin(1 - alpha) * (2 / math.pi)


@dataclass(frozen=True)
class Polynomial:
    """alpha_t = 1 - t^power; power 1 is the log-linear schedule."""

    power: float = 2.0

    def __post_init__(self) -> None:
        positive(power=self.power)

    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return 1 - t**self.power

    def dalpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return -self.power * t ** (self.power - 1)

    def inverse(self, alpha: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return (1 - alpha) ** (1 / self.power)


SCHEDULES: dict[str, Callable[[], Schedule]] = {"log_linear": LogLinear, "cosine": Cosine, "polynomial": Polynomial}


def schedule(name: str) -> Schedule:
    """The schedule of that name, with its default parameters. Raises InputError where there is none of that name."""
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    return SCHEDULES[name]()


def antithetic_times(n: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "n"]:
    """n times in (low, high], one per stratum of equal width, in random order.

    A batch then always covers the whole range, which lowers the variance of the NELBO (MDLM, appendix C.3). Draws
    within the strata are independent here; MDLM shares one offset.
    """
    strata = (torch.arange(n) + 1 - torch.rand(n, generator=generator)) / n
    return low + (high - low) * strata[torch.randperm(n, generator=generator)]
