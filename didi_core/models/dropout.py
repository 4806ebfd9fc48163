"""No dropout in networks that are distilled."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

N = TypeVar("N", bound=nn.Module)


def without_dropout(network: N) -> N:
    """Turn dropout off for good, in place, whatever a network was pretrained with; also that of its copies.

    A rollout's log-probability must be that of the network which drew it, and two calls on the same state must agree.
    """
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0  # type: ignore[assignment]
    return network
