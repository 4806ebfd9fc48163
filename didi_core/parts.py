"""A batch cut into parts: those that one process holds one after the other, and those of other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

Average = Callable[[Sequence[nn.Parameter]], None]  # puts the mean over all processes into every gradient


def keep_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """The average over one process: the gradients as they are."""
    del parameters


@dataclass(frozen=True)
class Part:
    """One part of a batch.

    number, total: which part, of how many in the whole batch. A part's randomness follows from its number, so that it
        does not matter which process plays it.
    turn, turns: which of the parts of its own process, of how many. Gradients of ``loss / turns`` add up to those of
        the process, and after the last turn ``average`` makes them those of the batch.
    """

    number: int = 0
    total: int = 1
    turn: int = 0
    turns: int = 1
    average: Average = keep_gradients

    @property
    def first(self) -> bool:
        """Whether its process begins an update with it."""
        return self.turn == 0

    @property
    def last(self) -> bool:
        """Whether its process ends an update with it."""
        return self.turn == self.turns - 1


WHOLE = Part()
