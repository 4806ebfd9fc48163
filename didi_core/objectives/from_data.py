"""Objectives that train one network on the domain's data, with a validation loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.objectives.base import Materials
from didi_core.objectives.reference import Batches
from didi_core.streams import generator
from didi_core.training.objective import Learner, Objective, Slice, Terms

Loss = Callable[[Int[Tensor, "B L"], torch.Generator], Float[Tensor, ""]]


@dataclass
class FromData(Objective[Tensor]):
    """Minimises ``loss_of(tokens, stream)`` of one network on batches of the domain's data.

    fixed: batches of the validation split, measured with the same noise every time.
    about: the objective's own settings, for the card.
    """

    network: nn.Module
    loss_of: Loss
    data: Batches
    fixed: list[Int[Tensor, "B L"]]
    materials: Materials
    about: Mapping[str, Any]

    @classmethod
    def of(cls, materials: Materials, loss: Loss, about: Mapping[str, Any]) -> FromData:
        run, training = materials.run, materials.training
        validation = run.domain.batches("validation", training.batch_size, run.seed)
        fixed = [next(validation) for _ in range(materials.validation_batches)]
        return cls(materials.network, loss, materials.data(), fixed, materials, about)

    @property
    def validate_every(self) -> int:
        return self.materials.validate_every

    def learners(self) -> list[Learner]:
        training = self.materials.training
        return [Learner("model", self.network, training.optimiser, training.ema)]

    def batch(self, slice: Slice) -> Int[Tensor, "B L"]:
        whole = self.data.batch(slice.step, self.materials.training.batch_size)
        return slice.of(whole).to(self.materials.run.device)

    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        loss = self.loss_of(batch, slice.stream)
        return Terms(loss, {"loss": loss})

    def validate(self) -> float:
        """Mean loss over the fixed batches, nats per position."""
        run = self.materials.run
        values = [
            float(self.loss_of(batch.to(run.device), generator(run.seed, "validation", i)))
            for i, batch in enumerate(self.fixed)
        ]
        return sum(values) / len(values)

    def record(self) -> Mapping[str, Any]:
        return self.about
