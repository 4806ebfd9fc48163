"""Parts of transformer blocks compiled by torch.compile, as a mode in which calls run, like autocast.

A part is a function of a block and tensors: what lies before attention, and what lies after it. Attention itself
stays outside: its kernels are fused already, and only it looks at the lengths of a batch. So a graph has one dynamic
size, the number of packed positions, and nothing in it waits for the device. Modules are not wrapped: copies, names of
weights and checkpoints know nothing of it, and one graph serves all blocks and networks of the same sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.device import device_of
from didi_core.errors import warn, with_kind
from didi_core.types import Vocabulary

INDUCTOR = "inductor"
GRAPHS = 64  # of one part: with and without gradients, frozen or not, of every width; torch's own limit is 8
TRIAL = (13, 7)  # lengths of the sequences that a network is tried on
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # relative difference of hidden states and of gradients

R = TypeVar("R")


class HasTrunk(Protocol):
    """What a network needs to be tried."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]: ...


@dataclass
class Compilation:
    """The compiled parts of a process.

    backend: torch.compile's.
    problem: why a compilation failed, in a line; from then on parts run as they are.
    """

    backend: str = INDUCTOR
    problem: str = ""
    _made: dict[Callable[..., Any], Callable[..., Any]] = field(default_factory=dict, repr=False)

    def call(self, part: Callable[..., R], *arguments: Any) -> R:
        """The part's result, from its compiled form where that can be had."""
        if self.problem:
            return part(*arguments)
        try:
            made: R = self._compiled(part)(*arguments)
            return made
        except Exception as error:
            if not _of_compiler(error):
                raise
            self.give_up(error)
            return part(*arguments)

    def give_up(self, error: Exception | str) -> None:
        """Stop compiling for good, and say so once."""
        reason = error if isinstance(error, str) else with_kind(getattr(error, "inner_exception", error))
        if not self.problem:
            warn(f"torch.compile failed ({reason}). The network runs without it: slower, with the same results.")
        self.problem = self.problem or reason

    def _compiled(self, part: Callable[..., R]) -> Callable[..., R]:
        if part not in self._made:
            # Dropout draws what it would draw without compilation, so that a seed means the same.
            options: Any = {"fallback_random": True} if self.backend == INDUCTOR else None
            self._made[part] = torch.compile(part, fullgraph=True, dynamic=True, backend=self.backend, options=options)
        return self._made[part]


_active: Compilation | None = None


def compilable(part: Callable[..., R]) -> Callable[..., R]:
    """Let a function of a block and tensors be compiled within ``compiling``."""

    @functools.wraps(part)
    def call(*arguments: Any) -> R:
        return part(*arguments) if _active is None else _active.call(part, *arguments)

    return call


def is_compiling() -> bool:
    """Whether parts are compiled now."""
    return _active is not None and not _active.problem


@contextmanager
def compiling(compilation: Compilation | None) -> Iterator[None]:
    """Within, parts of blocks run compiled; with None they run as they are."""
    global _active
    if compilation is None:
        yield
        return
    import torch._dynamo  # it takes a second to import

    limits: dict[str, Any] = {"recompile_limit": GRAPHS, "accumulated_recompile_limit": 16 * GRAPHS}
    before, _active = _active, compilation
    try:
        with torch._dynamo.config.patch(limits):
            yield
    finally:
        _active = before


def _of_compiler(error: Exception) -> bool:
    """Whether an exception comes from compiling, and not from what the part does."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def try_on(compilation: Compilation, network: nn.Module, precision: torch.dtype = torch.float32) -> None:
    """Compile a network's parts on two short sequences, with gradients where it has some, and compare the results with
    those of plain calls. Where that fails, ``compilation`` gives up: a failure in the backward pass would otherwise
    come in the middle of a step.

    Call it in the precision of the run.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            expected = _trial(network)
            with compiling(compilation):
                found = _trial(network)
    except Exception as error:  # noqa: BLE001  # a compiler's failures have no common base, and all are reported
        compilation.give_up(error)
        return
    if compilation.problem:
        return
    worst = max(difference(one, other) for one, other in zip(found, expected, strict=True))
    if not worst <= TOLERANCE.get(precision, 5e-2):
        compilation.give_up(f"its values differ from those of plain calls by a relative {worst:.2g}")


def _trial(network: nn.Module) -> list[Tensor]:
    """Hidden states of a small batch, and the gradients of their sum of squares."""
    model: HasTrunk = network  # type: ignore[assignment]
    vocabulary, device = model.vocabulary, device_of(network)
    lengths = TRIAL if vocabulary.pad is not None else TRIAL[:1] * 2
    tokens = torch.full((len(lengths), TRIAL[0]), vocabulary.mask, device=device)
    for row, length in zip(tokens, lengths, strict=True):
        row[length:] = vocabulary.mask if vocabulary.pad is None else vocabulary.pad
    learned = [p for p in network.parameters() if p.requires_grad]
    with torch.set_grad_enabled(bool(learned)):
        hidden = model.trunk(tokens)
    if not learned:
        return [hidden]
    gradients = torch.autograd.grad(hidden.float().square().mean(), learned, allow_unused=True)
    return [hidden.detach(), *(gradient for gradient in gradients if gradient is not None)]


def difference(one: Tensor, other: Tensor) -> float:
    """Distance of a result from what it should be, over its size, in fp32; gradients near zero do not count."""
    size = other.float().norm()
    return float((one.float() - other.float()).norm() / size) if size > 1e-6 else 0.0
