"""Next-token prediction: what a judge is trained on."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def autoregressive_loss(model: nn.Module, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, ""]:
    """Mean NLL per scored token of a batch: what a judge is trained on."""
    del stream  # nothing is drawn
    nll, real = model.token_nll(tokens)  # type: ignore[operator]
    loss: Tensor = (nll * real).sum() / real.sum()
    return loss
