"""The interface of samplers: the request, the result, how a token is drawn, and how the walk is followed.

A sampler is a frozen dataclass. Its fields are its own keys (``sampler={kind: p2, eta: 2}``), and ``sample`` fills one
batch of templates.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.heads import draw_tokens
from didi_core.diffusion.laws import Law
from didi_core.diffusion.walk import Call, Walk, walk
from didi_core.errors import InputError
from didi_core.types import NFE, Denoiser, Scorer


@dataclass(frozen=True)
class TokenRule:
    """How a token is drawn from log_p_x0: temperature, nucleus, and a bias added to the logits [V]."""

    temperature: float = 1.0
    top_p: float = 1.0
    bias: Float[Tensor, "V"] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature={self.temperature} is out of range: it must be positive and finite.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} is out of range: it must be in (0, 1].")

    def draw(self, denoiser: Denoiser, hidden: Float[Tensor, "N D"], generator: torch.Generator) -> Int[Tensor, "N"]:
        """A token for each of N masked positions."""
        return draw_tokens(denoiser, hidden, generator, temperature=self.temperature, top_p=self.top_p, bias=self.bias)


@dataclass(frozen=True)
class SampleRequest:
    """One batch to fill. A sampler reads the fields that it needs.

    template: masks at the positions to fill; everything else is pinned and must come back unchanged.
    shares: share of the free positions revealed after each of the k steps, ascending to 1.
    law: which positions are revealed together.
    generator: source of all randomness. scorer: that of the distillation; None without one.
    progress: called after every denoiser call.
    """

    denoiser: Denoiser
    template: Int[Tensor, "B L"]
    shares: Float[Tensor, "k"]
    law: Law
    generator: torch.Generator
    rule: TokenRule = field(default_factory=TokenRule)
    scorer: Scorer | None = None
    progress: Callable[[], None] | None = None

    def walk(self, law: Law | None) -> Walk:
        """The walk that fills the template by this law, or (None) with every free position in each call."""
        return walk(self.denoiser, self.template, self.generator, shares=self.shares, law=law)

    def draw(self, call: Call) -> Int[Tensor, "B L"]:
        """The state after a call that writes a token at every position of ``call.where``."""
        return call.write(self.rule.draw(self.denoiser, call.at(call.where), self.generator))


@dataclass(frozen=True)
class Sampled:
    """Finished sequences [B, L], and the mean number of network calls per sequence."""

    tokens: Int[Tensor, "B L"]
    nfe: NFE


class Sampler(Protocol):
    """A way of filling templates.

    needs_scorer: it cannot run without the scorer of a distillation, so no teacher is sampled with it.
    stepwise: it makes k calls along a grid; otherwise the number of calls follows from the length.
    uses_law: an unmasking law decides which positions are revealed together.
    """

    needs_scorer: ClassVar[bool]
    stepwise: ClassVar[bool]
    uses_law: ClassVar[bool]

    def sample(self, request: SampleRequest) -> Sampled:
        """Replace every mask of the template by a token that may be generated, and count network calls."""
        ...


Filling = Generator[Int[Tensor, "B L"], None, Sampled]  # yields the state after every denoiser call


@runtime_checkable
class TracedSampler(Protocol):
    """A sampler whose states can be watched call by call, and which stops where its caller stops asking."""

    def states(self, request: SampleRequest) -> Filling:
        """The state after every denoiser call; ``sample`` returns what the generator returns."""
        ...


@torch.no_grad()
def filling(request: SampleRequest, steps: Walk, answer: Callable[[Call], Int[Tensor, "B L"]]) -> Filling:
    """Follow a walk to its end, counting denoiser calls and reporting progress; yields the state after each call.

    Args:
        answer: returns the state that follows each call.
    """
    rows, called = max(request.template.shape[0], 1), 0
    try:
        call = next(steps)
        while True:
            state = answer(call)
            called += rows if call.active is None else int(call.active.sum())
            if request.progress:
                request.progress()
            yield state
            call = steps.send(state)
    except StopIteration as end:
        return Sampled(end.value, NFE(denoiser=called / rows))


def finish(states: Filling) -> Sampled:
    """What a generator of states returns at its end."""
    try:
        while True:
            next(states)
    except StopIteration as end:
        made: Sampled = end.value
        return made


def fill(request: SampleRequest, steps: Walk, answer: Callable[[Call], Int[Tensor, "B L"]]) -> Sampled:
    """``filling`` to its end, for a sampler whose states nobody watches."""
    return finish(filling(request, steps, answer))
