"""One exact draw per row of categorical logits.

Vocabularies of a few thousand tokens and more are drawn by inverting the distribution function in two levels: one
uniform chooses a segment of tokens by the sums of the segments, and its remainder a token within. Smaller ones are
drawn by an exponential race, whose noise is cheap there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.blocks import row_blocks

INVERTED = 4096  # tokens from which the distribution function is inverted
SEGMENT = 256  # tokens
BELOW_ONE = 1 - 2.0**-53  # times any sum it is less than that sum


def draw(logits: Float[Tensor, "N V"], generator: torch.Generator) -> Int[Tensor, "N"]:
    """One draw per row with probability proportional to exp(logits); -inf is never drawn.

    It is exact up to rounding of the fp32 probabilities, because the random numbers are fp64. A uniform of 24 bits, as
    in fp32 on a GPU, would never draw a token rarer than 6e-8.
    """
    if logits.shape[1] < INVERTED:
        return _race(logits, generator)
    return invert(logits, uniforms(logits.shape[0], generator, logits.device))


def uniforms(count: int, generator: torch.Generator, device: torch.device) -> Float[Tensor, "N"]:
    """Uniform numbers in [0, 1), fp64."""
    return torch.rand(count, dtype=torch.float64, device=generator.device, generator=generator).to(device)


def invert(logits: Float[Tensor, "N V"], numbers: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The token of each row at which the running sum of probabilities passes the row's number in [0, 1), fp64."""
    whole = -(-logits.shape[1] // SEGMENT) * SEGMENT
    found, weights = list[Tensor](), logits.new_zeros(0, whole)
    for rows in row_blocks(logits):
        block = logits[rows]
        if len(block) > len(weights):
            weights = block.new_zeros(len(block), whole)
        found.append(_invert(block, numbers[rows, None], weights[: len(block)]))
    return torch.cat(found)


def _race(logits: Float[Tensor, "N V"], generator: torch.Generator) -> Int[Tensor, "N"]:
    """The exponential race: argmax_a p(a) / E_a with E_a ~ Exp(1)."""
    race = torch.empty(logits.shape, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
    return (logits - race.clamp_min_(torch.finfo(race.dtype).tiny).log_().to(logits)).argmax(dim=-1)


def _invert(
    logits: Float[Tensor, "n V"], uniforms: Float[Tensor, "n 1"], weights: Float[Tensor, "n W"]
) -> Int[Tensor, "n"]:
    """``invert`` for one block. weights: for exp(logits - max), V rounded up to whole segments, zero beyond V."""
    tokens = logits.shape[1]
    torch.sub(logits, logits.amax(-1, keepdim=True), out=weights[:, :tokens])
    weights[:, :tokens].exp_()
    segments = weights.unflatten(1, (-1, SEGMENT))
    sums = segments.sum(-1)
    ends = sums.cumsum(-1, dtype=torch.float64)
    target = uniforms * ends[:, -1:]
    chosen = torch.searchsorted(ends, target, right=True)
    mass = sums.gather(1, chosen).double()
    rest = (target - ends.gather(1, chosen) + mass) / mass
    inner = segments.gather(1, chosen[..., None].expand(-1, -1, SEGMENT)).squeeze(1).cumsum(-1, dtype=torch.float64)
    token = torch.searchsorted(inner, rest.clamp(0, BELOW_ONE) * inner[:, -1:], right=True)
    return (chosen * SEGMENT + token).squeeze(1)
