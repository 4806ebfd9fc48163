"""Unmasking laws: which positions a call reveals.

A law gives every free position a *reveal time* u in (0, 1]; a grid cuts (0, 1] into steps, and a position is revealed
in the step whose interval holds its u. For u independent and uniform this is exactly the ancestral sampler: a position
masked at share a is revealed by share b with probability (b - a)/(1 - a). A masked model is trained on every visible
subset, so any law that does not look at the drawn tokens samples a valid any-order factorisation; laws differ in how
dependent the tokens are that they reveal together.

An *open* law has no grid: it says at every call which positions are revealed, so that the number of calls follows from
it (``open_laws``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from didi_core.catalogue import Catalogue
from didi_core.config import Choice, build, own_keys, split_choice
from didi_core.diffusion.beliefs import Beliefs
from didi_core.errors import InputError, unknown


class Law(Protocol):
    """How reveal times are given to positions.

    sees_model: ``reorder`` is called before every step with the model's confidence.
    """

    @property
    def name(self) -> str: ...

    @property
    def sees_model(self) -> bool: ...

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        """Reveal times in (0, 1] at the free positions; the rest is not read."""
        ...

    def reorder(
        self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], confidence: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """The reveal times of the masked positions dealt out anew.

        Args:
            confidence: probability of the likeliest token at each masked position.
        """
        return times


@runtime_checkable
class OpenLaw(Law, Protocol):
    """A law that decides at every call what is revealed: it goes by no grid, and the calls of a sequence are as many as
    it takes. ``times`` are what it draws once, such as an order; it may leave them unused."""

    def choose(self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], beliefs: Beliefs) -> Bool[Tensor, "B L"]:
        """Which masked positions are revealed: at least one in every row that has any."""
        ...


def ranks(keys: Float[Tensor, "B L"], free: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
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
class Iid(Law):
    """Every position on its own: the ancestral sampler of the continuous-time process."""

    name: ClassVar[str] = "iid"
    sees_model: ClassVar[bool] = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return _uniform(free, generator)


@dataclass(frozen=True)
class Stratified(Law):
    """A uniformly random order, with the number revealed per step as even as the grid allows."""

    name: ClassVar[str] = "stratified"
    sees_model: ClassVar[bool] = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return _spread(ranks(_uniform(free, generator), free), free, generator)


@dataclass(frozen=True)
class Dilated(Law):
    """Bit-reversed order with a random cyclic offset: positions revealed together lie far apart.

    The order is van der Corput's sequence over the free positions, so any run of consecutive ranks is spread evenly.
    """

    name: ClassVar[str] = "dilated"
    sees_model: ClassVar[bool] = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        n = free.sum(1, keepdim=True).clamp_min(1)
        place = free.cumsum(1) - 1
        offset = ((1 - _uniform(free[:, :1], generator)) * n).long().clamp_max(n - 1)
        turned = torch.where(free, (place + offset) % n, 0)
        return _spread(ranks(_van_der_corput(turned), free), free, generator)


@dataclass(frozen=True)
class Confidence(Law):
    """The positions at which the model is surest go first.

    Exact at one token per step, as every law is. The choice depends on the network, and a rollout's log-probability
    leaves that factor out.
    """

    name: ClassVar[str] = "confidence"
    sees_model: ClassVar[bool] = True

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


INSIDE: dict[str, Law] = {law.name: law for law in (Iid(), Stratified(), Dilated(), Confidence())}


@dataclass(frozen=True)
class Blocks(Law):
    """Left to right in blocks of ``size`` positions, by the law ``inside`` within a block (LLaDA's order)."""

    name: ClassVar[str] = "blocks"
    size: int = 32
    inside: str = "dilated"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"size={self.size} is out of range: a block has at least one position.")
        if self.inside not in INSIDE:
            raise unknown("law inside blocks", self.inside, INSIDE)

    @property
    def sees_model(self) -> bool:
        return INSIDE[self.inside].sees_model

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        inside = INSIDE[self.inside].times(free, generator)
        return _spread(ranks(_block(free, self.size) + inside, free), free, generator)

    def reorder(
        self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], confidence: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        # A whole less for every block to the right: the surest position of a block comes before all later blocks.
        return INSIDE[self.inside].reorder(times, masked, confidence.double() - 2 * _block(masked, self.size))


