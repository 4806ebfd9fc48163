"""How the processes of a training share its networks: all hold all of them, or each holds a part.

``Replicated`` is the rule (see ``didi_core.processes``); ``didi_core.training.sharding`` has the other. Which one a run
has is decided in ``didi_core.training.placement``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import nn

from didi_core.processes import Processes
from didi_core.training.outlines import fill

REPLICATE, SHARD, AUTO = "replicate", "shard", "auto"
PARALLEL = (AUTO, REPLICATE, SHARD)
N = TypeVar("N", bound=nn.Module)


class Parallel(Protocol):
    """What the engine asks of either way."""

    @property
    def name(self) -> str: ...

    def place(self, network: nn.Module, like: Sequence[nn.Module] = ()) -> None:
        """Take charge of a network, in place, before it has an optimiser. Where it is an outline, it gets the values of
        ``like``."""
        ...

    def phase(self, learner: nn.Module | None = None) -> AbstractContextManager[None]:
        """Within, networks can be called, and a backward pass leaves gradients to those of the learner."""
        ...

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make the gradients of an update the mean over all processes, where ``phase`` has not done so."""
        ...

    def whole(self, network: N) -> N:
        """The network with all of its weights, on every process, after training. Nothing else is left of it."""
        ...

    def close(self) -> None:
        """Give up the parts of networks that nobody has asked for whole."""
        ...


@dataclass(frozen=True)
class Replicated:
    """``parallel=replicate``: every process holds all networks."""

    processes: Processes
    name: str = REPLICATE

    def place(self, network: nn.Module, like: Sequence[nn.Module] = ()) -> None:
        """Give an outline its values."""
        fill(network, like)

    def phase(self, learner: nn.Module | None = None) -> AbstractContextManager[None]:
        return nullcontext()

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        self.processes.all_reduce_gradients(parameters)

    def whole(self, network: N) -> N:
        return network

    def close(self) -> None:
        """Nothing."""


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network, or of the trunk that it wraps as ``network``; none where it has no ``blocks``."""
    for one in (network, getattr(network, "network", None)):
        found = getattr(one, "blocks", None)
        if found is not None:
            return [*found, *getattr(one, "first_blocks", [])]
    return []
