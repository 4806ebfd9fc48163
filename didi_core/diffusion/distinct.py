"""The distinct rows of a batch of tokens."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.streams import generator


def distinct_rows(tokens: Int[Tensor, "B L"]) -> tuple[Int[Tensor, "U L"], Int[Tensor, "B"]]:
    """Each different row once, and for each row of ``tokens`` the index of its own.

    Where all rows differ, they keep their order. On a CPU equal rows are found by sorting, elsewhere by hashes: a GPU
    takes a millisecond to sort 64 rows of 300 tokens.
    """
    unique, own = torch.unique(tokens, dim=0, return_inverse=True) if tokens.device.type == "cpu" else hashed(tokens)
    if len(unique) == len(tokens):
        return tokens, torch.arange(len(tokens), device=tokens.device)
    return unique, own


def hashed(tokens: Int[Tensor, "B L"]) -> tuple[Int[Tensor, "U L"], Int[Tensor, "B"]]:
    """The distinct rows in the order of their hashes; in any order where all differ.

    Rows of equal hashes are compared. Where any two differ, all rows are sorted instead.
    """
    keys = (tokens * factors(tokens.shape[1], tokens.device)).sum(1)  # modulo 2**64
    found, own = torch.unique(keys, return_inverse=True)
    numbers = torch.arange(len(tokens), device=tokens.device)
    if len(found) == len(tokens):
        return tokens, numbers
    unique = tokens[torch.zeros_like(found).scatter_(0, own, numbers)]
    if bool((unique[own] == tokens).all()):
        return unique, own
    return torch.unique(tokens, dim=0, return_inverse=True)


@lru_cache
def factors(width: int, device: torch.device) -> Int[Tensor, "L"]:
    """A random number of 64 bits for each column, the same in every process."""
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    return torch.randint(low, high, (width,), generator=generator(0, "hash")).to(device)
