"""How sure a denoiser is at the positions it may write. Every law and sampler uses this one definition, a probability.

The vocabulary head runs in chunks, and only one number per position is kept of each chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from didi_core.diffusion.divergences import entropy
from didi_core.diffusion.heads import chunk_rows, position_log_p
from didi_core.types import Denoiser


class Beliefs:
    """What a denoiser believes at N chosen positions, computed at first use.

    Args:
        at: returns the hidden states [N, D] of chosen positions, row by row.
        where: the chosen positions.
    """

    def __init__(self, denoiser: Denoiser, at: Callable[[Tensor], Tensor], where: Bool[Tensor, "B L"]) -> None:
        self._denoiser, self._at, self._where = denoiser, at, where

    @cached_property
    def confidence(self) -> Float[Tensor, "B L"]:
        """Probability of the likeliest token at each chosen position, max_a p(x0_l = a | xt); zero elsewhere."""
        return self._laid_out(lambda log_p: log_p.amax(-1).exp())

    @cached_property
    def entropy(self) -> Float[Tensor, "B L"]:
        """Entropy of the token at each chosen position (nats); zero elsewhere."""
        return self._laid_out(entropy)

    @torch.no_grad()
    def _laid_out(self, reduce: Callable[[Tensor], Tensor]) -> Float[Tensor, "B L"]:
        """One number per position, computed from chunks of log_p_x0."""
        pieces = self._at(self._where).split(chunk_rows(self._denoiser.vocabulary.size))
        values = torch.cat([reduce(position_log_p(self._denoiser, piece)) for piece in pieces])
        return torch.zeros(self._where.shape, device=self._where.device).masked_scatter(self._where, values)
