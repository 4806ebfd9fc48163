"""The interface between an objective and the engine: learners, batches, terms.

An objective names the networks that learn, draws a batch, and computes each network's loss on it. The engine
(``didi_core.training.engine``) owns everything else: optimisers, schedules, accumulation, processes, precision, EMA,
checkpoints, resume and the journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from didi_core.errors import DidiError, InputError
from didi_core.training.optimiser import OptimiserSettings

Scalars = Mapping[str, float]
Batch = TypeVar("Batch")


class Collapse(DidiError):
    """Training has failed in a way that more steps do not repair."""


@dataclass(frozen=True)
class Learner:
    """A network that an objective trains, and how. Several may train parts of one network, each at a rate of its own.

    name: prefix of its files in a checkpoint and of its scalars.
    ema: decay of the averaged weights that are kept beside the current ones; None for no average.
    updates: updates per step of the run. During the result's warm-up, every other learner makes one update per step.
    warmup: first steps of the run in which the network does not change.
    only: names of the parameters that it trains; None for all of the network that require a gradient.
    """

    name: str
    network: nn.Module
    optimiser: OptimiserSettings
    ema: float | None = None
    updates: int = 1
    warmup: int = 0
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.updates < 0 or self.warmup < 0:
            raise InputError(f"{self.name}: updates={self.updates}, warmup={self.warmup} must not be negative.")

    @property
    def learnt(self) -> dict[str, nn.Parameter]:
        """The parameters that it trains, by name."""
        named = self.network.named_parameters()
        return {name: p for name, p in named if p.requires_grad and (self.only is None or name in self.only)}


def networks_of(learners: Sequence[Learner]) -> list[nn.Module]:
    """The networks that learn, each once: several learners may train parts of one."""
    return list(dict.fromkeys(learner.network for learner in learners))


def last_of_each(learners: Sequence[Learner]) -> list[Learner]:
    """The last learner of every network: the one with which the whole network is kept and counted."""
    return list({learner.network: learner for learner in learners}.values())


@dataclass(frozen=True)
class Terms:
    """The loss to minimise, and what was measured beside it, as numbers or as scalar tensors of one device."""

    loss: Float[Tensor, ""]
    measured: Mapping[str, float | Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = {name: value.detach() if isinstance(value, Tensor) else value for name, value in self.measured.items()}
        object.__setattr__(self, "measured", own)  # without graphs, which would keep activations

    @cached_property
    def scalars(self) -> Scalars:
        """The scalars that show the health of a run. Read them after the backward pass, so that it need not wait."""
        return on_host(self.measured)


def checked_terms(terms: Any, learner: str) -> Terms:
    """What an objective's ``loss`` returned, if it can be minimised.

    Raises:
        InputError: it is not ``Terms``, its loss is not one number, or no parameter has an influence on it.
    """
    said = f"the objective's loss({learner!r}, ...) returned"
    if not isinstance(terms, Terms):
        raise InputError(f"{said} {type(terms).__name__}: return Terms(loss, {{name: number}}) of training.objective.")
    if not isinstance(terms.loss, Tensor) or terms.loss.numel() != 1:
        found = tuple(terms.loss.shape) if isinstance(terms.loss, Tensor) else terms.loss
        raise InputError(f"{said} a loss of {found}: it must be one number, a tensor of shape (), such as a mean.")
    if not terms.loss.requires_grad:
        raise InputError(
            f"{said} a loss without a gradient: compute it from the network {learner!r}, outside torch.no_grad() and "
            "without detach()."
        )
    return terms


def on_host(scalars: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Scalars as numbers; tensors are fetched together, so that the host waits for the device once."""
    found = {name: value.detach().double() for name, value in scalars.items() if isinstance(value, Tensor)}
    fetched = dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True)) if found else {}
    return {name: fetched[name] if isinstance(value, Tensor) else value for name, value in scalars.items()}


@dataclass(frozen=True)
class Slice:
    """One slice of a step's batch: the numbers and the stream that an objective draws it from.

    A batch is cut into ``total`` slices over all processes. Everything about a slice follows from its number, so it
    does not matter which process computes it.

    step: step of the run, from 0.
    first: whether it is the first slice of an update in its process.
    update: number of the learner's update, from 0 over the whole run; 0 while a batch is drawn.
    stream: random stream of this slice. The batch draws from it first, then the loss of each learner in turn.
    """

    step: int = 0
    number: int = 0
    total: int = 1
    first: bool = True
    update: int = 0
    stream: torch.Generator = field(default_factory=torch.Generator)

    def of(self, whole: Tensor) -> Tensor:
        """The rows of this slice, from a tensor with the rows of all slices."""
        rows = whole.shape[0] // self.total
        return whole[self.number * rows : (self.number + 1) * rows]


class Objective(Protocol[Batch]):
    """The losses of a run, and the networks that minimise them. Subclass it; ``check`` and ``record`` have defaults."""

    def learners(self) -> Sequence[Learner]:
        """The networks that learn, in the order of their updates. The last one is the result of the run."""
        ...

    def batch(self, slice: Slice) -> Batch:
        """Data or rollouts for one slice.

        The same slice with a fresh stream gives the same batch. The engine calls this twice where other learners
        precede the result and the slice is not the last, because it holds the graph of one slice only. Gradients are
        enabled where the result learns from the batch.
        """
        ...

    def loss(self, learner: str, batch: Batch, slice: Slice) -> Terms:
        """The loss of the learner of that name on the batch of one slice, and its scalars."""
        ...

    def check(self, step: int, scalars: Scalars) -> None:
        """Raise ``Collapse`` where a step's scalars show that training failed. The engine checks for finite values."""
        return

    def record(self) -> Mapping[str, Any]:
        """This objective's entries in the card of the result."""
        return {}


@runtime_checkable
class Validated(Protocol):
    """An objective whose result is measured on held-out data every ``validate_every`` steps and after the last."""

    validate_every: int

    def validate(self) -> float:
        """Validation loss. The averaged weights are in place, the network is in eval mode, gradients are off."""
        ...


def check_finite(step: int, scalars: Scalars) -> None:
    """Raise ``Collapse`` at the first scalar that is not finite."""
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise Collapse(
                f"step {step}: {name} is {value}. The last checkpoint is intact. "
                "Lower training.lr, or use precision=fp32 if this ran in bf16; then repeat with another run_dir."
            )
