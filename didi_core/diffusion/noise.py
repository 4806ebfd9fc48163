"""Noise for denoisers that read some: a new vector for every sequence and call, from the stream of who calls."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.types import Denoiser, NoisyDenoiser


def fresh_noise(denoiser: Denoiser, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, "B Z"] | None:
    """A vector of standard normal numbers for each row; None, and nothing drawn, for a denoiser that reads none."""
    if not isinstance(denoiser, NoisyDenoiser) or not denoiser.noise_size:
        return None
    size = (len(tokens), denoiser.noise_size)
    return torch.randn(size, generator=stream, device=stream.device).to(tokens.device)


def noisy_trunk(denoiser: Denoiser, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, "B L D"]:
    """Hidden states of one call, with fresh noise where the denoiser reads some."""
    noise = fresh_noise(denoiser, tokens, stream)
    if noise is None:
        return denoiser.trunk(tokens)
    assert isinstance(denoiser, NoisyDenoiser), "only these have noise"
    return denoiser.trunk(tokens, noise)
