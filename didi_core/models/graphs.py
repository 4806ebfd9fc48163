"""Trunk calls without gradients as CUDA graphs: the host launches a whole call at once.

Small networks wait for the host, which launches some fifty kernels a block. A graph replays all of them, but it has one
shape and fixed addresses. So rows are filled up to a power of two, widths to a multiple of 64, and padding is computed
like the rest (``attention.Padded``). Weights that change in place, as an optimiser changes them, are read anew; where
they have moved, a call is recorded again.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.errors import warn, with_kind
from didi_core.models.compiled import TOLERANCE, difference
from didi_core.types import Vocabulary

WIDTH = 64  # widths are multiples of it
PLAIN = 2  # calls of a shape that run as they are: what is called once or twice is not worth a recording
MOST = 128  # recordings of a network
# Arithmetic of a block and call below which the host is the limit: launching its kernels takes 0.36 ms (51 of 7
# microseconds, measured with an H100), in which the card does 1.7e14 a second (measured for the trunk of 169M).
SMALL = 0.36e-3 * 1.7e14

Call = Callable[[], Tensor]
Record = Callable[[Call], tuple[Callable[[], object], Tensor]]  # what replays a call, and where its result will lie
Trunk = Callable[..., Tensor]


class Shaped(Protocol):
    """What a network needs for its calls to be replayed.

    widest: positions of its longest sequence; 0 for any.
    """

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def widest(self) -> int: ...

    def by_shape(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Tensor:
        """``trunk``, computed alike for all batches of a shape."""
        ...


class Shape(NamedTuple):
    """What a recording is for. precision: the type of autocast, and that of the weights."""

    rows: int
    width: int
    precision: tuple[torch.dtype | None, torch.dtype]


@dataclass(frozen=True)
class Recording:
    """A recorded call: its inputs, what replays it, its result, and the addresses of the weights that it reads.

    inputs: tokens, and noise if the network is given any. fill: what stands behind narrower tokens.
    """

    inputs: tuple[Tensor, ...]
    fill: int
    replay: Callable[[], object]
    out: Tensor
    weights: tuple[int, ...]

    def run(self, *given: Tensor) -> Tensor:
        """The result for inputs that are at most as large. Rows that are missing are copies of the first."""
        rows, width = given[0].shape
        for still, new in zip(self.inputs, given, strict=True):
            still[:rows, : new.shape[1]].copy_(new)
            still[rows:, : new.shape[1]].copy_(new[:1])
        self.inputs[0][:, width:].fill_(self.fill)
        self.replay()
        return self.out[:rows, :width].clone()


def cuda_graph(call: Call) -> tuple[Callable[[], object], Tensor]:
    """A call as a CUDA graph. All graphs share one pool of memory, so a result is copied before another is replayed."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # libraries allocate what they need at the first calls
            call()
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        out = call()
    return graph.replay, out


@functools.cache
def _pool() -> Any:
    return torch.cuda.graph_pool_handle()


