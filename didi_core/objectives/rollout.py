"""Rollouts: how the student writes a sample during training, and which states it visits on the way.

The sample is made in k denoiser calls through shares 0 < s_1 < ... < s_k = 1; its log-probability is the sum over calls
of the log-probability of the tokens revealed there (intermediate-state matching: DiDi-Instruct, section 3.4, is k = 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.heads import distinct_trunk, draw_tokens, position_log_p
from didi_core.diffusion.laws import GRIDS, LAWS, Law, grid
from didi_core.diffusion.schedules import Schedule
from didi_core.errors import InputError, unknown
from didi_core.types import Denoiser


@dataclass(frozen=True)
class RolloutSettings:
    """Which states are visited.

    states: calls k; 1 is the one-shot rollout of the ablation, 2 the paper's.
    times: ``beta`` draws tau ~ Beta(*beta) inside [low, high] (k - 1 of them, sorted); ``grid`` visits the sampler's
        own states.
    law: which positions are revealed together. grid, power: shares of ``times=grid``.
    branches: completions drawn from each last intermediate state. They share its network call, so the advantage of
        a completion over its siblings costs scorer calls only.
    trained: how many of the last calls the student learns from, 0 for all. The others only lead to the states that a
        sampler visits, at the cost of a forward pass; what the student says there is left to later updates.
    """

    states: int = 2
    times: str = "beta"
    beta: tuple[float, float] = (1.0, 1.0)
    low: float = 0.02
    high: float = 0.98
    law: str = "iid"
    grid: str = "uniform"
    power: float = 3.0
    branches: int = 1
    trained: int = 0

    def __post_init__(self) -> None:
        if self.states < 1:
            raise InputError(f"objective.rollout.states={self.states} is out of range: at least one call.")
        if self.branches < 1:
            raise InputError(f"objective.rollout.branches={self.branches} is out of range: at least one completion.")
        if not 0 <= self.trained <= self.states:
            raise InputError(
                f"objective.rollout.trained={self.trained} is out of range: between 0 (all) and the "
                f"{self.states} calls of objective.rollout.states."
            )
        if self.times not in ("beta", "grid"):
            raise unknown("rollout times", self.times, ("beta", "grid"))
        LAWS.find(self.law, "objective.rollout.law")
        if self.grid not in GRIDS:
            raise unknown("grid", self.grid, GRIDS, "objective.rollout.grid")
        if not 0 < self.low < self.high < 1:
            raise InputError(f"objective.rollout.low={self.low}, high={self.high}: need 0 < low < high < 1.")
        if min(self.beta) <= 0:
            raise InputError(f"objective.rollout.beta={self.beta}: both parameters must be positive.")


def beta_times(
    n: int, settings: RolloutSettings, stream: torch.Generator
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """n draws of tau ~ Beta(a, b) scaled into [low, high], and their density pi(tau)."""
    a, b = settings.beta
    gammas = torch.stack([_gamma(a, n, stream), _gamma(b, n, stream)])
    unit = (gammas[0] / gammas.sum(0)).clamp(1e-6, 1 - 1e-6)
    density = torch.distributions.Beta(a, b).log_prob(unit).exp() / (settings.high - settings.low)
    return settings.low + (settings.high - settings.low) * unit, density


def _gamma(shape: float, n: int, stream: torch.Generator) -> Float[Tensor, "n"]:
    """Gamma draws from a named stream (torch's own sampler reads the generator it is given), on the CPU."""
    shapes = torch.full((n,), shape, dtype=torch.float64, device=stream.device)
    return torch._standard_gamma(shapes, generator=stream).cpu()


def rollout_times(
    settings: RolloutSettings, groups: int, schedule: Schedule, stream: torch.Generator
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Shares after each call, the time tau that scorer and reward are coupled to, and its density; one row a group.

    With several intermediate states tau is one of theirs, chosen at random.
    """
    k = settings.states
    if k == 1:
        tau, density = beta_times(groups, settings, stream)
        return torch.ones(groups, 1, dtype=torch.float64), tau, density
    if settings.times == "grid":
        shares = grid(settings.grid, k, power=settings.power).expand(groups, k).clone()
        pick = torch.randint(k - 1, (groups, 1), generator=stream, device=stream.device).cpu()
        tau = schedule.inverse(shares.gather(1, pick).squeeze(1)).clamp(settings.low, settings.high)
        return shares, tau, torch.ones(groups, dtype=torch.float64)
    drawn, density = beta_times(groups * (k - 1), settings, stream)
    ordered, order = drawn.view(groups, k - 1).sort(dim=1, descending=True)
    pick = torch.randint(k - 1, (groups, 1), generator=stream, device=stream.device).cpu()
    density = density.view(groups, k - 1).gather(1, order)
    shares = torch.cat([schedule.alpha(ordered), torch.ones(groups, 1, dtype=torch.float64)], dim=1)
    return shares, ordered.gather(1, pick).squeeze(1), density.gather(1, pick).squeeze(1)


@dataclass(frozen=True)
class Call:
    """One denoiser call of a rollout: its input, the positions it revealed, and its hidden states (with their graph
    where the student learns from the call)."""

    tokens: Int[Tensor, "B L"]
    where: Bool[Tensor, "B L"]
    hidden: Float[Tensor, "U L D"]
    own: Int[Tensor, "B"]
    trained: bool = True

    def at(self, where: Bool[Tensor, "B L"]) -> Float[Tensor, "N D"]:
        """Hidden states at the chosen positions, row by row."""
        rows, columns = where.nonzero(as_tuple=True)
        return self.hidden[self.own[rows], columns]


@dataclass(frozen=True)
class Rollout:
    """The calls of a rollout and its completions [M, B, L]; ``calls[i + 1].tokens`` is what call i led to."""

    calls: tuple[Call, ...]
    completions: Int[Tensor, "M B L"]


def roll_out(
    denoiser: Denoiser,
    template: Int[Tensor, "B L"],
    shares: Float[Tensor, "B k"],
    law: Law,
    stream: torch.Generator,
    branches: int = 1,
    trained: int = 0,
) -> Rollout:
    """Write samples through the states of ``shares``. Hidden states of the last ``trained`` calls (0: of all) keep
    their graph where gradients are enabled."""
    mask = denoiser.vocabulary.mask
    times = law.times(template == mask, stream)
    tokens, calls, completions = template, [], []
    k = shares.shape[1]
    for i in range(k):
        masked = tokens == mask
        learns = not trained or k - i <= trained
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            hidden, own = distinct_trunk(denoiser, tokens)
        if law.sees_model:
            times = law.reorder(times, masked, _surest(denoiser, hidden, own, masked))
        where = masked & (times <= shares[:, i : i + 1].to(times.device)) if i < k - 1 else masked
        call = Call(tokens, where, hidden, own, learns)
        calls.append(call)
        with torch.no_grad():
            at = call.at(where)
            for _ in range(branches if i == k - 1 else 1):
                tokens = call.tokens.masked_scatter(where, draw_tokens(denoiser, at, stream))
                if i == k - 1:
                    completions.append(tokens)
    return Rollout(tuple(calls), torch.stack(completions))


@torch.no_grad()
def _surest(denoiser: Denoiser, hidden: Tensor, own: Tensor, masked: Tensor) -> Float[Tensor, "B L"]:
    """Largest token probability at each masked position."""
    rows, columns = masked.nonzero(as_tuple=True)
    best = position_log_p(denoiser, hidden[own[rows], columns]).amax(-1)
    return torch.full(masked.shape, -torch.inf, device=masked.device).masked_scatter(masked, best)
