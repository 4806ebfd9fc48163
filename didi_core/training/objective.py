"""The vocabulary of training: what an objective is, and all that the engine knows of it.

An objective names the networks that learn, draws a batch, and says what each network minimises on it. The engine
(``didi_core.training.engine``) owns everything else: optimisers, schedules, accumulation, processes, precision,
averages, checkpoints, resume and the journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from didi_core.errors import DidiError, InputError
from didi_core.training.optimiser import OptimiserSettings

Scalars = Mapping[str, float]
Batch = TypeVar("Batch")


class Collapse(DidiError):
    """Training went wrong in a way that more steps do not mend."""


@dataclass(frozen=True)
class Learner:
    """A network that an objective trains, and how.

    name: of its files in a checkpoint and of its scalars.
    ema: decay of the averaged weights that are kept beside the present ones; None where nobody needs an average.
    updates: per step of the run. While the result is in its warm-up, every other learner makes one update a step.
    warmup: first steps of the run in which the network is left as it is.
    """

    name: str
    network: nn.Module
    optimiser: OptimiserSettings
    ema: float | None = None
    updates: int = 1
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.updates < 0 or self.warmup < 0:
            raise InputError(f"{self.name}: updates={self.updates}, warmup={self.warmup} must not be negative.")


@dataclass(frozen=True)
class Terms:
    """The loss to minimise, and the scalars that show the health of a run."""

    loss: Float[Tensor, ""]
    scalars: Scalars = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """One slice of the batch of a step: what an objective draws from.

    A batch is cut into ``total`` slices over all processes, and everything about a slice follows from its number, so
    that it does not matter which process computes it.

    step: of the run, from 0.
    first: whether its process begins an update with it.
    update: number of the learner's update, from 0 over the whole run; 0 while a batch is drawn.
    stream: what is drawn for this slice. The batch draws from it first, then the loss of each learner in turn.
    """

    step: int = 0
    number: int = 0
    total: int = 1
    first: bool = True
    update: int = 0
    stream: torch.Generator = field(default_factory=torch.Generator)

    def of(self, whole: Tensor) -> Tensor:
        """The rows of this slice, of a tensor with the rows of all slices."""
        rows = whole.shape[0] // self.total
        return whole[self.number * rows : (self.number + 1) * rows]


class Objective(Protocol[Batch]):
    """What is minimised, and by which networks. Subclass it: ``check`` and ``record`` have defaults."""

    def learners(self) -> Sequence[Learner]:
        """The networks that learn, in the order of their updates. The last one is the result of the run."""
        ...

    def batch(self, slice: Slice) -> Batch:
        """Data or rollouts for one slice.

        The same slice with a fresh stream gives the same batch. The engine asks twice where other learners come before
        the result and the slice is not the last: only one slice's graph is held at a time. Gradients are enabled where
        the result is to learn from what is returned.
        """
        ...

    def loss(self, learner: str, batch: Batch, slice: Slice) -> Terms:
        """What the learner of that name minimises on the batch of one slice, and the scalars it shows."""
        ...

    def check(self, step: int, scalars: Scalars) -> None:
        """Raise ``Collapse`` where the scalars of a step show that training went wrong. Non-finite ones are caught."""
        return

    def record(self) -> Mapping[str, Any]:
        """What the card of the result says of this objective."""
        return {}


@runtime_checkable
class Validated(Protocol):
    """An objective whose result is measured on held-out data every ``validate_every`` steps and after the last."""

    validate_every: int

    def validate(self) -> float:
        """Validation loss. The averaged weights are in place, the network is in eval mode, gradients are off."""
        ...


def check_finite(step: int, scalars: Scalars) -> None:
    """Stop at the first value that is not a number."""
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise Collapse(
                f"step {step}: {name} is {value}. The last checkpoint is intact. "
                "Lower training.lr, or use precision=fp32 if this ran in bf16; then repeat with another run_dir."
            )