@dataclass
class Graphs:
    """The recorded calls of a process.

    record: how a call is recorded. kind: the type of device on which that works.
    problem: why a recording failed, in a line; from then on calls run as they are.
    counts: calls that were ``replayed`` and that ran ``plain``, and recordings that were ``made``.
    """

    record: Record = cuda_graph
    kind: str = "cuda"
    problem: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    _made: WeakKeyDictionary[nn.Module, dict[Shape, Recording]] = field(default_factory=WeakKeyDictionary, repr=False)
    _seen: WeakKeyDictionary[nn.Module, Counter[Shape]] = field(default_factory=WeakKeyDictionary, repr=False)

    def call(self, trunk: Trunk, network: Any, *given: Tensor) -> Tensor:
        """The trunk's result for tokens, and noise if the network is given any: replayed where there is a recording."""
        if self.problem or torch.is_grad_enabled() or not _small(network, given[0]):
            return trunk(network, *given)
        shape = _shape(network, given[0])
        made, seen = self._made.setdefault(network, {}), self._seen.setdefault(network, Counter())
        if shape in made and made[shape].weights != _addresses(network):
            del made[shape], seen[shape]
        if shape in made:
            self.counts["replayed"] += 1
            return made[shape].run(*given)
        self.counts["plain"] += 1
        found = trunk(network, *given)
        seen[shape] += 1
        if seen[shape] == PLAIN and len(made) < MOST and (recording := self._recorded(network, shape, given, found)):
            self.counts["made"] += 1
            made[shape] = recording
        return found

    def give_up(self, reason: str) -> None:
        """Record and replay no more, and say so once."""
        if not self.problem:
            warn(f"CUDA graphs failed ({reason}). The network runs without them: slower, with the same results.")
        self.problem = self.problem or reason
        self._made.clear()

    def _recorded(
        self, network: Any, shape: Shape, given: tuple[Tensor, ...], expected: Tensor
    ) -> Recording | None:
        """A recording of this shape, made on other tokens and compared with the plain call; None where that fails."""
        try:
            with torch.inference_mode(False), torch.no_grad(), _uncached(given[0].device.type):
                inputs, vocabulary = _still(network, shape, given), network.vocabulary
                fill = vocabulary.mask if vocabulary.pad is None else vocabulary.pad
                recorded = self.record(lambda: network.by_shape(*inputs))
                recording = Recording(inputs, fill, *recorded, _addresses(network))
                worst = difference(recording.run(*given), expected)
        except Exception as error:  # noqa: BLE001  # whatever forbids a recording is reported
            self.give_up(with_kind(error))
            return None
        if not worst <= TOLERANCE.get(shape.precision[0] or shape.precision[1], 5e-2):
            self.give_up(f"its values differ from those of plain calls by a relative {worst:.2g}")
            return None
        return recording


_active: Graphs | None = None


def replayable(trunk: Trunk) -> Trunk:
    """Let a network's trunk be replayed within ``replaying``."""

    @functools.wraps(trunk)
    def call(network: nn.Module, tokens: Tensor, noise: Tensor | None = None) -> Tensor:
        given = (tokens,) if noise is None else (tokens, noise)
        return trunk(network, *given) if _active is None else _active.call(trunk, network, *given)

    return call


@contextmanager
def replaying(graphs: Graphs | None) -> Iterator[None]:
    """Within, trunks are replayed; with None they run as they are."""
    global _active
    before, _active = _active, graphs or _active
    try:
        yield
    finally:
        _active = before


def _small(network: Any, tokens: Tensor) -> bool:
    """Whether the host is the limit of such a call, nothing in it is drawn, and all its rows run the same blocks."""
    if (network.training and network.config.dropout) or network.first is not None:
        return False
    block = sum(parameter.numel() for parameter in network.blocks[0].parameters())
    return 0 < 2 * block * tokens.numel() < SMALL


def _shape(network: Any, tokens: Tensor) -> Shape:
    rows, width = 1 << (len(tokens) - 1).bit_length(), tokens.shape[1]
    if network.vocabulary.pad is not None:
        width = -(-width // WIDTH) * WIDTH
        width = max(min(width, network.widest or width), tokens.shape[1])
    kind = tokens.device.type
    mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return Shape(rows, width, (mixed, next(network.parameters()).dtype))


def _still(network: Shaped, shape: Shape, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs to record with: masks, and no noise."""
    tokens, *noise = given
    still = tokens.new_full((shape.rows, shape.width), network.vocabulary.mask)
    return (still, *(part.new_zeros(shape.rows, part.shape[1]) for part in noise))


def _addresses(network: nn.Module) -> tuple[int, ...]:
    return tuple(part.data_ptr() for part in (*network.parameters(), *network.buffers()))


@contextmanager
def _uncached(kind: str) -> Iterator[None]:
    """The current autocast without its cache: a recording must cast the weights itself, for they may change."""
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    with torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False):
        yield
