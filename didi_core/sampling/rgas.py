"""RGAS, the reward-guided ancestral sampler (DiDi-Instruct, section 3.5 and algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.draws import draw
from didi_core.diffusion.heads import chunk_rows, position_log_p, sharpen
from didi_core.diffusion.masking import masked_mean
from didi_core.diffusion.walk import Call
from didi_core.errors import InputError, positive
from didi_core.sampling.base import Sampled, SampleRequest, fill
from didi_core.types import NFE, Scorer


@dataclass(frozen=True)
class Rgas:
    """k denoiser calls, tilted towards what the scorer takes for the reference.

    The first steps draw from log_p <- log_p_x0 + h * clip(d(sum of scorer logits) / d(log_p)). The later steps draw M
    candidate states and keep one with probability proportional to exp(mean scorer logit over its masked positions).
    Without guidance (h = 0 and M = 1) RGAS draws the same numbers as the ancestral sampler. A scorer call with gradient
    counts as three calls, the call for a candidate as one.

    scale: (first, last) strength h of the gradient, rising linearly over the guided steps.
    candidates: M states drawn in each later step; one is kept by softmax of its reward.
    gradient_share: share of the steps guided by the gradient; the others choose among candidates.
    clip: bound on each entry of the gradient.
    """

    needs_scorer: ClassVar[bool] = True
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = True

    scale: tuple[float, float] = (30.0, 40.0)
    candidates: int = 4
    gradient_share: float = 0.5
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise InputError(f"candidates={self.candidates} is out of range: at least one candidate is drawn.")
        if min(self.scale) < 0:
            raise InputError(f"scale={list(self.scale)} is out of range: it must not be negative.")
        positive(clip=self.clip)
        if not 0 <= self.gradient_share <= 1:
            raise InputError(f"gradient_share={self.gradient_share} is out of range: it must be in [0, 1].")

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Sampled:
        scorer = request.scorer
        if scorer is None:
            raise InputError(
                "sampler=rgas needs the scorer of a distillation; this model has none. Use sampler=ancestral."
            )
        if request.law.sees_model:
            raise InputError(f"sampler=rgas needs a law that does not look at the model; got law={request.law.name}.")
        guided, spent = round(self.gradient_share * len(request.shares)), 0

        def step(call: Call) -> Int[Tensor, "B L"]:
            nonlocal spent
            scale = self._strength(call.step, guided) if call.step < guided else 0.0
            if scale > 0:
                spent += 3
                return guided_step(request, scorer, call, scale, self.clip)
            if call.step >= guided and self.candidates > 1:
                spent += self.candidates
                drawn = [request.draw(call) for _ in range(self.candidates)]
                return _choose(scorer, torch.stack(drawn), request.denoiser.vocabulary.mask, request.generator)
            return request.draw(call)

        made = fill(request, request.walk(request.law), step)
        return Sampled(made.tokens, made.nfe + NFE(scorer=spent))

    def _strength(self, step: int, guided: int) -> float:
        """Strength h of a step, linear from the first value to the last over the guided steps."""
        first, last = self.scale
        return first + (last - first) * (step / max(guided - 1, 1))


def guided_step(request: SampleRequest, scorer: Scorer, call: Call, scale: float, clip: float) -> Int[Tensor, "B L"]:
    """One step with log_p <- log_p + h * clip(d sum(scorer logits) / d log_p), renormalised.

    The gradient needs log_p at every masked position of a sequence, so sequences are processed as many at a time as one
    chunk of logits holds, and at least one.
    """
    mask, rule, drawn = request.denoiser.vocabulary.mask, request.rule, []
    masked = call.tokens == mask
    rows = max(chunk_rows(request.denoiser.vocabulary.size) // max(int(masked.sum(1).max()), 1), 1)
    for some in torch.arange(len(masked), device=masked.device).split(rows):
        here = masked.new_zeros(masked.shape).index_fill(0, some, True) & masked
        log_p = position_log_p(request.denoiser, call.at(here), rule.bias)
        gradient = reward_gradient(scorer, call.tokens[some], here[some], log_p).clamp(-clip, clip)
        chosen = call.where[here]
        tilted = torch.log_softmax(log_p[chosen] + scale * gradient[chosen], dim=-1)
        drawn.append(draw(sharpen(tilted, rule.temperature, rule.top_p), request.generator))
    return call.write(torch.cat(drawn))


def reward_gradient(
    scorer: Scorer, tokens: Int[Tensor, "B L"], masked: Bool[Tensor, "B L"], log_p: Float[Tensor, "M V"]
) -> Float[Tensor, "M V"]:
    """Gradient of the sum of scorer logits at the masked positions, which hold soft tokens, with respect to log_p."""
    with torch.enable_grad():
        leaf = log_p.detach().clone().requires_grad_(True)
        total = scorer.soft(tokens, masked, leaf.exp())[masked].sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return torch.nan_to_num(gradient)  # at forbidden tokens exp(-inf) has no meaningful gradient


def _choose(
    scorer: Scorer, candidates: Int[Tensor, "M B L"], mask: int, generator: torch.Generator
) -> Int[Tensor, "B L"]:
    """One candidate per row, by softmax of its mean scorer logit over masked positions (over all if none is left)."""
    count, batch, _ = candidates.shape
    flat = candidates.flatten(0, 1)
    logits = scorer(flat)
    masked = flat == mask
    finished = ~masked.any(1, keepdim=True)
    rewards = masked_mean(logits, masked | (finished & scorer.vocabulary.maskable(flat))).view(count, batch)
    kept = draw(torch.log_softmax(rewards.T, dim=-1), generator)
    return candidates[kept, torch.arange(batch, device=kept.device)]
