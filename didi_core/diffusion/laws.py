"""Which positions a step reveals: unmasking laws and time grids.

A law gives every free position a *reveal time* u in (0, 1]; a grid cuts (0, 1] into steps, and a position is revealed
in the step whose interval holds its u. For u independent and uniform this is exactly the ancestral sampler: a position
masked at share a is revealed by share b with probability (b - a)/(1 - a). A masked model is trained on every visible
subset, so any law that does not look at the drawn tokens samples a valid any-order factorisation; laws differ in how
dependent the tokens are that they reveal together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from didi_core.catalogue import Catalogue
from didi_core.errors import InputError, unknown


class Law(Protocol):
    """How reveal times are given to positions."""

    @property
    def name(self) -> str: ...

    @property
    def sees_model(self) -> bool:
        """True: ``reorder`` is called before every step with the model's confidence."""
        ...

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        """Reveal times in (0, 1] at the free positions; the rest is not read."""
        ...

    def reorder(
        self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], confidence: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """The reveal times of the masked positions dealt out anew."""
        ...


def _ranks(keys: Float[Tensor, "B L"], free: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """0-based rank of each free position among the free ones of its row, by ascending key."""
    keys = keys.masked_fill(~free, torch.inf)
    return keys.argsort(dim=1, stable=True).argsort(dim=1, stable=True).to(torch.float64)


def _uniform(like: Tensor, generator: torch.Generator) -> Float[Tensor, "B L"]:
    """Draws in (0, 1], double precision so that no two positions tie, on the device of ``like``."""
    draws = torch.rand(like.shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (1 - draws).to(like.device)


def _spread(ranks: Float[Tensor, "B L"], free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
    """One reveal time in each of n equal strata, shifted by one offset per row.

    Positions of consecutive ranks then follow each other at distance 1/n, so every step reveals its expected
    number, rounded up or down; the common offset makes every share exact on average.
    """
    n = free.sum(1, keepdim=True).clamp_min(1)
    offset = _uniform(free[:, :1], generator)
    return (ranks + offset) / n


@dataclass(frozen=True)
class Iid:
    """Every position on its own: the ancestral sampler of the continuous-time process."""

    name: str = "iid"
    sees_model: bool = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return _uniform(free, generator)

    def reorder(self, times: Tensor, masked: Tensor, confidence: Tensor) -> Tensor:
        return times


@dataclass(frozen=True)
class Stratified:
    """A uniformly random order, with the number revealed per step as even as the grid allows."""

    name: str = "stratified"
    sees_model: bool = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return _spread(_ranks(_uniform(free, generator), free), free, generator)

    def reorder(self, times: Tensor, masked: Tensor, confidence: Tensor) -> Tensor:
        return times


@dataclass(frozen=True)
class Dilated:
    """Bit-reversed order with a random cyclic offset: positions revealed together lie far apart.

    The order is van der Corput's sequence over the free positions, so any run of consecutive ranks is spread evenly.
    """

    name: str = "dilated"
    sees_model: bool = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        n = free.sum(1, keepdim=True).clamp_min(1)
        place = free.cumsum(1) - 1
        offset = ((1 - _uniform(free[:, :1], generator)) * n).long().clamp_max(n - 1)
        turned = torch.where(free, (place + offset) % n, 0)
        return _spread(_ranks(_van_der_corput(turned), free), free, generator)

    def reorder(self, times: Tensor, masked: Tensor, confidence: Tensor) -> Tensor:
        return times


@dataclass(frozen=True)
class Confidence:
    """The positions at which the model is surest go first.

    Exact at one token per step, as every law is. The choice depends on the network, and a rollout's log-probability
    leaves that factor out.
    """

    name: str = "confidence"
    sees_model: bool = True

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return Stratified().times(free, generator)

    def reorder(
        self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], confidence: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        surest_first = confidence.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        dealt = times.masked_fill(~masked, torch.inf).sort(dim=1).values
        return torch.where(masked, torch.empty_like(times).scatter_(1, surest_first, dealt), times)


def _van_der_corput(index: Tensor) -> Tensor:
    """Bits of a non-negative integer mirrored at the binary point: 1 -> 1/2, 2 -> 1/4, 3 -> 3/4, ..."""
    value, base = torch.zeros(index.shape, dtype=torch.float64, device=index.device), 0.5
    while bool((index > 0).any()):
        value += (index % 2) * base
        index, base = index // 2, base / 2
    return value


BUILT_IN: tuple[Law, ...] = (Iid(), Stratified(), Dilated(), Confidence())
LAWS: Catalogue[Law] = Catalogue("unmasking law", {law.name: law for law in BUILT_IN})


def law(name: str) -> Law:
    """The unmasking law of that name."""
    return LAWS.find(name)


def uniform_grid(steps: int) -> Float[Tensor, "k"]:
    """Every step reveals the same share."""
    return power_grid(steps, 1.0)


def power_grid(steps: int, power: float = 3.0) -> Float[Tensor, "k"]:
    """Share revealed after step i of k: (i/k)^power. Few tokens first, so that they commit to one mode."""
    _check_steps(steps)
    if power <= 0:
        raise InputError(f"grid power must be positive, got {power}")
    return (torch.arange(1, steps + 1, dtype=torch.float64) / steps) ** power


def cosine_grid(steps: int) -> Float[Tensor, "k"]:
    """Share 1 - cos(pi i / 2k): MaskGIT's grid."""
    _check_steps(steps)
    shares = 1 - torch.cos(torch.arange(1, steps + 1, dtype=torch.float64) * (math.pi / 2 / steps))
    shares[-1] = 1.0
    return shares


def optimised_grid(
    steps: int, entropy_at: Callable[[Float[Tensor, "n"]], Float[Tensor, "n"]], points: int = 33
) -> Float[Tensor, "k"]:
    """The grid that minimises the expected cost of revealing tokens together, for one teacher.

    Args:
        entropy_at: mean NLL per masked token (nats) at given shares, measured on validation data; it falls with the
            share.
        points: resolution of the search.

    Revealing from share a to b in one call codes those tokens at the NLL of a instead of the running one, so a step
    costs integral_a^b (H(a) - H(u)) du: a Riemann sum's error. Dynamic programming over ``points`` shares finds its
    minimum exactly (the idea of Watson et al. 2021 for continuous diffusion, here with the any-order likelihood).
    """
    _check_steps(steps)
    points = max(points, 4 * steps + 1)
    shares = torch.linspace(0, 1, points, dtype=torch.float64)
    nll = torch.cummin(entropy_at(shares).to(torch.float64), dim=0).values
    area = torch.zeros(points, dtype=torch.float64)
    area[1:] = torch.cumsum((nll[1:] + nll[:-1]) / 2 * shares.diff(), 0)
    cost = nll[:, None] * (shares[None] - shares[:, None]) - (area[None] - area[:, None])
    cost = torch.where(shares[None] > shares[:, None], cost, torch.inf)
    best, previous = cost[0].clone(), []
    for _ in range(steps - 1):
        total = best[:, None] + cost
        previous.append(total.argmin(0))
        best = total.min(0).values
    path = [points - 1]
    for back in reversed(previous):
        path.append(int(back[path[-1]]))
    return shares[torch.tensor(path[::-1])]


GRIDS = ("uniform", "power", "cosine", "optimised")


def grid(
    name: str,
    steps: int,
    *,
    power: float = 3.0,
    entropy_at: Callable[[Float[Tensor, "n"]], Float[Tensor, "n"]] | None = None,
) -> Float[Tensor, "k"]:
    """Shares revealed after each of ``steps`` steps, ascending, the last one 1."""
    if name == "uniform":
        return uniform_grid(steps)
    if name == "power":
        return power_grid(steps, power)
    if name == "cosine":
        return cosine_grid(steps)
    if name == "optimised":
        if entropy_at is None:
            raise InputError("grid=optimised needs the NLL curve of a denoiser on validation data; none was given.")
        return optimised_grid(steps, entropy_at)
    raise unknown("grid", name, GRIDS)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps={steps} is out of range: at least one denoiser call is needed.")
