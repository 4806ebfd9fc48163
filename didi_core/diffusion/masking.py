"""The masked forward process q(xt | x0), SUBS, the reverse step and its log-probability, as pure functions.

q(xt_l | x0_l) = alpha_t [xt_l = x0_l] + (1 - alpha_t) [xt_l = mask], independently for every free position l (MDLM,
Sahoo et al. 2024, arXiv 2406.07524).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.types import Vocabulary


def forward_mask(
    x0: Int[Tensor, "B L"],
    alpha: Float[Tensor, "B"],
    maskable: Bool[Tensor, "B L"],
    mask: int,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B L"]:
    """Draw xt ~ q(xt | x0): each maskable position becomes the mask with probability 1 - alpha, independently.

    Args:
        alpha: probability that a token stays visible, one per sequence.
        maskable: positions that may be masked; all others are pinned.
        mask: id of the mask.
    """
    draws = torch.rand(x0.shape, generator=generator, device=generator.device if generator else x0.device)
    hidden = (draws.to(x0.device) >= alpha[:, None]) & maskable
    return torch.where(hidden, mask, x0)


def allowed_logits(logits: Float[Tensor, "... K"], vocabulary: Vocabulary) -> Float[Tensor, "... V"]:
    """The tokens' columns, in fp32 at least; those of forbidden tokens are -inf. May share memory with ``logits``."""
    raw = logits[..., : vocabulary.size].to(torch.promote_types(logits.dtype, torch.float32))
    return raw if vocabulary.all_generated else raw.masked_fill(~vocabulary.allowed(logits.device), -torch.inf)


def log_p_x0(logits: Float[Tensor, "... K"], vocabulary: Vocabulary) -> Float[Tensor, "... V"]:
    """SUBS at masked positions: log-probabilities, in fp32 at least, over the tokens that may be generated.

    The mask and forbidden tokens get no mass (-inf) and the rest is normalised (MDLM, section 3.2.3). The caller copies
    visible positions and passes none of them here.
    """
    return torch.log_softmax(allowed_logits(logits, vocabulary), dim=-1)


def reveal_probability(alpha_t: Float[Tensor, "..."], alpha_s: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Probability that a position masked at t is visible at s < t: (alpha_s - alpha_t) / (1 - alpha_t)."""
    return (alpha_s - alpha_t) / (1 - alpha_t)


def joint_reverse_log_p(
    log_p: Float[Tensor, "... V"], alpha_t: Float[Tensor, "..."], alpha_s: Float[Tensor, "..."]
) -> Float[Tensor, "... W"]:
    """The reverse step of one masked position as a distribution over the tokens and, in the last column, the mask.

    p(xs_l = a | xt) = r p(x0_l = a | xt) and p(xs_l = mask | xt) = 1 - r, with r the reveal probability (MDLM,
    equation 7).
    """
    reveal = reveal_probability(alpha_t, alpha_s).to(log_p.dtype)
    reveal = reveal.expand(log_p.shape[:-1])[..., None]
    return torch.cat([log_p + torch.log(reveal), torch.log1p(-reveal)], dim=-1)


def step_log_p(chosen: Float[Tensor, "N"], rows: Int[Tensor, "N"], batch: int) -> Float[Tensor, "B"]:
    """Log-probability of one reverse step: the sum over the tokens that it revealed, for each sequence.

    The revealed positions of the whole batch are listed flat, and ``rows`` gives the sequence of each. Unless the law
    looks at the network, the choice of positions does not depend on it; that factor has no gradient and is left out.
    """
    return torch.zeros(batch, dtype=chosen.dtype, device=chosen.device).index_add(0, rows, chosen)


def masked_mean(values: Float[Tensor, "B L"], where: Bool[Tensor, "B L"]) -> Float[Tensor, "B"]:
    """Mean over the chosen positions of each row; zero for a row that has none."""
    return (values * where).sum(1) / where.sum(1).clamp_min(1)


def mean_or_zero(values: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The mean; zero, with zero gradients, where there are no values: a slice of one sequence may have no mask."""
    return values.mean() if values.numel() else values.sum()
