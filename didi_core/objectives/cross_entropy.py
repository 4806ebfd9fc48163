"""Masked cross-entropy: what teachers are trained with, what a fake denoiser follows the student by."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.heads import token_log_p
from didi_core.types import Denoiser


def masked_nll(denoiser: Denoiser, xt: Int[Tensor, "B L"], x0: Int[Tensor, "B L"]) -> Float[Tensor, "N"]:
    """-log p(x0_l | xt) at the N masked positions of xt, row by row. Only these go through the head."""
    masked = xt == denoiser.vocabulary.mask
    return -token_log_p(denoiser, denoiser.trunk(xt)[masked], x0[masked])
