"""The sampling loop: ancestral with a factorised draw, and first-hitting as the many-step reference.

A sampler starts from a template: masks where something is to be written, anything else pinned. Each step decides first
*which* positions are revealed and then draws their tokens. The law is that of the joint (token or mask) draw, but exact
in fp32, and the vocabulary head runs only at the revealed positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.heads import TrunkMemory, distinct_trunk, draw, draw_tokens, position_log_p, sharpen
from didi_core.diffusion.laws import Law
from didi_core.diffusion.masking import joint_reverse_log_p
from didi_core.errors import InputError
from didi_core.types import NFE, Denoiser

PRECISIONS = ("exact", "legacy_fp32")


@dataclass(frozen=True)
class Sampled:
    """Finished sequences [B, L] and the network calls that each of them took."""

    tokens: Int[Tensor, "B L"]
    nfe: NFE


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


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    template: Int[Tensor, "B L"],
    *,
    shares: Float[Tensor, "k"],
    law: Law,
    rule: TokenRule | None = None,
    precision: str = "exact",
    generator: torch.Generator,
    progress: Callable[[], None] | None = None,
) -> Sampled:
    """Fill a template in exactly k denoiser calls; the last one reveals whatever is left.

    The trunk is not run again for rows in which the step before revealed nothing: same input, same hidden states.

    Args:
        shares: share of the free positions revealed after each step, ascending to 1.
        law: which positions are revealed together.
        precision: ``exact``, or ``legacy_fp32`` to reproduce the peers' joint draw and its truncation of rare tokens
            (law ``iid`` only).
    """
    rule = rule or TokenRule()
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not a sampling precision. Known: {', '.join(PRECISIONS)}.")
    if precision == "legacy_fp32" and law.name != "iid":
        raise InputError(f"precision=legacy_fp32 is the peers' joint draw, which is law=iid; got law={law.name}.")
    tokens = template.clone()
    free = template == denoiser.vocabulary.mask
    times = law.times(free, generator)
    trunk, share = TrunkMemory(denoiser), 0.0
    for target in shares.tolist():
        masked = tokens == denoiser.vocabulary.mask
        if precision == "legacy_fp32":
            tokens = _legacy_step(denoiser, tokens, masked, share, target, rule, generator)
        else:
            hidden, own = trunk(tokens)
            if law.sees_model:
                times = law.reorder(times, masked, _confidence(denoiser, hidden, own, masked))
            tokens = reveal(denoiser, tokens, hidden, own, masked & (times <= target), rule, generator)
        share = target
        if progress:
            progress()
    return Sampled(tokens, NFE(denoiser=len(shares)))


def reveal(
    denoiser: Denoiser,
    tokens: Int[Tensor, "B L"],
    hidden: Float[Tensor, "U L D"],
    own: Int[Tensor, "B"],
    where: Bool[Tensor, "B L"],
    rule: TokenRule,
    generator: torch.Generator,
) -> Int[Tensor, "B L"]:
    """``tokens`` with new draws at ``where``. ``hidden[own[b]]`` are the hidden states of row b."""
    rows, columns = where.nonzero(as_tuple=True)
    drawn = draw_tokens(
        denoiser,
        hidden[own[rows], columns],
        generator,
        temperature=rule.temperature,
        top_p=rule.top_p,
        bias=rule.bias,
    )
    return tokens.masked_scatter(where, drawn)


def _confidence(
    denoiser: Denoiser, hidden: Float[Tensor, "U L D"], own: Int[Tensor, "B"], masked: Bool[Tensor, "B L"]
) -> Float[Tensor, "B L"]:
    """Largest token probability at each masked position, zero elsewhere."""
    rows, columns = masked.nonzero(as_tuple=True)
    surest = position_log_p(denoiser, hidden[own[rows], columns]).amax(-1).exp()
    return torch.zeros(masked.shape, device=masked.device).masked_scatter(masked, surest)


def _legacy_step(
    denoiser: Denoiser,
    tokens: Int[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    share: float,
    target: float,
    rule: TokenRule,
    generator: torch.Generator,
) -> Int[Tensor, "B L"]:
    """One step of the peers' sampler: fp32 Gumbel-max over (tokens and mask) jointly, from 24-bit uniforms.

    The last step has reveal probability 1, as in our own sampler; the peers make one more call there.
    """
    log_p = sharpen(position_log_p(denoiser, denoiser.trunk(tokens)[masked], rule.bias), rule.temperature, rule.top_p)
    alphas = torch.tensor([share, target], dtype=torch.float32, device=log_p.device)
    joint = joint_reverse_log_p(log_p, alphas[0], alphas[1])
    uniforms = torch.rand(joint.shape, generator=generator, device=generator.device).to(joint.device)
    gumbel = -torch.log(1e-10 - torch.log(uniforms + 1e-10))
    return tokens.masked_scatter(masked, (joint + gumbel).argmax(-1))  # the mask is the last column and id V


@torch.no_grad()
def first_hitting(
    denoiser: Denoiser,
    template: Int[Tensor, "B L"],
    *,
    rule: TokenRule | None = None,
    generator: torch.Generator,
    progress: Callable[[], None] | None = None,
) -> Sampled:
    """One token per call in uniformly random order: exact in law for the continuous-time process, all rows at once.

    With a time-independent denoiser the hitting times themselves do not matter, only their order (Zheng et al. 2024,
    "Masked diffusion models are secretly time-agnostic"). Rows with fewer free positions finish earlier and are not
    called again.
    """
    rule = rule or TokenRule()
    tokens = template.clone()
    free = template == denoiser.vocabulary.mask
    keys = torch.rand(free.shape, generator=generator, device=generator.device, dtype=torch.float64).to(free.device)
    order = keys.masked_fill(~free, torch.inf).argsort(dim=1)
    counts = free.sum(1)
    for step in range(int(counts.max()) if counts.numel() else 0):
        rows = (counts > step).nonzero().squeeze(1)
        columns = order[rows, step]
        hidden, own = distinct_trunk(denoiser, tokens[rows])
        log_p = position_log_p(denoiser, hidden[own, columns], rule.bias)
        tokens[rows, columns] = draw(sharpen(log_p, rule.temperature, rule.top_p), generator)
        if progress:
            progress()
    return Sampled(tokens, NFE(denoiser=float(counts.float().mean()) if counts.numel() else 0.0))
