"""Activation checkpointing: a block keeps its input only, and is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from didi_core.errors import InputError
from didi_core.training.parallel import blocks_of


@contextmanager
def recomputing(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Within, the blocks of these networks do so in calls with gradients. Results and gradients are the same.

    Raises:
        InputError: none of them has blocks.
    """
    blocks = list(dict.fromkeys(block for network in networks for block in blocks_of(network)))
    if not blocks:
        raise InputError(
            f"training.activation_checkpointing=true: a {type(networks[-1]).__name__} has no blocks. Leave it out."
        )
    for block in blocks:
        block.forward = partial(_twice, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the one of its class


def _twice(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(forward, *arguments, use_reentrant=False, **keywords)
