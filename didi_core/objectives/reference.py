"""Sequences by batch number, from data or a kept set, so that a resumed run sees the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn

from didi_core.streams import generator


class Reference(Protocol):
    """Sequences that the student should resemble, by batch number."""

    def batch(self, index: int, n: int) -> Int[Tensor, "n L"]:
        """n sequences; the same index gives the same ones."""
        ...


@dataclass(frozen=True)
class SampleReference:
    """A fixed set of sequences (the teacher's samples), drawn without replacement within a batch."""

    sequences: Int[Tensor, "S L"]
    seed: int
    pad: int | None

    def batch(self, index: int, n: int) -> Int[Tensor, "n L"]:
        return trim(self.sequences[self.indices(index, n)], self.pad)

    def indices(self, index: int, n: int) -> Int[Tensor, "n"]:
        """Which of the sequences ``batch`` takes."""
        order = torch.randperm(self.sequences.shape[0], generator=generator(self.seed, "reference", index))
        return order.repeat(-(-n // order.numel()))[:n]


@dataclass
class Batches:
    """Batches of an endless source that is read in order; the newest is kept, because several learners ask for it."""

    open: Callable[[int, int], Iterator[Tensor]]  # (batch size, first batch) -> batches
    _newest: tuple[int, int, Tensor] | None = None
    _source: Iterator[Tensor] | None = None

    def batch(self, index: int, n: int) -> Int[Tensor, "n L"]:
        if self._newest is None or self._newest[:2] != (index, n):
            if self._source is None or self._newest is None or self._newest[:2] != (index - 1, n):
                self._source = self.open(n, index)
            self._newest = index, n, next(self._source)
        return self._newest[2]


def trim(tokens: Int[Tensor, "B L"], pad: int | None) -> Int[Tensor, "B M"]:
    """Cut off the columns that are padding in every row."""
    if pad is None:
        return tokens
    return tokens[:, : int((tokens != pad).sum(1).max())]


def pad_together(first: Int[Tensor, "A L"], second: Int[Tensor, "B M"], pad: int | None) -> Int[Tensor, "C N"]:
    """Two batches concatenated (A + B = C rows), the narrower one padded on the right."""
    width = max(first.shape[1], second.shape[1])
    if first.shape[1] == second.shape[1]:
        return torch.cat([first, second])
    if pad is None:
        raise ValueError("sequences of different lengths need a vocabulary with a pad token")
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[1]), value=pad) for part in (first, second)])
