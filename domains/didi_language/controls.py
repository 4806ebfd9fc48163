"""Negative controls: degraded copies of a text's tokens that a metric must distinguish from the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.streams import generator

REPEATED = 8  # the first of so many equal parts of the text is repeated


def shuffled(tokens: Int[Tensor, "L"], size: int, stream: torch.Generator) -> Int[Tensor, "L"]:
    """The text's own tokens in random order."""
    del size
    return tokens[torch.randperm(len(tokens), generator=stream)]


def random(tokens: Int[Tensor, "L"], size: int, stream: torch.Generator) -> Int[Tensor, "L"]:
    """The same number of tokens, drawn uniformly from the vocabulary."""
    return torch.randint(size, tokens.shape, generator=stream)


def repeats(tokens: Int[Tensor, "L"], size: int, stream: torch.Generator) -> Int[Tensor, "L"]:
    """The beginning of the text over and over, as a model writes when sampling degenerates."""
    del size, stream
    part = tokens[: max(len(tokens) // REPEATED, 1)]
    return part.repeat(-(-len(tokens) // len(part)))[: len(tokens)]


CONTROLS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "shuffled": shuffled,
    "random": random,
    "repeats": repeats,
}


def controls(rows: Sequence[Sequence[int]], size: int, seed: int) -> dict[str, list[list[int]]]:
    """Every control of every row of token ids; ``size`` is the number of tokens that may be drawn."""
    return {
        name: [
            make(torch.tensor(row, dtype=torch.long), size, generator(seed, "text control", name, i)).tolist()
            for i, row in enumerate(rows)
        ]
        for name, make in CONTROLS.items()
    }
