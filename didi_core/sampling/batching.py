"""Which samples are written together: lengths and templates, sorted into batches of similar lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError
from didi_core.types import Domain

Length = str | int | Sequence[str | int]  # 120, "80-120", or several of them


def length_ranges(length: Length) -> list[tuple[int, int]]:
    """Lowest and highest length of ``120``, ``"80-120"``, or each of a list. Raises InputError for anything else."""
    given = [length] if isinstance(length, str | int) else list(length)
    if not given:
        raise InputError("length=[] is empty: give a number, a range such as 80-120, or a list of them.")
    ranges = []
    for one in given:
        first, dash, second = str(one).partition("-")
        try:
            low = int(first)
            high = int(second) if dash else low
        except ValueError:
            raise InputError(
                f"length={one!r} is neither a number nor a range: write length=120, length=80-120 or length=[80,120]."
            ) from None
        if not 1 <= low <= high:
            raise InputError(f"length={one!r} is out of range: at least 1, and the range must not fall.")
        ranges.append((low, high))
    return ranges


def parse_length(length: Length | None, domain: Domain, num: int, stream: torch.Generator) -> list[int]:
    """Lengths (free positions) of ``num`` samples.

    ``120``, ``"80-120"`` (uniform), a list of them used in turn, or the domain's prior for None.
    """
    if length is None:
        return domain.lengths(num, stream)
    ranges = length_ranges(length)
    if len(ranges) == 1:
        low, high = ranges[0]
        return torch.randint(low, high + 1, (num,), generator=stream).tolist()
    turns = [ranges[i % len(ranges)] for i in range(num)]
    return [int(torch.randint(low, high + 1, (), generator=stream)) for low, high in turns]


@dataclass(frozen=True)
class Batches:
    """Templates of samples, sorted into batches of similar lengths.

    order: number of the sample that each row becomes, batch after batch.
    """

    templates: Sequence[Int[Tensor, "B L"]]
    order: Sequence[int]

    @classmethod
    def of_lengths(cls, domain: Domain, lengths: Sequence[int], size: int) -> Batches:
        """All-masked templates with these numbers of free positions."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        return cls([domain.template([lengths[i] for i in rows]) for rows in _cut(order, size)], order)

    @classmethod
    def of_templates(cls, templates: Sequence[Sequence[int]], num: int, size: int, pad: int | None) -> Batches:
        """``num`` samples of these templates, used round-robin. Raises InputError as ``stacked`` does."""
        which = [i % len(templates) for i in range(num)]
        order = sorted(range(num), key=lambda i: (len(templates[which[i]]), which[i]))
        return cls([stacked([templates[which[i]] for i in rows], pad) for rows in _cut(order, size)], order)


def _cut(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def stacked(rows: Sequence[Sequence[int]], pad: int | None) -> Int[Tensor, "B L"]:
    """Rows stacked, padded on the right. Raises InputError for rows of different lengths without a pad id."""
    width = max(len(row) for row in rows)
    if pad is None and any(len(row) != width for row in rows):
        raise InputError("sequences of different lengths need a domain with a padding token: give all one length.")
    return torch.tensor([[*row, *([pad] * (width - len(row)))] for row in rows])
