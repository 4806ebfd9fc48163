"""Weights in fp32 for networks that learn in full, whatever type their teacher is kept in."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

N = TypeVar("N", bound=nn.Module)


def with_master_weights(network: N) -> N:
    """The network with all weights in fp32 at least, in place: in half precision, small updates would round to none."""
    for parameter in network.parameters():
        if parameter.is_floating_point() and parameter.element_size() < 4:
            parameter.data = parameter.data.float()
    return network
