"""The walk: one reverse process, from any state to a finished sequence, for samplers and rollouts alike.

``walk`` is a generator. It yields a ``Call`` for every denoiser call, with the hidden states and the positions that may
be written. Its caller sends back the next state: tokens drawn at these positions, or masks where it takes tokens back.
A sampler drains the walk; a rollout keeps its calls. Training therefore visits the states that sampling visits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.beliefs import Beliefs
from didi_core.diffusion.heads import distinct_trunk
from didi_core.diffusion.laws import Law, OpenLaw
from didi_core.diffusion.noise import fresh_noise
from didi_core.errors import InputError
from didi_core.types import Denoiser, NoisyDenoiser


@dataclass(frozen=True)
class Call:
    """One denoiser call: its input, the positions that may be written in it, and its hidden states.

    tokens: the state that the denoiser sees.
    where: the positions to write.
    hidden, own: ``hidden[own[b]]`` are the hidden states of row b; equal rows share them.
    step: number of the call, from 0.
    active: rows that this call computes. A finished row is left out and has no hidden states.
    trained: whether the hidden states keep their graph where gradients are enabled.
    noise: the input of a ``NoisyDenoiser`` beside the tokens.
    """

    tokens: Int[Tensor, "B L"]
    where: Bool[Tensor, "B L"]
    hidden: Float[Tensor, "U L D"]
    own: Int[Tensor, "B"]
    step: int = 0
    active: Bool[Tensor, "B"] | None = None
    trained: bool = True
    noise: Float[Tensor, "B Z"] | None = None

    def at(self, where: Bool[Tensor, "B L"]) -> Float[Tensor, "N D"]:
        """Hidden states at the chosen positions, row by row."""
        if where is not self.where:
            return states_at(self.hidden, self.own, where)
        rows, columns = self.places
        return self.hidden[self.own[rows], columns]

    @cached_property
    def places(self) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
        """Rows and columns of ``where``: to know how many there are, the host waits for the device."""
        rows, columns = self.where.nonzero(as_tuple=True)
        return rows, columns

    def write(self, tokens: Int[Tensor, "N"]) -> Int[Tensor, "B L"]:
        """The state with these tokens at ``where``, row by row."""
        return self.tokens.masked_scatter(self.where, tokens)


Walk = Generator[Call, Tensor, Tensor]


def walk(
    denoiser: Denoiser,
    start: Int[Tensor, "B L"],
    stream: torch.Generator,
    *,
    shares: Float[Tensor, "R k"] | Float[Tensor, "k"],
    law: Law | None = None,
    trained: int | None = None,
) -> Walk:
    """The calls of one reverse process. The generator's return value is the last state that it received.

    Args:
        start: any state. Its masks are the free positions, to which the law gives reveal times.
        shares: share of the free positions that is revealed after each of the k calls, ascending to 1; one row for
            all sequences (R = 1), or one for each (R = B). An ``OpenLaw`` does not read it: calls go on until no mask
            is left.
        law: which positions are written in a call. None: all free positions in each of the k calls, for callers that
            decide themselves which tokens stay.
        trained: None for sampling, where unchanged rows keep their hidden states. For a rollout, how many of the last
            calls keep their graph where gradients are enabled; 0 for all of them.

    The ``times`` of the law are drawn from ``stream`` before the first call, and the noise of a ``NoisyDenoiser`` at
    the start of each call. The caller's own draws for a call come after these.

    Raises:
        InputError: an open law reveals nothing in a row that has masks.
    """
    mask, steps = denoiser.vocabulary.mask, None if isinstance(law, OpenLaw) else shares.shape[-1]
    free, ends = start == mask, shares.reshape(-1, shares.shape[-1]).to(start.device)
    times = law.times(free, stream) if law is not None else None
    trunk, tokens = Trunk(denoiser, stream, remembers=trained is None), start
    for step in itertools.count():
        masked = tokens == mask
        active = masked.any(1) if steps is None else None
        if step == steps or (active is not None and not active.any()):
            return tokens
        learns = not trained or (steps is not None and steps - step <= trained)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            hidden, own, noise = trunk(tokens, active)
        if law is None or times is None:
            where = free
        else:
            beliefs = Beliefs(denoiser, partial(states_at, hidden, own), masked)
            if isinstance(law, OpenLaw):
                where = _chosen(law, times, masked, beliefs)
            else:
                times = law.reorder(times, masked, beliefs.confidence) if law.sees_model else times
                where = masked & (times <= ends[:, step : step + 1])
        tokens = yield Call(tokens, where, hidden, own, step, active, learns, noise)
    raise AssertionError("unreachable")


def follow(steps: Walk, answer: Callable[[Call], Int[Tensor, "B L"]]) -> Int[Tensor, "B L"]:
    """Walk to the end; ``answer`` returns the state that follows each call."""
    try:
        call = next(steps)
        while True:
            call = steps.send(answer(call))
    except StopIteration as end:
        finished: Tensor = end.value
        return finished


def states_at(
    hidden: Float[Tensor, "U L D"], own: Int[Tensor, "B"], where: Bool[Tensor, "B L"]
) -> Float[Tensor, "N D"]:
    """Hidden states at the chosen positions, row by row; ``hidden[own[b]]`` are those of row b."""
    rows, columns = where.nonzero(as_tuple=True)
    return hidden[own[rows], columns]


def _chosen(
    law: OpenLaw, times: Float[Tensor, "B L"], masked: Bool[Tensor, "B L"], beliefs: Beliefs
) -> Bool[Tensor, "B L"]:
    """The positions that an open law reveals: at least one per unfinished row, or the walk would never end."""
    where = law.choose(times, masked, beliefs) & masked
    idle = int((masked.any(1) & ~where.any(1)).sum())
    if idle:
        raise InputError(
            f"law={law.name} reveals nothing in {idle} of {len(masked)} sequences that still have masks: an open law "
            "must reveal at least one position of each in every call."
        )
    return where


class Trunk:
    """Hidden states for successive calls, with as few rows through the trunk as possible.

    Equal rows run once: the first call of a generation has the same input for every sequence of one length. With
    ``remembers``, a row that has not changed since the last call keeps its hidden states: with as many steps as tokens,
    a step of the law ``iid`` reveals nothing in a third (1/e) of the rows. A denoiser that takes noise gets new noise
    for every row and call, so no two of its rows are equal.
    """

    def __init__(self, denoiser: Denoiser, stream: torch.Generator, remembers: bool = True) -> None:
        self.denoiser, self.stream, self.remembers = denoiser, stream, remembers
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(
        self, tokens: Int[Tensor, "B L"], active: Bool[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "U L D"], Int[Tensor, "B"], Float[Tensor, "B Z"] | None]:
        """One trunk call for the active rows (None: for all).

        All calls must have the same shape, and a row that was left out must not come back.

        Returns:
            the hidden states, for each row the index of its own, and the noise (None for a denoiser without).
        """
        noise = fresh_noise(self.denoiser, tokens, self.stream)
        if noise is not None:
            assert isinstance(self.denoiser, NoisyDenoiser), "only these have noise"
            rows = torch.ones_like(tokens[:, 0], dtype=torch.bool) if active is None else active
            return self.denoiser.trunk(tokens[rows], noise[rows]), (rows.cumsum(0) - 1).clamp_min(0), noise
        stale = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device) if active is None else active
        if self._last is not None:
            stale = stale & (tokens != self._last[0]).any(dim=1)
        known = active is None and self._last is None  # then all rows are stale, and nothing waits for the device
        count = len(tokens) if known else int(stale.sum())
        if count == len(tokens):
            hidden, own = distinct_trunk(self.denoiser, tokens)
        elif self._last is None or count:
            hidden, own = self._renewed(tokens, stale, active)
        else:
            _, hidden, own = self._last
        self._last = (tokens, hidden, own) if self.remembers else None
        return hidden, own, None

    def _renewed(
        self, tokens: Int[Tensor, "B L"], stale: Bool[Tensor, "B"], active: Bool[Tensor, "B"] | None
    ) -> tuple[Float[Tensor, "U L D"], Int[Tensor, "B"]]:
        """New hidden states for the stale rows, and the old ones for all other active rows."""
        fresh, place = distinct_trunk(self.denoiser, tokens[stale])
        own = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        if self._last is None:
            return fresh, own.masked_scatter(stale, place)
        _, hidden, before = self._last
        keeps = ~stale if active is None else ~stale & active
        kept, still = before[keeps].unique(return_inverse=True)
        own = own.masked_scatter(keeps, still).masked_scatter(stale, place + len(kept))
        return torch.cat([hidden[kept], fresh]), own
