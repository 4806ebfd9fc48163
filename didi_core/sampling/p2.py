"""P2 with self-planning: the denoiser's own probabilities decide which tokens stay and which are masked again.

Peng et al. 2025, "Path planning for masked diffusion model sampling" (arXiv 2502.03540), with the denoiser as planner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.draws import draw
from didi_core.diffusion.heads import chunk_rows, position_log_p, sharpen
from didi_core.diffusion.laws import ranks
from didi_core.diffusion.walk import Call
from didi_core.errors import InputError
from didi_core.sampling.base import Filling, Sampled, SampleRequest, TokenRule, filling, finish
from didi_core.types import Denoiser


@dataclass(frozen=True)
class P2:
    """k steps, each of which scores all free positions, keeps the best n and masks the others (again).

    A masked position is scored by the probability of the token drawn for it, a visible one by ``eta`` times the
    probability of its token; n is the grid's share of the free positions. Pinned positions never change.

    eta: above 1, written tokens stay more readily. Where it is large nothing is taken back, and P2 is the ancestral
        sampler in the order of the probabilities of the drawn tokens.
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = False

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise InputError(f"eta={self.eta} is out of range: it must be at least 0 and finite.")

    def states(self, request: SampleRequest) -> Filling:
        def step(call: Call) -> Int[Tensor, "B L"]:
            free, mask = call.where, request.denoiser.vocabulary.mask
            masked = call.tokens == mask
            drawn, sure = propose(request.denoiser, call.at(masked), request.rule, request.generator)
            whole = call.tokens.masked_scatter(masked, drawn)
            scores = torch.zeros(free.shape, device=free.device).masked_scatter(masked, sure)
            visible = free & ~masked
            own = own_probability(request.denoiser, call.at(visible), call.tokens[visible], request.rule)
            scores = scores.masked_scatter(visible, self.eta * own)
            return torch.where(free & ~best(scores, free, float(request.shares[call.step])), mask, whole)

        return filling(request, request.walk(None), step)

    def sample(self, request: SampleRequest) -> Sampled:
        return finish(self.states(request))


def propose(
    denoiser: Denoiser, hidden: Float[Tensor, "N D"], rule: TokenRule, generator: torch.Generator
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """A token for each of N positions, drawn by the rule.

    Returns:
        the tokens, and their probabilities before temperature and nucleus.
    """
    tokens, sure = [], []
    for piece in hidden.split(chunk_rows(denoiser.vocabulary.size)):
        log_p = position_log_p(denoiser, piece, rule.bias)
        tokens.append(draw(sharpen(log_p, rule.temperature, rule.top_p), generator))
        sure.append(log_p.gather(1, tokens[-1][:, None]).squeeze(1).exp())
    return torch.cat(tokens), torch.cat(sure)


def own_probability(
    denoiser: Denoiser, hidden: Float[Tensor, "N D"], tokens: Int[Tensor, "N"], rule: TokenRule
) -> Float[Tensor, "N"]:
    """The denoiser's probability of the tokens at N visible positions."""
    size = chunk_rows(denoiser.vocabulary.size)
    return torch.cat(
        [
            position_log_p(denoiser, piece, rule.bias).gather(1, own[:, None]).squeeze(1).exp()
            for piece, own in zip(hidden.split(size), tokens.split(size), strict=True)
        ]
    )


def best(scores: Float[Tensor, "B L"], free: Bool[Tensor, "B L"], share: float) -> Bool[Tensor, "B L"]:
    """The given share, rounded up, of each row's free positions: those of highest score."""
    whole = free.sum(1, keepdim=True).double() * share
    count = (whole - 1e-9).ceil()  # a product that should be a whole number may exceed it in its last bit
    return free & (ranks(-scores, free) < count)
