"""Attention over ragged batches: one interface, several backends, chosen once and recorded with the reason.

Networks keep their hidden states *packed*, [N, ...] with N the number of positions that are not padding. Only attention
knows their places in the batch. xformers and varlen run on the packed form; sdpa and eager pad internally.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from didi_core.errors import InputError, unknown, with_kind
from didi_core.types import Vocabulary

BACKENDS = ("auto", "xformers", "varlen", "sdpa", "eager")
RAGGED = 0.95  # share of a padded batch that is no padding, below which its sequences are computed one by one on a CPU
LOGGERS = ("xformers", "mslk_fmha")  # of xformers, and of the package in which its newest releases have their kernels


@dataclass(frozen=True)
class Layout:
    """The layout of a packed batch of B sequences: their lengths, and the mask [B, L] of positions without padding.

    known: the lengths, where they are on the host already; everything else follows without waiting for the device.
    """

    lengths: Int[Tensor, "B"]
    width: int
    known: tuple[int, ...] | None = None

    @classmethod
    def of(cls, tokens: Int[Tensor, "B L"], vocabulary: Vocabulary) -> Layout:
        """Layout of a batch padded on the right. Raises InputError for padding before a token."""
        lengths, width = vocabulary.lengths(tokens), tokens.shape[1]
        if vocabulary.pad is None:
            return cls(lengths, width, (width,) * len(tokens))
        wrong = ((tokens != vocabulary.pad) != cls(lengths, width).real).any(dim=1)
        found, *known = torch.cat([wrong.sum()[None], lengths]).tolist()  # the only wait for the device
        if found:
            raise InputError(
                f"row {int(wrong.nonzero()[0])} of the batch has padding (id {vocabulary.pad}) before a token. "
                "Put padding on the right."
            )
        return cls(lengths, width, tuple(known))

    @cached_property
    def count(self) -> int:
        """N, the number of packed positions."""
        return int(self.lengths.sum()) if self.known is None else sum(self.known)

    @cached_property
    def real(self) -> Bool[Tensor, "B L"]:
        """True at positions that are not padding."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]

    @cached_property
    def full(self) -> bool:
        """Whether no row is padded, so that packing is only a view."""
        return self.count == len(self.lengths) * self.width

    @property
    def mask(self) -> Bool[Tensor, "B 1 1 L"] | None:
        """Positions that padded attention may look at; None for all."""
        return None if self.full else self.real[:, None, None, :]

    @property
    def ragged(self) -> bool:
        """Whether so much is padding that a CPU computes one sequence after another faster, and lengths are known."""
        return self.known is not None and self.count < RAGGED * len(self.lengths) * self.width

    def kernel(self, backend: str) -> str:
        """The backend that computes attention of this layout."""
        return backend

    @cached_property
    def index(self) -> Int[Tensor, "N"]:
        """Index of each packed position in the flattened padded batch."""
        places = torch.arange(self.count, device=self.lengths.device)
        if self.full:
            return places
        padding = self.width - self.lengths  # of each row; all that lies before a row moves its positions
        return places + torch.repeat_interleave(padding.cumsum(0) - padding, self.lengths, output_size=self.count)

    @cached_property
    def positions(self) -> Int[Tensor, "N"]:
        """Index of each packed position within its sequence."""
        return self.index % self.width

    @cached_property
    def boundaries(self) -> Int[Tensor, "B1"]:
        """Cumulative lengths from 0, in int32 as the packed kernels require."""
        return F.pad(self.lengths.cumsum(0), (1, 0)).to(torch.int32)

    @cached_property
    def block_diagonal(self) -> object:
        """The block-diagonal mask of xformers for this batch."""
        from xformers.ops.fmha.attn_bias import BlockDiagonalMask

        known = self.lengths.tolist() if self.known is None else self.known
        lengths = [length for length in known if length]  # a row of padding only has no block
        return BlockDiagonalMask.from_seqlens(lengths, device=self.lengths.device)

    def pack(self, padded: Float[Tensor, "B L ..."]) -> Float[Tensor, "N ..."]:
        """Drop the padding."""
        flat = padded.flatten(0, 1)
        return flat if self.full else flat.index_select(0, self.index)

    def unpack(self, packed: Float[Tensor, "N ..."]) -> Float[Tensor, "B L ..."]:
        """Restore the padding, as zeros."""
        shape = (len(self.lengths), self.width, *packed.shape[1:])
        if self.full:
            return packed.view(shape)
        flat = packed.new_zeros(shape[0] * shape[1], *packed.shape[1:])
        return flat.index_copy(0, self.index, packed).view(shape)


