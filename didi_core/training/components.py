"""The networks of a run and the bytes that they hold: as they are, or as they will be once the run goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from didi_core.training.objective import Learner, last_of_each
from didi_core.training.optimiser import local
from didi_core.training.trainee import Trainee

GIB = 1 << 30
ADAM_STATES = 2  # numbers of AdamW for each that learns
Parameters = Iterable[nn.Parameter]


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
    whole = last_of_each([trainee.learner for trainee in trainees])
    for trainee in trainees:
        learnt = trainee.learner.learnt.values()
        states = [value for p in learnt for value in trainee.optimiser.state[p].values()]
        shadow = trainee.ema.shadow.values() if trainee.ema else ()
        optimiser = sum(local(value).nbytes for value in states if isinstance(value, torch.Tensor))
        average = sum(local(tensor).nbytes for tensor in shadow)
        made.append(_learning(trainee.learner, trainee.learner in whole, fresh, optimiser, average))
    return tuple(made)


def expected(frozen: Mapping[str, nn.Module], learners: Sequence[Learner]) -> tuple[Component, ...]:
    """The same, computed before there are optimisers. AdamW keeps nothing for a learner that is never updated."""
    fresh = _once()
    made = [_frozen(name, network, fresh) for name, network in frozen.items()]
    whole = last_of_each(learners)
    for learner in learners:
        size = sum(p.nbytes for p in learner.learnt.values())
        optimiser = ADAM_STATES * size if learner.updates else 0
        made.append(_learning(learner, learner in whole, fresh, optimiser, size if learner.ema is not None else 0))
    return tuple(made)


def in_gib(size: int) -> str:
    """``1.25``; a dash for nothing."""
    return f"{size / GIB:.2f}" if size else "–"


def _frozen(name: str, network: nn.Module, fresh: Callable[[Parameters], int]) -> Component:
    return Component(name, sum(p.numel() for p in network.parameters()), 0, fresh(network.parameters()), 0, 0, 0)


def _learning(
    learner: Learner, rest: bool, fresh: Callable[[Parameters], int], optimiser: int, ema: int
) -> Component:
    """rest: whether what it does not train of its network counts as its own."""
    learnt = learner.learnt.values()
    held = list(learner.network.parameters()) if rest else learnt
    return Component(
        learner.name,
        sum(p.numel() for p in held),
        sum(p.numel() for p in learnt),
        fresh(held),
        sum(local(p).nbytes for p in learnt),
        optimiser,
        ema,
    )


def _once() -> Callable[[Parameters], int]:
    """Bytes of the parameters of a network that were in none of those before it."""
    seen = set[int]()

    def fresh(held: Parameters) -> int:
        own = [p for p in held if id(p) not in seen]
        seen.update(map(id, own))
        return sum(local(p).nbytes for p in own)

    return fresh
