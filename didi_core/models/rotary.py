"""Rotary position embedding in the rotate-half layout, where channel i of a head is paired with channel i + E/2."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotary position embedding, base 10,000, rotate-half layout."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("inv_freq", self.frequencies())

    def frequencies(self) -> Float[Tensor, "E2"]:
        return 1.0 / 10_000 ** (torch.arange(0, self.width, 2).float() / self.width)

    def forward(self, positions: Int[Tensor, "N"]) -> tuple[Float[Tensor, "N 1 E"], Float[Tensor, "N 1 E"]]:
        """Cosines and sines of the angles of each position, as ``rotate`` reads them."""
        rates = self.inv_freq
        if rates.dtype not in (torch.float32, torch.float64):  # in half precision, late angles would be off by radians
            rates = self.frequencies().to(rates.device)
        return for_both_halves((positions[:, None] * rates)[:, None])


def for_both_halves(angles: Float[Tensor, "N 1 E2"]) -> tuple[Float[Tensor, "N 1 E"], Float[Tensor, "N 1 E"]]:
    """Cosines and signed sines for each channel, from the angle of each pair of channels."""
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(
    x: Float[Tensor, "N ... E"], cos: Float[Tensor, "N ... E"], sin: Float[Tensor, "N ... E"]
) -> Float[Tensor, "N ... E"]:
    """Rotate each pair (x_i, x_{i + E/2}) by the angle of its position, which is given by ``for_both_halves``."""
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([right, left], dim=-1) * sin).to(x.dtype)
