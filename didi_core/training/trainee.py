"""What the engine keeps of a run beside its loop: learners with their optimisers, validation losses, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from didi_core.models.adapter import OwnState, is_adapted
from didi_core.training.objective import Learner
from didi_core.training.optimiser import EMA, adamw
from didi_core.training.state import Stateful


@dataclass
class Trainee:
    """A learner with its optimiser and its EMA."""

    learner: Learner
    optimiser: torch.optim.Optimizer = field(init=False)
    ema: EMA | None = field(init=False)

    def __post_init__(self) -> None:
        learner = self.learner
        self.optimiser = adamw(learner.learnt.values(), learner.optimiser)
        self.ema = None if learner.ema is None else EMA(learner.network, learner.ema, learner.only)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def state(self, prefix: str, with_network: bool = True) -> dict[str, Stateful]:
        """Its states in a checkpoint, by name. with_network: not where those of another learner have its network."""
        network = self.learner.network
        own: Stateful = OwnState(network) if is_adapted(network) else network
        found: dict[str, Stateful] = {self.learner.name: own} if with_network else {}
        found |= {f"{prefix}optimiser": self.optimiser}
        return found if self.ema is None else found | {f"{prefix}ema": self.ema}


@dataclass
class Curve:
    """Validation loss by step; the card and checkpoints hold it."""

    values: dict[int, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "steps": torch.tensor(list(self.values), dtype=torch.int64),
            "values": torch.tensor(list(self.values.values()), dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.values = dict(zip(state["steps"].tolist(), state["values"].tolist(), strict=True))


@dataclass
class Clock:
    """Seconds in training, over all parts of a run that was interrupted and resumed.

    now: the clock on the wall. On a machine that others use too, ``time.process_time`` is fair where that is not.
    """

    now: ClassVar[Callable[[], float]] = time.monotonic
    before: float = 0.0
    started: float | None = None

    def start(self) -> None:
        self.started = Clock.now()

    @property
    def seconds(self) -> float:
        return self.before + (0.0 if self.started is None else Clock.now() - self.started)

    def state_dict(self) -> dict[str, Tensor]:
        return {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.before = float(state["seconds"])


@contextmanager
def averaged(trainee: Trainee) -> Iterator[None]:
    """Within, the network has its averaged weights and is in eval mode; afterwards its own weights are restored."""
    network, ema = trainee.learner.network, trainee.ema
    network.eval()
    if ema is None:
        yield
        return
    present = {name: p.detach().clone() for name, p in network.named_parameters() if name in ema.shadow}
    ema.copy_to(network)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in present:
                    parameter.copy_(present[name])