@dataclass(frozen=True)
class Threshold(Law):
    """Every position whose likeliest token has at least this probability, and the surest one whatever its probability.

    block: only within the leftmost block of so many positions that has masks; 0 for no blocks.
    """

    name: ClassVar[str] = "threshold"
    sees_model: ClassVar[bool] = True
    probability: float = 0.9
    block: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise InputError(f"probability={self.probability} is out of range: it must be in (0, 1].")
        _check_block(self.block)

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return torch.ones(free.shape, dtype=torch.float64, device=free.device)

    def choose(self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], beliefs: Beliefs) -> Bool[Tensor, "B L"]:
        near = _leftmost(masked, self.block)
        first = ranks(-beliefs.confidence, near) < 1
        return near & (first | (beliefs.confidence >= self.probability))


@dataclass(frozen=True)
class EntropyBound(Law):
    """The positions of lowest entropy, as many as together stay under ``bound`` nats, and the first one in any case.

    Tokens drawn together are drawn as if independent; what that costs is at most the sum of their entropies (Ben-Hamu
    et al. 2025, arXiv 2505.24857, who leave the largest of them out of the sum).

    block: as of ``Threshold``.
    """

    name: ClassVar[str] = "entropy_bound"
    sees_model: ClassVar[bool] = True
    bound: float = 1.0
    block: int = 0

    def __post_init__(self) -> None:
        if not self.bound >= 0:
            raise InputError(f"bound={self.bound} is out of range: it must not be negative.")
        _check_block(self.block)

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return torch.ones(free.shape, dtype=torch.float64, device=free.device)

    def choose(self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], beliefs: Beliefs) -> Bool[Tensor, "B L"]:
        near = _leftmost(masked, self.block)
        rank = ranks(beliefs.entropy, near).long()
        ordered = torch.zeros_like(beliefs.entropy).scatter(1, rank, beliefs.entropy.masked_fill(~near, torch.inf))
        within = (ordered.cumsum(1) <= self.bound).gather(1, rank)
        return near & (within | (rank < 1))


def _block(like: Tensor, size: int) -> Float[Tensor, "1 L"]:
    """Number of the block that each position is in."""
    return (torch.arange(like.shape[1], device=like.device) // size).double()[None]


def _leftmost(masked: Bool[Tensor, "B L"], size: int) -> Bool[Tensor, "B L"]:
    """The masks of each row's leftmost block that has any; all of them where there are no blocks."""
    if not size:
        return masked
    block = _block(masked, size).masked_fill(~masked, torch.inf)
    return masked & (block == block.amin(1, keepdim=True))


def _check_block(size: int) -> None:
    if size < 0:
        raise InputError(f"block={size} is out of range: a number of positions, or 0 for no blocks.")


BUILT_IN: tuple[Law, ...] = (*INSIDE.values(), Blocks(), Threshold(), EntropyBound())
LAWS: Catalogue[Law] = Catalogue("unmasking law", {law.name: law for law in BUILT_IN})
PROTOCOL = ("name", "sees_model")  # fields of a law that are not keys of its own


def law(choice: Choice, where: str = "law") -> Law:
    """The unmasking law of a name, or of ``{kind: name, ...}`` with keys of its own.

    Raises:
        InputError: a name that is not known, or a key that the law does not have.
    """
    name, own = split_choice(choice, where)
    found = LAWS.find(name, where)
    if not own:
        return found
    known = own_keys(found, PROTOCOL)
    for key in own:
        if key not in known:
            raise unknown("key", key, known, f"{where}={name}")
    return build(type(found), {key: getattr(found, key) for key in known} | own, where)
