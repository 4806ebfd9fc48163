"""The first-hitting sampler: one token a call, the reference for a many-step teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from didi_core.diffusion.beliefs import Beliefs
from didi_core.diffusion.laws import Law
from didi_core.sampling.base import Filling, Sampled, SampleRequest, filling, finish


@dataclass(frozen=True)
class RandomOrder(Law):
    """An open law: one position a call, in uniformly random order."""

    name: ClassVar[str] = "random_order"
    sees_model: ClassVar[bool] = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return torch.rand(free.shape, generator=generator, device=generator.device, dtype=torch.float64).to(free.device)

    def choose(self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], beliefs: Beliefs) -> Bool[Tensor, "B L"]:
        first = times.masked_fill(~masked, torch.inf).argmin(dim=1, keepdim=True)
        return torch.zeros_like(masked).scatter(1, first, True) & masked


@dataclass(frozen=True)
class FirstHitting:
    """One token per call in uniformly random order, for all rows at once: exact in law for the continuous-time process.

    With a time-independent denoiser only the order of the hitting times matters, not their values (Zheng et al. 2024,
    "Masked diffusion models are secretly time-agnostic"). Rows with fewer free positions finish earlier and are not
    called again.
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    uses_law: ClassVar[bool] = False

    def states(self, request: SampleRequest) -> Filling:
        return filling(request, request.walk(RandomOrder()), request.draw)

    def sample(self, request: SampleRequest) -> Sampled:
        return finish(self.states(request))
