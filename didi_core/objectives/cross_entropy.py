"""Masked cross-entropy: the loss of teachers, and of fake denoisers that follow the student."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.heads import token_log_p
from didi_core.diffusion.noise import noisy_trunk
from didi_core.types import Denoiser


def masked_nll(
    denoiser: Denoiser,
    xt: Int[Tensor, "B L"],
    x0: Int[Tensor, "B L"],
    stream: torch.Generator | None = None,
    where: Bool[Tensor, "B L"] | None = None,
) -> Float[Tensor, "N"]:
    """-log p(x0_l | xt) at the N masked positions of xt, row by row. Only these go through the head.

    stream: of the noise of a denoiser that reads some; None for the noise of zeros, as teachers and fakes read it.
    where: the positions, if x0 has masks of its own.
    """
    rows, columns = (xt == denoiser.vocabulary.mask if where is None else where).nonzero(as_tuple=True)
    hidden = denoiser.trunk(xt) if stream is None else noisy_trunk(denoiser, xt, stream)
    return -token_log_p(denoiser, hidden[rows, columns], x0[rows, columns])
