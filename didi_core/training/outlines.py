"""Copies of a network that have no values yet: they get them once it is decided how much of them a process holds.

Several processes decide so after the objective has made its networks (``didi_core.training.placement.chosen``). A copy
that had values before would be whole on every process, however small a part is kept of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from didi_core.errors import DidiError
from didi_core.models.noise import copied_from
from didi_core.training.optimiser import local

N = TypeVar("N", bound=nn.Module)
TRUNK = "network."  # where a scorer has its trunk, which is a copy of the teacher


def outlined(network: N) -> N:
    """A copy of a network whose parameters have shapes and types, and no values. Buffers are copied."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in network.parameters()
    }
    return copy.deepcopy(network, memo)


def is_outline(network: nn.Module) -> bool:
    """Whether a parameter of the network has no values."""
    return any(parameter.is_meta for parameter in network.parameters())


def on_device(network: N, device: torch.device) -> N:
    """Move what a network has to a device, in place; what has no values stays without."""
    return network._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def fill(network: nn.Module, like: Sequence[nn.Module]) -> None:
    """Give every parameter without values those of the parameter that has its name in one of the other networks.

    Where both are sharded, a process copies its part, so that nothing is gathered. Types are the outline's own, and all
    that it has is moved to the device of the others.

    Raises:
        DidiError: none of the networks has such a parameter.
    """
    theirs = {name: p for other in like for name, p in other.named_parameters(remove_duplicate=False)}
    found: dict[int, torch.Tensor] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if not parameter.is_meta:
            continue
        names = (name, name.removeprefix(TRUNK), copied_from(network, name))
        value = next((theirs[one] for one in names if one in theirs), None)
        if value is None or value.shape != parameter.shape:
            raise DidiError(
                f"a {type(network).__name__} was made as a copy of the teacher, which has no {name} of shape "
                f"{tuple(parameter.shape)}. Start it with parallel=replicate."
            )
        found[id(parameter)] = value

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_meta:
            return tensor.to(next(iter(found.values())).device)
        value = found[id(tensor)]
        made = torch.empty_like(tensor, device=value.device)
        local(made).copy_(local(value))
        return made

    if found:
        network._apply(filled)
