"""Noise that a network reads at its masks, and a student that reads some, made from a teacher without any.

The first call can have blocks of its own, beside those of all later calls, as experts for parts of the noise range have
in image models (eDiff-I, arXiv 2211.01324). It alone writes with nothing to go by, and what it learns for that then
changes no later call. A call costs what it did: each sequence runs through one of the two.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from didi_core.device import device_of
from didi_core.errors import InputError, at_least
from didi_core.streams import seeded
from didi_core.types import Denoiser, NoisyDenoiser

N = TypeVar("N", bound=nn.Module)
START = 0.5  # RMS of what a vector adds at first, over that of the embeddings beside it
HIDDEN = 0.316  # RMS of SiLU(h) for normal h of variance 1/3, as the first layer makes them of standard normal noise
ROWS = 4096  # of an embedding, measured at once


class NoiseMap(nn.Sequential):
    """What noise adds to the mask's embedding: two layers. It starts at about half of the embedding's own size.

    Zero would be a saddle: nothing there tells one direction from another. A tenth of this is one in practice: a
    vector then moves the tokens of a teacher by a thousandth of a nat, and a student gives letters up before it has
    found a use for its noise (docs/objectives.md).

    Args:
        size, width: numbers that it reads and adds. std: of the last layer's weights at the start.
        bias: without it, zeros move nothing.
    """

    def __init__(self, size: int, width: int, std: float = 0.2, bias: bool = True) -> None:
        last = nn.Linear(width, width, bias=bias)
        super().__init__(nn.Linear(size, width, bias=bias), nn.SiLU(), last)
        self.size = size
        nn.init.normal_(last.weight, std=std)
        if bias:
            nn.init.zeros_(last.bias)


class ReadsNoise(NoisyDenoiser, ABC):
    """A network that adds what a ``NoiseMap`` makes of noise to its embeddings at masks.

    It has the map, or None, under ``noise_map``, and a configuration with the fields ``hidden``, ``noise``,
    ``noise_once`` and ``first_blocks``.

    CORE: name of the part that holds the blocks, of which the first call may have a copy, under ``first``.
    later_only: whether every call is taken for a later one, as within ``as_later_calls``.
    """

    CORE: ClassVar[str]
    later_only: bool = False
    config: Any
    noise_map: NoiseMap | None
    first: nn.Module | None

    @property
    def noise_size(self) -> int:  # type: ignore[override]
        """Numbers of noise that a sequence is given at every call."""
        return 0 if self.noise_map is None or self.later_only else self.noise_map.size

    @property
    def first_blocks(self) -> Sequence[nn.Module]:
        """Those of the first call, where it has its own."""
        return [] if self.first is None else self.blocks_in(self.first)

    def blocks_in(self, core: nn.Module) -> Sequence[nn.Module]:
        """The blocks of such a part, in order."""
        return list(cast(nn.ModuleList, core))

    def new_first(self) -> nn.Module | None:
        """A copy of the part with the blocks, where ``config.first_blocks`` asks for one."""
        return copy.deepcopy(self.get_submodule(self.CORE)) if self.config.first_blocks else None

    @abstractmethod
    def encode(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], core: nn.Module | None = None
    ) -> Float[Tensor, "B L D"]:
        """Run the blocks of ``core`` on embeddings, by default those of the later calls."""

    @abstractmethod
    def token_rows(self) -> Float[Tensor, "V D"]:
        """Embeddings of the tokens, in order."""

    def new_noise_map(self, size: int) -> NoiseMap:
        """A map of so many numbers, drawn from torch's global random state, on the CPU and in fp32.

        It starts in proportion to the embeddings of the tokens that can be written, which pretrained networks have of
        any size. Zeros move nothing, so that without noise the network is the one without a map.
        """
        width = self.token_rows().shape[1]
        return NoiseMap(size, width, START * _rms(self) / (HIDDEN * width**0.5), bias=False)

    def forward(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L K"]:
        """Raw logits at every position; without noise, those of the vector of zeros."""
        return self.head(self.trunk(tokens, noise))

    def with_noise_at(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], noise: Float[Tensor, "B Z"] | None
    ) -> Float[Tensor, "B L D"]:
        """Embeddings, those at masks moved by the noise; with ``noise_once``, in sequences that have masks alone."""
        if self.noise_map is None:
            return embedded
        masked = tokens == self.vocabulary.mask
        if self.config.noise_once:
            masked = masked & self.begins(tokens)[:, None]
        return embedded + self.shift(noise).to(embedded.dtype)[:, None] * masked[..., None]

    def begins(self, tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B"]:
        """Sequences of which nothing is written yet: these are in their first call."""
        return ~self.vocabulary.written(tokens).any(1)

    def encode_by_call(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], noise: Float[Tensor, "B Z"] | None
    ) -> Float[Tensor, "B L D"]:
        """``encode`` with noise, each sequence by the blocks of its call.

        What only the first call uses has no part in a later one, and none in its graph.
        """
        if self.first is None:
            return self.encode(tokens, self.with_noise_at(tokens, embedded, noise))
        if self.later_only:
            return self.encode(tokens, embedded)
        begins = self.begins(tokens)
        beginning = int(begins.sum())
        if beginning == 0:
            return self.encode(tokens, embedded)
        if beginning == len(tokens):
            return self.encode(tokens, self.with_noise_at(tokens, embedded, noise), self.first)
        first, later = begins.nonzero()[:, 0], (~begins).nonzero()[:, 0]
        own = self.with_noise_at(tokens[first], embedded[first], None if noise is None else noise[first])
        made = [self.encode(tokens[first], own, self.first), self.encode(tokens[later], embedded[later])]
        return torch.cat(made)[torch.cat([first, later]).argsort()]

    def drop_noise(self) -> None:
        """Read no noise any more, and have no blocks for the first call."""
        self.config, self.noise_map = replace(self.config, noise=0, noise_once=False, first_blocks=False), None
        self.first = None

    def shift(self, noise: Float[Tensor, "B Z"] | None) -> Float[Tensor, "B D"]:
        """What noise adds at masks; one row, that of zeros, without any."""
        assert self.noise_map is not None, "asked where there is noise"
        like: Any = self.noise_map[0].weight  # in fp32 beside frozen weights in half precision
        given = like.new_zeros(1, self.noise_size) if noise is None else noise.to(like.dtype)
        moved: Tensor = self.noise_map(given)
        return moved


def _rms(network: ReadsNoise) -> float:
    """Root mean square of the embeddings of the tokens that can be written; 1 for those of an outline."""
    rows, ids = network.token_rows().detach(), torch.tensor(network.vocabulary.generated)
    if rows.is_meta:
        return 1.0
    squares = [float(rows[part].float().square().sum()) for part in ids.to(rows.device).split(ROWS)]
    return float((sum(squares) / (len(ids) * rows.shape[1])) ** 0.5)


def has_first_blocks(network: nn.Module) -> bool:
    """Whether a network's first call has blocks of its own."""
    return isinstance(network, ReadsNoise) and network.first is not None


