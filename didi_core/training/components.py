"""The networks of a run and the bytes that they hold: as they are, or as they will be once the run goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from didi_core.training.objective import Learner
from didi_core.training.optimiser import local
from didi_core.training.trainee import Trainee

GIB = 1 << 30
ADAM_STATES = 2  # numbers of AdamW for each that learns


@dataclass(frozen=True)
class Component:
    """One network: number of parameters, and bytes of everything else."""

    name: str
    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimiser: int
    ema: int

    @property
    def kept(self) -> int:
        """What it takes between updates; its gradients are there while it learns."""
        return self.weights + self.optimiser + self.ema

    def shard(self, processes: int) -> Component:
        """What one of so many processes holds of it."""
        sizes = {name: getattr(self, name) // processes for name in ("weights", "gradients", "optimiser", "ema")}
        return replace(self, **sizes)


def largest_gradients(networks: Iterable[Component]) -> int:
    """Bytes of gradients at one time: one network learns at a time, and they are freed after its update."""
    return max((one.gradients for one in networks), default=0)


def components(frozen: Mapping[str, nn.Module], trainees: Sequence[Trainee]) -> tuple[Component, ...]:
    """The networks of a run: frozen ones, and trained ones with their optimisers. What they share counts once."""
    fresh = _once()
    made = [_frozen(name, network, fresh) for name, network in frozen.items()]
    for trainee in trainees:
        learnt = _learnt(trainee.learner.network)
        states = [value for p in learnt for value in trainee.optimiser.state[p].values()]
        shadow = trainee.ema.shadow.values() if trainee.ema else ()
        optimiser = sum(local(value).nbytes for value in states if isinstance(value, torch.Tensor))
        made.append(_learning(trainee.learner, fresh, optimiser, sum(local(tensor).nbytes for tensor in shadow)))
    return tuple(made)


def expected(frozen: Mapping[str, nn.Module], learners: Sequence[Learner]) -> tuple[Component, ...]:
    """The same, computed before there are optimisers. AdamW keeps nothing for a learner that is never updated."""
    fresh = _once()
    made = [_frozen(name, network, fresh) for name, network in frozen.items()]
    for learner in learners:
        size = sum(p.nbytes for p in _learnt(learner.network))
        optimiser = ADAM_STATES * size if learner.updates else 0
        made.append(_learning(learner, fresh, optimiser, size if learner.ema is not None else 0))
    return tuple(made)


def in_gib(size: int) -> str:
    """``1.25``; a dash for nothing."""
    return f"{size / GIB:.2f}" if size else "–"


def _frozen(name: str, network: nn.Module, fresh: Callable[[nn.Module], int]) -> Component:
    return Component(name, sum(p.numel() for p in network.parameters()), 0, fresh(network), 0, 0, 0)


def _learning(learner: Learner, fresh: Callable[[nn.Module], int], optimiser: int, ema: int) -> Component:
    learnt = _learnt(learner.network)
    return Component(
        learner.name,
        sum(p.numel() for p in learner.network.parameters()),
        sum(p.numel() for p in learnt),
        fresh(learner.network),
        sum(local(p).nbytes for p in learnt),
        optimiser,
        ema,
    )


def _learnt(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


def _once() -> Callable[[nn.Module], int]:
    """Bytes of the parameters of a network that were in none of those before it."""
    seen = set[int]()

    def fresh(network: nn.Module) -> int:
        own = [p for p in network.parameters() if id(p) not in seen]
        seen.update(map(id, own))
        return sum(local(p).nbytes for p in own)

    return fresh
