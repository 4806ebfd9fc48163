"""Notation, protocols and the small frozen records that all other modules share.

===================  ==========================================================================================
name                 meaning
===================  ==========================================================================================
V, L, B, G           vocabulary without the mask, length, batch, group size
x0, xt, xs           clean sequence; the sequence at time t; at s < t. t=0 is clean, t=1 fully masked
alpha_t, dalpha_t    probability that a token is still visible at t, and its derivative (negative)
log_p_x0             log p(x0_l | xt) after SUBS: no mass on the mask or on forbidden tokens; visible tokens copied
teacher, student     p_theta and p_nu: denoisers; the student starts as a copy of the teacher
scorer               D_lambda: one logit per position, log q_theta(z_t) - log q_nu(z_t) where it is trained well
tau                  intermediate time of the rollout
NFE                  network function evaluations of every network that ran, per sample
share                fraction of the free positions revealed so far; on the reverse path share = alpha_t
===================  ==========================================================================================

Shapes in signatures follow jaxtyping: ``Int[Tensor, "B L"]`` is a batch of sequences of token ids. The axes are

===========  ==================================================================================================
axis         meaning
===========  ==================================================================================================
B, L         sequences of a batch; positions of a sequence, padding included
V, W         tokens of the vocabulary; V + 1, the tokens and the mask
K, I, J      columns of raw logits of one, two or three networks; at least V, the rest is ignored
D, E, F      width of the hidden states of one, two or three networks (in attention, E is that of one head)
E2, H, C     half the width of a head, or of its rotated part; attention heads; width of a time embedding
X, Y         experts of a mixture, and those that a position runs
N            positions chosen from a batch, listed flat, row by row
M            tokens, completions or candidates of each row; also a second length
U            distinct rows of a batch; in MMD, the groups of positions that have a reward
P, Q         positions of such a group; points of a frontier
G, b         candidates of a state, and samples of each candidate (MMD)
S, A         sequences of a kept set, or numbers of steps; sequences of a first batch, a listing, or atoms
R            bootstrap resamples; in a walk, rows of shares: one for all sequences, or one each
T            thresholds of a distribution function
Z            noise of a sequence
B1           boundaries of B packed sequences: B + 1
k, j         calls of a grid; in evaluation, numbers that a metric keeps of each sample
n, m         items of a list, counted: samples, draws, rows of a chunk
words        words of k letters over an alphabet
===========  ==================================================================================================

A number is a fixed size, and ``...`` stands for any axes. Terms have a page of their own: docs/glossary.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from didi_core.errors import plural


@dataclass(frozen=True)
class Vocabulary:
    """The meaning of the integers of a sequence.

    Ids ``0 .. size-1`` are tokens and ``size`` is the mask, so an embedding has ``size + 1`` rows. ``forbidden`` ids
    are never generated. ``bos``, ``eos`` and ``pad`` are forbidden, and also pinned, which means never masked.
    ``given`` ids are pinned too. They spell what a sequence is conditioned on (a puzzle's clues), so each sequence of
    data, of a rollout or of a reference says itself which of its positions are to be completed.

    ``own_mask`` is the id that a tokenizer has for a mask of its own. A model with a row for it reads it there; texts
    and states have ``mask`` in every case, and ``own_mask`` is never generated.

    With ``given_copies`` every token has a second id behind the mask, ``size + 1 + token``, by which it is given:
    pinned, and read by networks as the token. A prompt of ordinary tokens is spelled with these (``as_given``).
    """

    size: int
    forbidden: tuple[int, ...] = ()
    pad: int | None = None
    bos: int | None = None
    eos: int | None = None
    tokens: tuple[str, ...] | None = None  # spelling of each id, where the vocabulary is small enough to list
    given: tuple[int, ...] = ()
    own_mask: int | None = None
    given_copies: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a vocabulary needs at least one token, got size={self.size}")
        if self.tokens is not None and len(self.tokens) != self.size:
            raise ValueError(f"{len(self.tokens)} spellings for a vocabulary of {self.size} tokens")
        own = () if self.own_mask is None else (self.own_mask,)
        outside = [i for i in (*self.forbidden, *self.pinned, *own) if not 0 <= i < self.size]
        if outside:
            raise ValueError(f"special or forbidden ids {outside} are outside the vocabulary of {self.size} tokens")
        if len(self.generated) < 2:
            raise ValueError("fewer than two tokens may be generated: nothing to learn")

    @property
    def mask(self) -> int:
        """Id of the mask: the row after the last token."""
        return self.size

    @cached_property
    def frame(self) -> tuple[int, ...]:
        """Ids around a text that do not belong to it: BOS, EOS and padding."""
        return tuple(i for i in (self.bos, self.eos, self.pad) if i is not None)

    @cached_property
    def pinned(self) -> tuple[int, ...]:
        """Ids that the forward process never masks: the frame, and what is given."""
        return (*self.frame, *self.given)

    @cached_property
    def generated(self) -> tuple[int, ...]:
        """Ids that a sampler may draw, ascending."""
        never = {*self.forbidden, *self.pinned, self.own_mask}
        return tuple(i for i in range(self.size) if i not in never)

    @property
    def all_generated(self) -> bool:
        """Every id may be drawn."""
        return len(self.generated) == self.size

    def allowed(self, device: torch.device | str = "cpu") -> Bool[Tensor, "V"]:
        """True at the ids that may be generated. The tensor is cached for each device: do not change it."""
        key = torch.device(device)
        if key not in self._allowed:
            with torch.inference_mode(False):  # a backward pass may save it later: no inference tensor
                allowed = torch.zeros(self.size, dtype=torch.bool)
                allowed[list(self.generated)] = True
                self._allowed[key] = allowed.to(key)
        return self._allowed[key]

    @cached_property
    def _allowed(self) -> dict[torch.device, Bool[Tensor, "V"]]:
        return {}

    def maskable(self, tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """True where the forward process may put a mask: everywhere but at BOS, EOS, padding and what is given."""
        found = _none_of(tokens, self.pinned)
        return found & (tokens <= self.mask) if self.given_copies else found

    def written(self, tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """True at tokens that the forward process may hide: not where it hides one already."""
        return self.maskable(tokens) & (tokens != self.mask)

    @property
    def ids(self) -> int:
        """Number of ids: of tokens, the mask, and the copies by which tokens are given."""
        return self.size + 1 + self.size * self.given_copies

    def is_given(self, tokens: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """True at what a sequence is conditioned on."""
        found = torch.isin(tokens, torch.tensor(self.given, dtype=tokens.dtype, device=tokens.device))
        return found | (tokens > self.mask) if self.given_copies else found

    def as_given(self, tokens: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The ids by which tokens are given, in a vocabulary with ``given_copies``."""
        return tokens + self.size + 1

    def as_read(self, tokens: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Tokens, and the mask, as a network looks them up: what is given under its ordinary id."""
        return torch.where(tokens > self.mask, tokens - self.size - 1, tokens) if self.given_copies else tokens

    def inside(self, tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """True at the text: everywhere but at BOS, EOS and padding."""
        return _none_of(tokens, self.frame)

    def lengths(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B"]:
        """Number of positions before the padding, BOS and EOS included. Padding is on the right."""
        if self.pad is None:
            return torch.full((tokens.shape[0],), tokens.shape[1], device=tokens.device)
        return (tokens != self.pad).sum(dim=1)


def _none_of(tokens: Int[Tensor, "B L"], ids: tuple[int, ...]) -> Bool[Tensor, "B L"]:
    found = torch.ones_like(tokens, dtype=torch.bool)
    for one in ids:
        found &= tokens != one
    return found


class Denoiser(nn.Module, ABC):
    """A trunk (hidden states at all positions) and a head (raw logits at chosen positions).

    The interface has this split because the head needs most of the memory. Losses, rollouts and samplers call it only
    at the positions that they need, so no tensor [B, L, V] is built.
    """

    vocabulary: Vocabulary

    @property
    def block_size(self) -> int:
        """Positions of a block, for a model that has learnt to write blocks from left to right; 0 for any order."""
        return 0

    @abstractmethod
    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Hidden states. Padding (the vocabulary's pad id) does not affect other positions."""

    @abstractmethod
    def head(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """Raw logits of the given hidden states. K >= V; column i is token i, and columns from V on are ignored."""

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L K"]:
        """``head(trunk(tokens))``: raw logits at every position."""
        return self.head(self.trunk(tokens))


class NoisyDenoiser(Denoiser, ABC):
    """A denoiser that reads a vector of standard normal noise for each sequence, drawn anew at every call.

    The noise lets the tokens of one call depend on each other. Given the noise they are independent, but all positions
    of a sequence share it. With ``noise_size`` 0 the denoiser reads none.
    """

    noise_size: int

    @abstractmethod
    def trunk(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """Hidden states; None stands for a noise vector of zeros."""


@runtime_checkable
class LayeredDenoiser(Protocol):
    """A denoiser whose inner states can be read as features, without running later blocks."""

    @property
    def depth(self) -> int:
        """Number of blocks."""
        ...

    def after_blocks(self, tokens: Int[Tensor, "B L"], layers: Sequence[int]) -> list[Float[Tensor, "B L D"]]:
        """The residual stream after each of these blocks, counted from 1; blocks after the last one do not run."""
        ...


class Scorer(nn.Module, ABC):
    """One logit per position: higher means more like the reference."""

    vocabulary: Vocabulary

    @abstractmethod
    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """Logits for sequences of tokens."""

    @abstractmethod
    def soft(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L"]:
        """Logits with the embedding at the M positions of ``where`` replaced by ``weights`` @ token embeddings.

        One-hot weights give exactly the logits of the corresponding tokens. Differentiable in ``weights``.
        """


@dataclass(frozen=True)
class NFE:
    """Network calls per sample, in forward equivalents: a forward is one, forward plus backward three."""

    denoiser: float = 0.0
    scorer: float = 0.0

    @property
    def total(self) -> float:
        return self.denoiser + self.scorer

    @property
    def calls(self) -> str:
        """The total in words: ``1 network call``, ``2.5 network calls``."""
        return f"{self.total:g} {plural('network call', self.total)}"

    def __add__(self, other: NFE) -> NFE:
        return NFE(self.denoiser + other.denoiser, self.scorer + other.scorer)


@dataclass(frozen=True, slots=True)  # there may be millions
class Sample:
    """One generated or natural sequence, as text, with its id, tokens and record."""

    text: str
    id: str = ""
    tokens: tuple[int, ...] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)  # key=value pairs for a FASTA header or a JSONL row


@runtime_checkable
class Metric(Protocol):
    """A number about a set of samples, computed from per-sample statistics.

    ``statistics`` turns each sample into k numbers, and ``aggregate`` turns *means over samples* of these into the
    value. Perplexity, for instance, has k = 2, total NLL and token count, and its value is exp(first / second). A
    metric in this form needs no further code for bootstrap intervals, merging of sets and caching.
    """

    # Read-only members, so that frozen dataclasses are metrics.
    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str:
        """Name in the header of a table."""
        ...

    @property
    def better(self) -> Literal["lower", "higher", "neither"]: ...

    @property
    def minimum(self) -> int:
        """Smallest number of samples; with fewer, the metric is skipped by name."""
        ...

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, k] in float64. A sample for which the metric is undefined is a row of nan; it is counted and left out."""
        ...

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        """Values [...] from means over samples [..., k]."""
        ...


class Domain(Protocol):
    """What a sequence is: vocabulary, data, text, metrics and files. See docs/extending.md."""

    name: str
    vocabulary: Vocabulary

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """All-masked sequences with ``lengths`` free positions each, BOS/EOS and right padding in place."""
        ...

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """Draw n lengths (free positions) from the domain's prior."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids, with BOS and EOS where the domain has them. Raises InputError for text it cannot represent."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Inverse of ``encode`` on generated sequences; BOS, EOS and padding are dropped."""
        ...

    def teacher(self, name: str) -> Denoiser:
        """A denoiser by bundled name, run directory, file or hub id, on the CPU and in eval mode."""
        ...

    def scorer(self, teacher: Denoiser, trainable_blocks: int) -> Scorer:
        """A fresh scorer whose trunk is a copy of the teacher's, with its last blocks and norms trainable."""
        ...

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless batches of ``split`` ('train' or 'validation'). The seed decides them; ``start`` skips so many."""
        ...

    def held_out(self, n: int, seed: int) -> list[Sample]:
        """Up to n natural samples that no bundled or trained model has seen, for reference rows."""
        ...

    def metrics(self) -> list[Metric]:
        """Metrics: first the quality that comparisons at matched entropy use, second the entropy, then any others."""
        ...

    def write(self, path: Path, samples: Sequence[Sample]) -> None:
        """Write samples in the domain's format (the file is complete or absent)."""
        ...

    def read(self, path: Path) -> list[Sample]:
        """Read samples in the domain's format. Raises InputError with file and line."""
        ...

    suffix: str  # suffix of its sample files: ".fasta", ".jsonl"
