"""Endless batches of sequences: which rows go together, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError, unknown
from didi_core.types import Vocabulary

SPLITS = ("train", "validation")


def check_batches(split: str, batch_size: int, start: int) -> None:
    """Raise InputError for an impossible request, at the call and not at the first batch."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if batch_size < 1 or start < 0:
        raise InputError(f"batch_size={batch_size}, start={start}: need a positive batch size and start >= 0.")


def epoch_batches(lengths: Int[Tensor, "n"], size: int, pool: int, stream: torch.Generator) -> list[Int[Tensor, "B"]]:
    """One epoch of row numbers: shuffled, sorted by length in pools of ``pool`` batches, cut, and batches shuffled.

    The last batch is filled up from the beginning of the epoch.
    """
    n = len(lengths)
    count = -(-n // size)
    order = torch.randperm(n, generator=stream).repeat(-(-count * size // n))[: count * size]
    batches: list[Tensor] = []
    for rows in order.split(pool * size):
        batches.extend(rows[torch.argsort(lengths[rows], stable=True)].split(size))
    return [batches[i] for i in torch.randperm(count, generator=stream).tolist()]


def shuffled_batches(
    count: int, size: int, stream: Callable[[int], torch.Generator], start: int
) -> Iterator[Int[Tensor, "B"]]:
    """Endless batches of row numbers; every epoch shows each row once, in a new order.

    The last batch of an epoch is filled up from the beginning of the epoch. ``start`` costs one permutation.

    Args:
        count: of rows. stream: the random numbers of an epoch, by its number. start: of the first batch.
    """
    per_epoch = -(-count // size)
    epoch, skip = divmod(start, per_epoch)
    while True:
        order = torch.randperm(count, generator=stream(epoch))
        for number in range(skip, per_epoch):
            yield order[torch.arange(number * size, (number + 1) * size) % count]
        epoch, skip = epoch + 1, 0


def padded(rows: Sequence[np.ndarray], vocabulary: Vocabulary) -> Int[Tensor, "B L"]:
    """The rows of ids with the vocabulary's BOS and EOS, if it has them, padded on the right.

    Raises:
        InputError: rows have different lengths, and the vocabulary has no pad token.
    """
    front = int(vocabulary.bos is not None)
    ends = front + int(vocabulary.eos is not None)
    lengths = {len(row) for row in rows}
    if vocabulary.pad is None and len(lengths) > 1:
        raise InputError(f"lengths={sorted(lengths)[:5]}: without a pad token a batch holds sequences of one length.")
    tokens = np.full((len(rows), max(lengths) + ends), vocabulary.pad or 0, dtype=np.int64)
    if vocabulary.bos is not None:
        tokens[:, 0] = vocabulary.bos
    for line, row in zip(tokens, rows, strict=True):
        line[front : front + len(row)] = row
        if vocabulary.eos is not None:
            line[front + len(row)] = vocabulary.eos
    return torch.from_numpy(tokens)