@dataclass(frozen=True)
class Padded(Layout):
    """A batch whose padding is computed like the rest: all follows from its shape, and the host need not know lengths.

    Only sdpa and eager can keep padding out of attention.
    """

    padding: bool = True

    @classmethod
    def of(cls, tokens: Int[Tensor, "B L"], vocabulary: Vocabulary) -> Padded:
        """Layout of a batch padded on the right, which is not checked."""
        return cls(vocabulary.lengths(tokens), tokens.shape[1], padding=vocabulary.pad is not None)

    @property
    def count(self) -> int:
        return len(self.lengths) * self.width

    @property
    def mask(self) -> Bool[Tensor, "B 1 1 L"] | None:
        return self.real[:, None, None, :] if self.padding else None

    def kernel(self, backend: str) -> str:
        return backend if backend == "eager" else "sdpa"


@dataclass(frozen=True)
class Backend:
    """The attention backend in use and why."""

    name: str
    reason: str


def resolve_backend(name: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend for a requested name, a device and a compute dtype.

    ``auto`` takes the first that runs of xformers on CUDA, varlen on CUDA in half precision, and sdpa. Each is tried
    once for a device and dtype.

    Raises:
        InputError: the requested backend cannot run here.
    """
    if name not in BACKENDS:
        raise unknown("attention backend", name, BACKENDS)
    if name in ("sdpa", "eager"):
        return Backend(name, "asked for")
    if name != "auto":
        if problem := _problem(name, device, dtype):
            raise InputError(f"attention={name} cannot run here: {problem}. Use attention=auto.")
        return Backend(name, "asked for")
    refused = ""
    for candidate in ("xformers", "varlen"):
        problem = _problem(candidate, device, dtype)
        if not problem:
            return Backend(candidate, f"auto: the fastest that runs on {device.type} in {dtype}{refused}")
        refused += f"; {candidate}: {problem}"
    return Backend("sdpa", f"auto{refused}")


def check_sizes(backend: str, hidden: int, heads: int) -> None:
    """Raise InputError for the keys of ``model`` that attention reads: an unknown backend, or heads of an odd width."""
    check_backend(backend)
    if hidden % heads or (hidden // heads) % 2:
        raise InputError(
            f"model.heads={heads} must divide model.hidden={hidden} into heads of even width (rotary)."
        )


def check_backend(name: str) -> None:
    """Raise InputError for an unknown name of ``model.attention``."""
    if name not in BACKENDS:
        raise unknown("attention backend", name, BACKENDS, "model.attention")


def current_backend(name: str, weight: Tensor) -> Backend:
    """The backend for a call of a network with this weight, from its device and the dtype of autocast, if enabled."""
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return resolve_backend(name, weight.device, dtype)


def _problem(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why a packed backend cannot run; '' if it can."""
    if device.type != "cuda":
        return "its kernels need a CUDA device"
    if name == "xformers" and importlib.util.find_spec("xformers") is None:
        return "it is not installed (pip install 'didi-core[xformers]')"
    if name == "varlen" and dtype not in (torch.float16, torch.bfloat16):
        return f"its kernels need half precision, not {dtype}"
    return probe(name, device, dtype)


@lru_cache
def probe(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why a backend fails on a small ragged batch, forward and backward; '' if it runs. The result is cached.

    An installed package may lack an operator for a device or dtype; a wheel for another torch has none at all, and logs
    why as it is imported. That becomes part of the reason.
    """
    with held_back(LOGGERS) as said:
        problem = _tried(name, device, dtype)
    if not problem:
        for record in said:  # it runs, so this is for the user
            logging.getLogger(record.name).handle(record)
    return "; ".join([problem, *(beginning(record.getMessage()) for record in said[:1])]) if problem else ""


def _tried(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why a backend fails on a small ragged batch; '' if it runs."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            layout = Layout(torch.tensor([3, 5], device=device), 5)
            q, k, v = (torch.ones(8, 2, 64, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
            out = attention(q, k, v, layout, name)
            (found,) = torch.autograd.grad(out.sum(), v)
            right = bool((out - 1).abs().max() < 0.01) and bool(found.isfinite().all())
    except Exception as error:  # noqa: BLE001  # any exception of a kernel is the result, and is reported
        return with_kind(error)
    return "" if right else "it computes wrong values"


@contextmanager
def held_back(names: Sequence[str]) -> Iterator[list[logging.LogRecord]]:
    """What these loggers are told below the level of an error, kept from their handlers."""
    held: list[logging.LogRecord] = []

    def passes(record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            held.append(record)
        return record.levelno >= logging.ERROR

    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield held
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


def beginning(message: str) -> str:
    """The first two lines of a message as one: xformers' second line has the versions of torch."""
    return " ".join(line.strip() for line in message.strip().splitlines()[:2])


def available_backends(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Every backend with ``ok`` or the reason why it fails on a small ragged batch."""
    packed = {name: _problem(name, device, dtype) for name in ("xformers", "varlen")}
    return {name: (packed[name] if name in packed else probe(name, device, dtype)) or "ok" for name in BACKENDS[1:]}


def attention(
    q: Float[Tensor, "N H E"],
    k: Float[Tensor, "N H E"],
    v: Float[Tensor, "N H E"],
    layout: Layout,
    backend: str,
    scale: float | None = None,
    block: int = 0,
) -> Float[Tensor, "N H E"]:
    """Bidirectional attention of each position to all positions of its own sequence: softmax(scale q k^T) v.

    Args:
        scale: factor of the scores; 1/sqrt(E) by default.
        block: positions of a block, each of which attends to itself and to earlier blocks only; 0 for no blocks. Only
            sdpa and eager can do it.

    Raises:
        InputError: the backend is unknown, or cannot attend in blocks.
    """
    backend = layout.kernel(backend)
    if block and backend not in ("sdpa", "eager"):
        raise InputError(f"attention={backend} cannot attend in blocks of {block}. Use attention=auto.")
    if backend == "xformers":
        from xformers.ops import memory_efficient_attention

        bias = layout.block_diagonal
        return memory_efficient_attention(q[None], k[None], v[None], attn_bias=bias, scale=scale).squeeze(0)
    if backend == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        ends, width = layout.boundaries, layout.width
        out = varlen_attn(q, k, v, ends, ends, width, width, scale=scale)
        return out if isinstance(out, Tensor) else out[0]
    if backend == "sdpa" and not block and q.device.type == "cpu" and layout.ragged:
        return _one_by_one(q, k, v, layout, scale)
    q, k, v = (layout.unpack(part).transpose(1, 2) for part in (q, k, v))
    mask = layout.mask
    if block:
        number = torch.arange(layout.width, device=q.device) // block
        earlier = number[None, :] <= number[:, None]
        mask = earlier if mask is None else earlier & mask
    if backend == "sdpa":
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    elif backend == "eager":
        scores = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        mixed = scores.softmax(-1) @ v
    else:
        raise unknown("attention backend", backend, BACKENDS)
    return layout.pack(mixed.transpose(1, 2))


def _one_by_one(
    q: Float[Tensor, "N H E"], k: Float[Tensor, "N H E"], v: Float[Tensor, "N H E"], layout: Layout, scale: float | None
) -> Float[Tensor, "N H E"]:
    """``attention`` by sdpa for one sequence after another, without padding: what a CPU does faster."""
    parts = (part.transpose(0, 1).split(layout.known, dim=1) for part in (q, k, v))
    each = zip(*parts, strict=True)
    found = [F.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)[0] for q, k, v in each]
    return torch.cat([one.transpose(0, 1) for one in found])  # contiguous, as a batch without padding is
