"""Divergences between categorical distributions, given as log-probabilities; -inf marks a forbidden token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from didi_core.errors import unknown

LOG_ZERO = -1e9  # stands for log 0: times the probability 0 it is 0, and not nan

def entropy(log_p: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """Shannon entropy in nats: H(p) = -sum_a p(a) log p(a)."""
    return -(log_p.exp() * log_p.clamp_min(LOG_ZERO)).sum(-1)


def forward_kl(log_p: Float[Tensor, "... V"], log_q: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """KL(p || q) = sum_a p(a) (log p(a) - log q(a)) in nats: the model q covers every mode of the reference p.

    Tokens forbidden in both contribute zero. Their -inf is clamped so that gradients stay finite.
    """
    return (log_p.exp() * (log_p.clamp_min(LOG_ZERO) - log_q.clamp_min(LOG_ZERO))).sum(-1)


def reverse_kl(log_p: Float[Tensor, "... V"], log_q: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """KL(q || p): the model q stays where the reference p has mass."""
    return forward_kl(log_q, log_p)


def jeffreys(log_p: Float[Tensor, "... V"], log_q: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """KL(p || q) + KL(q || p) in nats."""
    return ((log_p.exp() - log_q.exp()) * (log_p.clamp_min(LOG_ZERO) - log_q.clamp_min(LOG_ZERO))).sum(-1)


Divergence = Callable[[Tensor, Tensor], Tensor]
DIVERGENCES: dict[str, Divergence] = {"forward": forward_kl, "reverse": reverse_kl, "jeffreys": jeffreys}


class Mixture(NamedTuple):
    """A divergence of a model q from its reference p: reverse * KL(q || p) + forward * KL(p || q)."""

    reverse: float
    forward: float


MIXTURES: dict[Divergence, Mixture] = {
    forward_kl: Mixture(0.0, 1.0),
    reverse_kl: Mixture(1.0, 0.0),
    jeffreys: Mixture(1.0, 1.0),
}


def divergence(name: str, where: str = "") -> Divergence:
    """The divergence of that name: ``f(log_p_reference, log_q_model)``. Raises InputError for another name.

    Args:
        where: dotted key that has this name, for the message.
    """
    if name not in DIVERGENCES:
        raise unknown("divergence", name, DIVERGENCES, where)
    return DIVERGENCES[name]
