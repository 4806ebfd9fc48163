"""Unmasking laws: which positions a call reveals.

A law gives every free position a *reveal time* u in (0, 1]. A grid cuts (0, 1] into steps, and a position is revealed
in the step whose interval holds its u. With independent uniform u this is exactly the ancestral sampler: a position
masked at share a is revealed by share b with probability (b - a)/(1 - a). A masked model is trained on every visible
subset, so any law that does not look at the drawn tokens samples a valid any-order factorisation. Laws differ in how
strongly the tokens that they reveal together depend on each other.

An *open* law has no grid: at every call it chooses the positions to reveal, and the number of calls follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.catalogue import Catalogue
from didi_core.config import Choice, build, own_keys, split_choice
from didi_core.diffusion.beliefs import Beliefs
from didi_core.errors import InputError, unknown


class Law(Protocol):
    """How positions get their reveal times.

    sees_model: ``reorder`` is called before every step with the model's confidence.
    """

    @property
    def name(self) -> str: ...

    @property
    def sees_model(self) -> bool: ...

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        """Reveal times in (0, 1] at the free positions; other positions are not read."""
        ...

    def reorder(
        self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], confidence: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """The reveal times of the masked positions, assigned again.

        Args:
            confidence: probability of the likeliest token at each masked position.
        """
        return times


@runtime_checkable
class OpenLaw(Law, Protocol):
    """A law that decides at every call which positions are revealed. It uses no grid; the number of calls is open.

    ``times`` are what it draws once, such as an order; it need not use them.
    """

    def choose(self, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], beliefs: Beliefs) -> Bool[Tensor, "B L"]:
        """Which masked positions are revealed: at least one in every row that has any."""
        ...


def ranks(keys: Float[Tensor, "B L"], free: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Rank, from 0, of each free position among the free positions of its row, by ascending key."""
    keys = keys.masked_fill(~free, torch.inf)
    return keys.argsort(dim=1, stable=True).argsort(dim=1, stable=True).to(torch.float64)


def _uniform(like: Tensor, generator: torch.Generator) -> Float[Tensor, "B L"]:
    """Draws in (0, 1] on the device of ``like``, in double precision so that no two positions tie."""
    draws = torch.rand(like.shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (1 - draws).to(like.device)


def _spread(ranks: Float[Tensor, "B L"], free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
    """One reveal time in each of n equal strata, shifted by one offset per row.

    Consecutive ranks are then 1/n apart, so every step reveals its expected number of positions, rounded up or down.
    The common offset makes every share exact on average.
    """
    n = free.sum(1, keepdim=True).clamp_min(1)
    offset = _uniform(free[:, :1], generator)
    return (ranks + offset) / n


@dataclass(frozen=True)
class Iid(Law):
    """Independent uniform reveal times: the ancestral sampler of the continuous-time process."""

    name: ClassVar[str] = "iid"
    sees_model: ClassVar[bool] = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return _uniform(free, generator)


@dataclass(frozen=True)
class Stratified(Law):
    """A uniformly random order; the number revealed per step is as even as the grid allows."""

    name: ClassVar[str] = "stratified"
    sees_model: ClassVar[bool] = False

    def times(self, free: Bool[Tensor, "B L"], generator: torch.Generator) -> Float[Tensor, "B L"]:
        return _spread(ranks(_uniform(free, generator), free), free, generator)


@dataclass(frozen=True)
class Dilated(Law):
    """Bit-reversed order with a random cyclic offset: positions revealed together lie far apart.

    The order is the van der Corput sequence over the free positions, so any run of consecutive ranks is spread evenly.
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
    """The positions at which the model is most confident go first.

    Like every law it is exact at one token per step. The choice depends on the network, and the log-probability of a
    rollout leaves that factor out.
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


def _van_der_corput(index: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Bits of an integer from 0 to L mirrored at the binary point: 1 -> 1/2, 2 -> 1/4, 3 -> 3/4, ..."""
    size = index.shape[1].bit_length()  # of L, which the host knows, so that nothing waits for the device
    bit = torch.arange(size, device=index.device)
    mirrored = (index[..., None] >> bit & 1) << (size - 1 - bit)
    return mirrored.sum(-1).double() / 2**size


INSIDE: dict[str, Law] = {law.name: law for law in (Iid(), Stratified(), Dilated(), Confidence())}


@dataclass(frozen=True)
class Blocks(Law):
    """Left to right in blocks of ``size`` positions; the law ``inside`` orders each block (the order of LLaDA)."""

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
        # Minus one for every block to the right, so that a block's least confident position precedes all later blocks.
        return INSIDE[self.inside].reorder(times, masked, confidence.double() - 2 * _block(masked, self.size))


@dataclass(frozen=True)
class Threshold(Law):
    """Reveals every position whose likeliest token has at least this probability, and always the most confident one.

    block: size of blocks; only the leftmost block that has masks is revealed from. 0 for no blocks.
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
    """Reveals the positions of lowest entropy whose entropies sum to at most ``bound`` nats, and always the first one.

    Tokens drawn together are drawn as if independent. The error of that is at most the sum of their entropies (Ben-Hamu
    et al. 2025, arXiv 2505.24857, who leave the largest entropy out of the sum).

    block: as in ``Threshold``.
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
    """Index of the block that each position is in."""
    return (torch.arange(like.shape[1], device=like.device) // size).double()[None]


def _leftmost(masked: Bool[Tensor, "B L"], size: int) -> Bool[Tensor, "B L"]:
    """The masks of each row's leftmost block that has any; all masks where there are no blocks."""
    if not size:
        return masked
    block = _block(masked, size).masked_fill(~masked, torch.inf)
    return masked & (block == block.amin(1, keepdim=True))


def _check_block(size: int) -> None:
    if size < 0:
        raise InputError(f"block={size} is out of range: give a number of positions, or 0 for no blocks.")


def block_size(law: Law) -> int:
    """Positions of the blocks that a law writes from left to right; 0 for a law without blocks."""
    return law.size if isinstance(law, Blocks) else int(getattr(law, "block", 0))


BUILT_IN: tuple[Law, ...] = (*INSIDE.values(), Blocks(), Threshold(), EntropyBound())
LAWS: Catalogue[Law] = Catalogue("unmasking law", {law.name: law for law in BUILT_IN})
PROTOCOL = ("name", "sees_model")  # fields of a law that are not keys of its own


def law(choice: Choice, where: str = "law") -> Law:
    """The unmasking law of that name, or of ``{kind: name, ...}`` with its own keys.

    Raises:
        InputError: the name is unknown, or the law does not have such a key.
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
