"""Noise for denoisers that read it: a new vector for every sequence and call, drawn from the caller's stream."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.types import Denoiser, NoisyDenoiser


def fresh_noise(denoiser: Denoiser, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, "B Z"] | None:
    """A vector of standard normal numbers for each row. For a denoiser without noise: None, and nothing is drawn."""
    if not isinstance(denoiser, NoisyDenoiser) or not denoiser.noise_size:
        return None
    size = (len(tokens), denoiser.noise_size)
    return torch.randn(size, generator=stream, device=stream.device).to(tokens.device)


def noisy_trunk(denoiser: Denoiser, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, "B L D"]:
    """Hidden states of one call, with fresh noise for a denoiser that reads it."""
    noise = fresh_noise(denoiser, tokens, stream)
    if noise is None:
        return denoiser.trunk(tokens)
    assert isinstance(denoiser, NoisyDenoiser), "only these have noise"
    return denoiser.trunk(tokens, noise)
