"""Rows of logits in blocks that stay in a CPU's cache."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

BLOCK_ELEMENTS = 1 << 17  # logits of one block on a CPU: 512 KB in fp32


def row_blocks(logits: Float[Tensor, "n K"]) -> Iterator[slice]:
    """Slices of rows to process together: blocks that fit the cache on a CPU, all rows on other devices."""
    count = max(logits.shape[0], 1)
    step = max(BLOCK_ELEMENTS // logits.shape[1], 1) if logits.device.type == "cpu" else count
    return (slice(start, start + step) for start in range(0, count, step))