@contextmanager
def as_later_calls(network: nn.Module) -> Iterator[None]:
    """Within, a network that has blocks for its first call makes every call with the others, and without noise."""
    assert isinstance(network, ReadsNoise), "it has blocks for its first call"
    network.later_only = True
    try:
        yield
    finally:
        network.later_only = False


def of_first_call(network: nn.Module) -> frozenset[str]:
    """Names of the parameters that learn and that the first call alone uses: its blocks, and what reads the noise."""
    own = ("first.", "noise_map.")
    return frozenset(name for name, p in network.named_parameters() if p.requires_grad and name.startswith(own))


def copied_from(network: nn.Module, name: str) -> str:
    """The name that a parameter of a student had in its teacher: the first call's blocks are copies of the others."""
    if isinstance(network, ReadsNoise) and name.startswith("first."):
        return f"{network.CORE}.{name.removeprefix('first.')}"
    return name


def learning(network: N) -> N:
    """Let all parameters learn; where the first call has blocks of its own, those that not all calls share.

    Embeddings and head are then the teacher's for good, so that nothing that the first call learns reaches others.
    """
    network.requires_grad_(not has_first_blocks(network))
    if isinstance(network, ReadsNoise) and network.first is not None:
        for part in (network.first, network.get_submodule(network.CORE), network.noise_map):
            assert part is not None, "blocks for the first call come with noise"
            part.requires_grad_(True)
    return network


def check_noise(prefix: str, noise: int, noise_once: bool, first_blocks: bool) -> None:
    """Raises InputError, which names the key after ``prefix``, where what depends on noise is asked for without it."""
    at_least(0, prefix, noise=noise)
    if noise_once and not noise:
        raise InputError(f"{prefix}noise_once=true: there is no noise. Set {prefix}noise, to 2 for example.")
    if first_blocks and not noise_once:
        raise InputError(
            f"{prefix}first_blocks=true: noise is not for the first call only. Set {prefix}noise_once=true as well."
        )


def with_noise(
    denoiser: Denoiser,
    size: int,
    seed: int,
    like: Denoiser | None = None,
    once: bool = False,
    first_blocks: bool = False,
) -> Denoiser:
    """A copy of a denoiser that also reads ``size`` normal numbers for each sequence; what it makes of them starts
    small.

    With size 0 the denoiser is copied unchanged, with any noise that it already reads.

    Args:
        like: the network with values, where the denoiser is an outline of it.
        once: only the first call reads them.
        first_blocks: the first call has blocks of its own. They start as the denoiser's.

    Raises:
        InputError: the network cannot read noise, or reads another number of them, or in other calls.
    """
    has = denoiser.noise_size if isinstance(denoiser, NoisyDenoiser) else 0
    if size and size == has and isinstance(denoiser, ReadsNoise):
        if denoiser.config.noise_once != once:
            asked, now, where = ("true", "false", "every call") if once else ("false", "true", "the first call only")
            raise InputError(
                f"student.noise_once={asked}: the teacher reads its noise in {where}. Set student.noise_once={now}."
            )
        if denoiser.config.first_blocks != first_blocks:
            asked, has_them = ("true", "no") if first_blocks else ("false", "its own")
            raise InputError(
                f"student.first_blocks={asked}: the teacher has {has_them} blocks for the first call, and its student "
                f"is a copy of it. Set student.first_blocks={str(not first_blocks).lower()}."
            )
    if size in (0, has):
        return copy.deepcopy(denoiser)
    origin = denoiser if like is None else like
    if not isinstance(origin, ReadsNoise):
        raise InputError(
            f"student.noise={size}: the teacher is of class {type(denoiser).__name__}, which cannot read noise. Set "
            "student.noise=0, with an objective that needs none, such as objective=few_calls."
        )
    if has:
        raise InputError(f"student.noise={size}: the teacher reads {has} numbers already. Set student.noise={has}.")
    with seeded(seed, "noise"):
        drawn = origin.new_noise_map(size)
    made: Any = copy.deepcopy(denoiser)
    device = device_of(denoiser)
    made.config = replace(made.config, noise=size, noise_once=once, first_blocks=first_blocks)
    made.noise_map = drawn if device.type == "meta" else drawn.to(device)  # of an outline, it alone has values
    made.first = made.new_first()
    noisy: Denoiser = made.train(denoiser.training)
    return noisy
