"""DPLM's own decoder: reparameterised decoding, which may mask what it wrote again and redraws overused tokens.

Wang et al. 2024 (arXiv 2402.18567) with the routing of Zheng et al. 2023 (arXiv 2302.05737, algorithm 2). It is the
many-step baseline of the protein domain. It does not sample from the masked diffusion process, because confidence
decides where it writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.heads import chunk_rows, position_log_p, sharpen
from didi_core.diffusion.noise import noisy_trunk
from didi_core.diffusion.walk import Call
from didi_core.errors import InputError
from didi_core.sampling.base import Sampled, SampleRequest, TokenRule, fill
from didi_core.types import NFE, Denoiser

REDRAW_TOP_P = 0.95  # nucleus of the redraw, fixed in DPLM's code


@dataclass(frozen=True)
class Dplm:
    """k steps, each of which proposes a token for every free position, revealed ones included.

    Of N free positions the floor(N * (1 - share)) proposals of lowest score are masked (again) after a step; a masked
    position outside them takes its proposal, a revealed one keeps its token. The score of a proposal is its
    log-probability under the logits with the noise that chose it (DPLM's ``gumbel_argmax``). DPLM's schedules
    ``linear`` and ``cosine`` are the grids ``uniform`` and ``cosine``; ``temperature`` scales the Gumbel noise (DPLM's
    noise_scale, 1.0).

    resample: where one token makes up more than this share of a proposed sequence, its free positions are masked and
        proposed again in an extra call; 1 for never.

    Departures from DPLM's code: tokens the domain forbids are never proposed (DPLM leaves B, U, Z and others legal);
    the extra call sees the sequence with its pinned positions (there their predictions stand in for them).
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = False

    resample: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.resample <= 1:
            raise InputError(f"resample={self.resample} is out of range: it must be in (0, 1].")

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Sampled:
        denoiser, rule, extra = request.denoiser, request.rule, 0

        def step(call: Call) -> Int[Tensor, "B L"]:
            nonlocal extra
            free, mask = call.where, denoiser.vocabulary.mask
            proposed, scores = propose(denoiser, call.at(free), rule, request.generator)
            whole = call.write(proposed)
            sure = torch.full(free.shape, torch.inf, device=free.device).masked_scatter(free, scores)
            if self.resample < 1:
                whole, sure, redrawn = redraw(denoiser, whole, sure, free, rule, self.resample, request.generator)
                extra += redrawn
            unsure = lowest(sure, free, 1 - float(request.shares[call.step]))
            return torch.where(unsure, mask, torch.where(call.tokens == mask, whole, call.tokens))

        made = fill(request, request.walk(None), step)
        return Sampled(made.tokens, made.nfe + NFE(denoiser=extra / request.template.shape[0]))


def propose(
    denoiser: Denoiser, hidden: Float[Tensor, "N D"], rule: TokenRule, generator: torch.Generator
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """A token for each position, by Gumbel-max.

    Returns:
        the tokens, and their log-probabilities under the noisy logits.
    """
    size = chunk_rows(denoiser.vocabulary.size)
    tokens, scores = [], []
    for start in range(0, max(hidden.shape[0], 1), size):
        log_p = sharpen(position_log_p(denoiser, hidden[start : start + size], rule.bias), top_p=rule.top_p)
        best = torch.log_softmax(log_p + rule.temperature * gumbel(log_p, generator), dim=-1).max(dim=-1)
        tokens.append(best.indices)
        scores.append(best.values)
    return torch.cat(tokens), torch.cat(scores)


def gumbel(like: Float[Tensor, "N V"], generator: torch.Generator) -> Float[Tensor, "N V"]:
    """Standard Gumbel noise: minus the logarithm of an exponential variable."""
    race = torch.empty(like.shape, device=generator.device).exponential_(generator=generator)
    return -race.clamp_min_(torch.finfo(race.dtype).tiny).log_().to(like.device)


def lowest(scores: Float[Tensor, "B L"], free: Bool[Tensor, "B L"], part: float) -> Bool[Tensor, "B L"]:
    """Each row's floor(part * number of free positions) free positions of lowest score (fewer where scores tie)."""
    counts = (free.sum(1, keepdim=True).float() * part).long()
    cutoff = scores.masked_fill(~free, torch.inf).sort(dim=1).values.gather(1, counts)
    return (scores < cutoff) & free


def redraw(
    denoiser: Denoiser,
    whole: Int[Tensor, "B L"],
    scores: Float[Tensor, "B L"],
    free: Bool[Tensor, "B L"],
    rule: TokenRule,
    share: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L"], int]:
    """Proposals without overused tokens; rows that have one get one more call.

    Returns:
        the sequences, their scores, and the number of rows with an extra call.
    """
    vocabulary = denoiser.vocabulary
    counts = torch.zeros(whole.shape[0], vocabulary.size + 1, device=whole.device)
    real = torch.ones_like(whole) if vocabulary.pad is None else (whole != vocabulary.pad).long()
    read = vocabulary.as_read(whole)
    counts.scatter_add_(1, read, real.float())
    overused = counts > share * vocabulary.lengths(whole)[:, None]
    again = overused.gather(1, read) & free
    rows = again.any(1).nonzero().squeeze(1)
    if not rows.numel():
        return whole, scores, 0
    where = again[rows]
    hidden = noisy_trunk(denoiser, whole[rows].masked_fill(where, vocabulary.mask), generator)[where]
    narrow = TokenRule(rule.temperature, min(rule.top_p, REDRAW_TOP_P), rule.bias)
    tokens, sure = propose(denoiser, hidden, narrow, generator)
    return whole.masked_scatter(again, tokens), scores.masked_scatter(again, sure), rows.numel()
