"""Next-token prediction: what a judge is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.from_data import FromData


@dataclass(frozen=True, kw_only=True)
class Autoregressive(ObjectiveSettings):
    """Trains a judge on data: -log p(x_i | x_<i), averaged over the scored tokens."""

    commands: ClassVar[tuple[str, ...]] = ("pretrain",)
    architecture: ClassVar[str] = "gpt2"

    def prepare(self, materials: Materials) -> FromData:
        return FromData.of(materials, partial(autoregressive_loss, materials.network), {})


def autoregressive_loss(model: nn.Module, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, ""]:
    """Mean of -log p(x_i | x_<i) over the scored tokens of a batch (nats per token)."""
    del stream  # nothing is drawn
    nll, real = model.token_nll(tokens)  # type: ignore[operator]
    loss: Tensor = (nll * real).sum() / real.sum()
    return loss
