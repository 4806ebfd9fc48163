"""RGAS, the reward-guided ancestral sampler (DiDi-Instruct, section 3.5 and algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.heads import TrunkMemory, draw, position_log_p, sharpen
from didi_core.diffusion.laws import Law
from didi_core.diffusion.masking import masked_mean
from didi_core.errors import InputError
from didi_core.sampling.ancestral import Sampled, TokenRule, reveal
from didi_core.types import NFE, Denoiser, Scorer


@dataclass(frozen=True)
class GuidanceSettings:
    """How strongly and where the scorer guides.

    scale: (first, last) strength h of the gradient, rising linearly over the guided steps.
    candidates: M states drawn per step of the last part; one is kept by softmax of its reward.
    gradient_share: share of the steps that are guided by gradient; the rest chooses among candidates.
    clip: bound on each entry of the gradient.
    """

    scale: tuple[float, float] = (30.0, 40.0)
    candidates: int = 4
    gradient_share: float = 0.5
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise InputError(f"candidates={self.candidates} is out of range: at least one candidate is drawn.")
        if min(self.scale) < 0:
            raise InputError(f"guidance scale {self.scale} is out of range: it must not be negative.")
        if not 0 <= self.gradient_share <= 1:
            raise InputError(f"gradient_share={self.gradient_share} is out of range: it must be in [0, 1].")


@torch.no_grad()
def rgas(
    denoiser: Denoiser,
    scorer: Scorer,
    template: Int[Tensor, "B L"],
    *,
    shares: Float[Tensor, "k"],
    law: Law,
    guidance: GuidanceSettings | None = None,
    rule: TokenRule | None = None,
    generator: torch.Generator,
    progress: Callable[[], None] | None = None,
) -> Sampled:
    """Fill a template in k denoiser calls, tilted towards what the scorer takes for the reference.

    The first steps add h * clip(gradient) to log_p_x0; the later ones draw M candidate states and keep one with
    probability proportional to exp(mean scorer logit over its masked positions). Without guidance (h = 0 and M = 1) it
    draws the same numbers as the ancestral sampler. A scorer call with gradient counts as three, each candidate's as
    one.
    """
    guidance, rule = guidance or GuidanceSettings(), rule or TokenRule()
    if law.sees_model:
        raise InputError(f"sampler=rgas needs a law that does not look at the model; got law={law.name}.")
    tokens, mask = template.clone(), denoiser.vocabulary.mask
    times = law.times(template == mask, generator)
    guided = round(guidance.gradient_share * len(shares))
    trunk, nfe = TrunkMemory(denoiser), NFE()
    for step, target in enumerate(shares.tolist()):
        masked = tokens == mask
        where = masked & (times <= target)
        hidden, own = trunk(tokens)
        nfe += NFE(denoiser=1)
        scale = _scale(guidance.scale, step, guided) if step < guided else 0.0
        if scale > 0:
            tokens = _guided_step(
                denoiser, scorer, tokens, hidden, own, masked, where, scale, guidance, rule, generator
            )
            nfe += NFE(scorer=3)
        elif step >= guided and guidance.candidates > 1:
            drawn = [reveal(denoiser, tokens, hidden, own, where, rule, generator) for _ in range(guidance.candidates)]
            tokens = _choose(scorer, torch.stack(drawn), mask, generator)
            nfe += NFE(scorer=guidance.candidates)
        else:
            tokens = reveal(denoiser, tokens, hidden, own, where, rule, generator)
        if progress:
            progress()
    return Sampled(tokens, nfe)


def _scale(ends: tuple[float, float], step: int, guided: int) -> float:
    """Linear from the first strength to the last over the guided steps."""
    return ends[0] + (ends[1] - ends[0]) * (step / max(guided - 1, 1))


def _guided_step(
    denoiser: Denoiser,
    scorer: Scorer,
    tokens: Int[Tensor, "B L"],
    hidden: Float[Tensor, "U L D"],
    own: Int[Tensor, "B"],
    masked: Bool[Tensor, "B L"],
    where: Bool[Tensor, "B L"],
    scale: float,
    guidance: GuidanceSettings,
    rule: TokenRule,
    generator: torch.Generator,
) -> Int[Tensor, "B L"]:
    """One step with log_p <- log_p + h * clip(d sum(scorer logits) / d log_p), renormalised."""
    rows, columns = masked.nonzero(as_tuple=True)
    log_p = position_log_p(denoiser, hidden[own[rows], columns], rule.bias)
    gradient = reward_gradient(scorer, tokens, masked, log_p).clamp(-guidance.clip, guidance.clip)
    chosen = where[rows, columns]
    tilted = torch.log_softmax(log_p[chosen] + scale * gradient[chosen], dim=-1)
    return tokens.masked_scatter(where, draw(sharpen(tilted, rule.temperature, rule.top_p), generator))


def reward_gradient(
    scorer: Scorer, tokens: Int[Tensor, "B L"], masked: Bool[Tensor, "B L"], log_p: Float[Tensor, "M V"]
) -> Float[Tensor, "M V"]:
    """Gradient of the summed scorer logits at the masked positions with respect to log_p, tokens being soft there."""
    with torch.enable_grad():
        leaf = log_p.detach().clone().requires_grad_(True)
        total = scorer.soft(tokens, masked, leaf.exp())[masked].sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return torch.nan_to_num(gradient)  # exp(-inf) has no gradient worth the name at forbidden tokens


def _choose(
    scorer: Scorer, candidates: Int[Tensor, "M B L"], mask: int, generator: torch.Generator
) -> Int[Tensor, "B L"]:
    """One candidate per row, by softmax of its mean scorer logit (over masked positions, or all when none is left)."""
    count, batch, _ = candidates.shape
    flat = candidates.flatten(0, 1)
    logits = scorer(flat)
    masked = flat == mask
    finished = ~masked.any(1, keepdim=True)
    rewards = masked_mean(logits, masked | (finished & scorer.vocabulary.maskable(flat))).view(count, batch)
    kept = draw(torch.log_softmax(rewards.T, dim=-1), generator)
    return candidates[kept, torch.arange(batch, device=kept.device)]
