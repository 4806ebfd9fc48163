"""Rollouts: how the student writes a sample during training, and which states it visits on the way.

k denoiser calls take the sample through shares 0 < s_1 < ... < s_k = 1. Its log-probability is the sum over the calls,

    log p_nu(x) <- sum_i log p_nu(z_i | z_{i-1}),

each of them the log-probability of the tokens revealed there. DiDi-Instruct (section 3.4, intermediate-state matching)
is k = 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.config import Choice
from didi_core.diffusion.grids import Grid, grid, shares_of
from didi_core.diffusion.heads import draw_tokens
from didi_core.diffusion.laws import Law, OpenLaw, law
from didi_core.diffusion.schedules import Schedule
from didi_core.diffusion.walk import Call, follow, walk
from didi_core.errors import InputError, unknown
from didi_core.types import Denoiser


class LawAndGrid:
    """What the keys of rollouts have in common: ``law``, ``grid`` and ``power``, as in ``SamplerSettings``."""

    law: Choice
    grid: Choice
    power: float

    def make_law(self) -> Law:
        """The unmasking law of the rollouts."""
        return law(self.law, "objective.rollout.law")

    def make_grid(self) -> Grid:
        """The time grid of the rollouts."""
        return grid(self.grid, self.power, "objective.rollout.grid")

    def check_law_and_grid(self) -> None:
        """Raise InputError for a law or a grid that no rollout can follow."""
        if isinstance(self.make_law(), OpenLaw):
            raise InputError(
                f"objective.rollout.law={self.law} decides itself how many calls it makes, and a rollout makes a given "
                "number of them: choose a law of reveal times."
            )
        if self.make_grid().needs_curve:
            raise InputError(
                f"objective.rollout.grid={self.grid} needs the NLL curve of a denoiser, which no rollout has: choose "
                "another grid."
            )

    def for_card(self) -> dict[str, Any]:
        """The law and the grid, which a sampler of the student goes by (``trained_with``)."""
        return {f"rollout_{key}": getattr(self, key) for key in ("law", "grid", "power")}


@dataclass(frozen=True)
class RolloutSettings(LawAndGrid):
    """Which states a rollout visits.

    states: number k of calls; 1 is the one-shot rollout of the ablation, 2 that of the paper.
    times: ``beta`` draws k - 1 sorted tau ~ Beta(*beta) inside [low, high]; ``grid`` visits the sampler's own states.
    law: which positions are revealed together. grid, power: shares of ``times=grid``. Each of law and grid is a name,
        or {kind: name, ...} with its own keys.
    branches: completions drawn from each last intermediate state. They share its network call, so the advantage of a
        completion over its siblings costs scorer calls only.
    trained: number of last calls that the student learns from, 0 for all. The earlier calls only lead to the states
        that a sampler visits, at the cost of a forward pass, and get no gradient.
    """

    states: int = 2
    times: str = "beta"
    beta: tuple[float, float] = (1.0, 1.0)
    low: float = 0.02
    high: float = 0.98
    law: Choice = field(default="iid", hash=False)
    grid: Choice = field(default="uniform", hash=False)
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
        self.check_law_and_grid()
        if not 0 < self.low < self.high < 1:
            raise InputError(f"objective.rollout.low={self.low}, high={self.high}: need 0 < low < high < 1.")
        if min(self.beta) <= 0:
            raise InputError(f"objective.rollout.beta={self.beta}: both parameters must be positive.")


def beta_times(
    n: int, settings: RolloutSettings, stream: torch.Generator
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """n draws of tau ~ Beta(a, b), scaled into [low, high].

    Returns:
        the times, and their density pi(tau).
    """
    a, b = settings.beta
    gammas = torch.stack([_gamma(a, n, stream), _gamma(b, n, stream)])
    unit = (gammas[0] / gammas.sum(0)).clamp(1e-6, 1 - 1e-6)
    density = torch.distributions.Beta(a, b).log_prob(unit).exp() / (settings.high - settings.low)
    return settings.low + (settings.high - settings.low) * unit, density


def _gamma(shape: float, n: int, stream: torch.Generator) -> Float[Tensor, "n"]:
    """Gamma draws on the CPU from a given stream (torch's own sampler accepts a generator)."""
    shapes = torch.full((n,), shape, dtype=torch.float64, device=stream.device)
    return torch._standard_gamma(shapes, generator=stream).cpu()


def rollout_times(
    settings: RolloutSettings, groups: int, schedule: Schedule, stream: torch.Generator
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n"], Float[Tensor, "n"]]:
    """The times of a rollout, one row per group.

    With several intermediate states, tau is the time of one of them, chosen at random.

    Returns:
        the shares after each call, the time tau to which scorer and reward are coupled, and the density of tau.
    """
    k = settings.states
    if k == 1:
        tau, density = beta_times(groups, settings, stream)
        return torch.ones(groups, 1, dtype=torch.float64), tau, density
    if settings.times == "grid":
        shares = shares_of(settings.make_grid(), k).expand(groups, k).clone()
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
class Rollout:
    """The calls of a rollout and its completions [M, B, L]; ``calls[i + 1].tokens`` is the state after call i."""

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
    """Write samples through the states of ``shares``, starting from ``template``.

    The template may be any state: all masked, with pinned positions, or corrupted data. The hidden states of the last
    ``trained`` calls (0: of all) keep their graph where gradients are enabled.
    """
    calls: list[Call] = []
    completions: list[Tensor] = []

    @torch.no_grad()
    def write(call: Call) -> Int[Tensor, "B L"]:
        calls.append(call)
        at, last = call.at(call.where), call.step == shares.shape[1] - 1
        made = [call.write(draw_tokens(denoiser, at, stream)) for _ in range(branches if last else 1)]
        completions.extend(made if last else ())
        return made[-1]

    follow(walk(denoiser, template, stream, shares=shares, law=law, trained=trained), write)
    return Rollout(tuple(calls), torch.stack(completions))
