"""Statistics of rows of categorical logits, with gradients in closed form instead of traced ones.

For an entropy and a divergence, autograd keeps and rereads some twenty arrays of the size of the logits. With p the
softmax of the model's logits z and q that of the reference, the derivatives with respect to z are

    log p_i:     onehot_i - p             entropy H:    -p (log p + H)
    KL(p || q):  p (log p - log q - KL)   KL(q || p):   p - q

so one product with p gives all of them. On a CPU the arithmetic runs over blocks of rows that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from didi_core.diffusion.blocks import row_blocks
from didi_core.diffusion.divergences import LOG_ZERO, Mixture
from didi_core.diffusion.masking import allowed_logits
from didi_core.types import Vocabulary

NO_MASS = -1e4  # log-probability of a token without mass, in a ratio: finite, and beyond every clip

@dataclass
class Memory:
    """Per-row results of a chunk's first run. The second run, in the backward pass, needs only the logits again."""

    found: tuple[Tensor, ...] = ()


class Rows(NamedTuple):
    """Log-probabilities (finite), probabilities and log-normalisers of a block."""

    log_p: Float[Tensor, "n V"]
    p: Float[Tensor, "n V"]
    normaliser: Float[Tensor, "n"]


class RowStatistics(torch.autograd.Function):
    """Log-probability of the chosen tokens, entropy, divergence from the reference and the reference's entropy.

    ``apply(logits [n, K], chosen [n, M], reference logits [n, J] or None, vocabulary, mixture, memory)`` returns them
    as [n, M], [n], [n] and [n]. Columns from V on are ignored. Only first derivatives exist, and none with respect to
    the reference.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "n K"],
        chosen: Int[Tensor, "n M"],
        reference: Float[Tensor, "n J"] | None,
        vocabulary: Vocabulary,
        mixture: Mixture,
        memory: Memory,
    ) -> tuple[Tensor, ...]:
        if not memory.found:
            tensors = (logits, chosen) if reference is None else (logits, chosen, reference)
            memory.found = _by_block(_statistics, tensors, vocabulary, mixture)
        own, entropy, value, reference_entropy, *rest = memory.found
        ctx.vocabulary, ctx.mixture = vocabulary, mixture
        ctx.save_for_backward(logits, chosen, reference, entropy, *rest)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(reference_entropy)
        return own.clone(), entropy.clone(), value.clone(), reference_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, chosen, reference, entropy, normaliser, reverse, reference_normaliser = ctx.saved_tensors
        own_grad, entropy_grad, value_grad, _ = grads
        zero = torch.zeros_like(entropy)
        of_own = zero if own_grad is None else own_grad.to(zero).sum(1)
        of_entropy = zero if entropy_grad is None else entropy_grad.to(zero)
        of_value = zero if value_grad is None or reference is None else value_grad.to(zero)
        pull, push = ctx.mixture.reverse * of_value, ctx.mixture.forward * of_value
        # p * (slope * log p - pull * log q + constant) - push * q, and the chosen tokens' own
        slope, constant = pull - of_entropy, push - of_own - of_entropy * entropy - pull * reverse
        pulled = reference is not None and value_grad is not None and bool(ctx.mixture.reverse)
        pushed = reference is not None and value_grad is not None and bool(ctx.mixture.forward)
        result = torch.empty_like(logits)
        result[:, ctx.vocabulary.size :] = 0
        for rows in row_blocks(logits):
            inner = _log_p(logits[rows], normaliser[rows], ctx.vocabulary)
            if pulled or pushed:
                log_q = _log_p(reference[rows], reference_normaliser[rows], ctx.vocabulary)
            if pulled or entropy_grad is not None:
                p = inner.exp()
                inner.mul_(slope[rows, None]).add_(constant[rows, None])
                if pulled:
                    inner.addcmul_(log_q, pull[rows, None], value=-1.0)
                inner.mul_(p)
            else:
                inner.exp_().mul_(constant[rows, None])
            if pushed:
                inner.addcmul_(log_q.exp_(), push[rows, None], value=-1.0)
            if own_grad is not None:
                inner.scatter_add_(1, chosen[rows], own_grad[rows].to(inner))
            result[rows, : inner.shape[1]] = inner
        return result, None, None, None, None, None


def _statistics(
    vocabulary: Vocabulary, mixture: Mixture, logits: Tensor, chosen: Tensor, reference: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Statistics of one block.

    Returns:
        the four results of ``RowStatistics``, the log-normaliser, KL(p || q), and the reference's log-normaliser.
    """
    log_p, p, normaliser = _normalised(logits, vocabulary)
    own, entropy = log_p.gather(1, chosen), -_dot(p, log_p)
    if reference is None:
        zero = torch.zeros_like(entropy)
        return own, entropy, zero, zero, normaliser, zero, zero
    log_q, q, reference_normaliser = _normalised(reference, vocabulary)
    reference_entropy = -_dot(q, log_q)
    log_ratio = log_p.sub_(log_q)
    reverse = _dot(p, log_ratio)
    value = mixture.reverse * reverse
    if mixture.forward:
        value = value - mixture.forward * _dot(q, log_ratio)
    return own, entropy, value, reference_entropy, normaliser, reverse, reference_normaliser


class RowLogP(torch.autograd.Function):
    """Log-probability of the chosen tokens alone: that of ``RowStatistics``, with half as many passes over the logits.

    ``apply(logits [n, K], chosen [n, M], vocabulary, memory)`` returns [n, M].
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "n K"], chosen: Int[Tensor, "n M"], vocabulary: Vocabulary, memory: Memory
    ) -> Tensor:
        if not memory.found:
            memory.found = _by_block(_own, (logits, chosen), vocabulary)
        own, normaliser = memory.found
        ctx.vocabulary = vocabulary
        ctx.save_for_backward(logits, chosen, normaliser)
        return own.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, chosen, normaliser = ctx.saved_tensors
        pull = -grad.to(normaliser).sum(1)
        result = torch.empty_like(logits)
        result[:, ctx.vocabulary.size :] = 0
        for rows in row_blocks(logits):
            inner = _log_p(logits[rows], normaliser[rows], ctx.vocabulary, floor=None).exp_().mul_(pull[rows, None])
            inner.scatter_add_(1, chosen[rows], grad[rows].to(inner))
            result[rows, : inner.shape[1]] = inner
        return result, None, None, None


def _own(vocabulary: Vocabulary, logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen tokens in one block, and the log-normaliser."""
    raw = allowed_logits(logits, vocabulary)
    best = raw.amax(-1, keepdim=True)
    shifted = raw - best
    own = shifted.gather(1, chosen)
    normaliser = shifted.exp_().sum(-1, keepdim=True).log()
    return (own - normaliser).clamp_min_(LOG_ZERO), (best + normaliser).squeeze(1)


class ExpectedRatio(torch.autograd.Function):
    """Mean and standard deviation under p of a constant, clipped log-ratio from which its mean is subtracted first.

    ``apply(logits [n, K], target logits [n, J], proposal logits [n, I], vocabulary, clip, memory)`` returns both as
    [n]. With r the centred ratio, the derivative of the mean is p (r - mean). The deviation has no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "n K"],
        target: Float[Tensor, "n J"],
        proposal: Float[Tensor, "n I"],
        vocabulary: Vocabulary,
        clip: float,
        memory: Memory,
    ) -> tuple[Tensor, Tensor]:
        if not memory.found:
            memory.found = _by_block(_expected, (logits, target, proposal), vocabulary, clip)
        value, spread, *rest = memory.found
        ctx.vocabulary, ctx.clip = vocabulary, clip
        ctx.save_for_backward(logits, target, proposal, value, *rest)
        ctx.mark_non_differentiable(spread)
        return value.clone(), spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, proposal, value, mean, *normalisers = ctx.saved_tensors
        result = torch.empty_like(logits)
        result[:, ctx.vocabulary.size :] = 0
        for rows in row_blocks(logits):
            parts = zip((logits, target, proposal), normalisers, strict=True)
            log_p, log_t, log_f = (_log_p(z[rows], known[rows], ctx.vocabulary, floor=None) for z, known in parts)
            ratio = clipped_ratio(log_t, log_f, ctx.clip)
            ratio.sub_((mean + value)[rows, None]).mul_(grad[rows, None].to(ratio)).mul_(log_p.exp_())
            result[rows, : ratio.shape[1]] = ratio
        return result, None, None, None, None, None


def _expected(
    vocabulary: Vocabulary, clip: float, logits: Tensor, target: Tensor, proposal: Tensor
) -> tuple[Tensor, ...]:
    """Moments of the ratio over one block.

    Returns:
        the centred mean, the deviation, the mean before centring, and the log-normalisers of the three networks.
    """
    rows = _normalised(logits, vocabulary)
    (log_t, target_normaliser), (log_f, proposal_normaliser) = (
        _logarithms(part, vocabulary) for part in (target, proposal)
    )
    ratio = clipped_ratio(log_t, log_f, clip)
    mean = _dot(rows.p, ratio)
    ratio.sub_(mean[:, None])
    value, spread = _dot(rows.p, ratio), _dot(rows.p, ratio.square()).sqrt()
    return value, spread, mean, rows.normaliser, target_normaliser, proposal_normaliser


def clipped_ratio(target: Tensor, proposal: Tensor, clip: float) -> Tensor:
    """log p_target - log p_proposal, clipped; zero for a token without mass in both. Overwrites its arguments."""
    return target.clamp_min_(NO_MASS).sub_(proposal.clamp_min_(NO_MASS)).clamp_(-clip, clip)


def _by_block(
    one: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor], *settings: object
) -> tuple[Tensor, ...]:
    """The results of ``one`` for each block of rows, concatenated."""
    found = [one(*settings, *(tensor[rows] for tensor in tensors)) for rows in row_blocks(tensors[0])]
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def _normalised(logits: Tensor, vocabulary: Vocabulary) -> Rows:
    raw = allowed_logits(logits, vocabulary)
    best = raw.amax(-1, keepdim=True)
    log_p = raw - best
    p = log_p.exp()
    total = p.sum(-1, keepdim=True)
    return Rows(log_p.sub_(total.log()).clamp_min_(LOG_ZERO), p.div_(total), (best + total.log()).squeeze(1))


def _logarithms(logits: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Log-probabilities, -inf where there is no mass, and the log-normaliser."""
    raw = allowed_logits(logits, vocabulary)
    best = raw.amax(-1, keepdim=True)
    log_p = raw - best
    total = log_p.exp().sum(-1, keepdim=True).log()
    return log_p.sub_(total), (best + total).squeeze(1)


def _log_p(logits: Tensor, normaliser: Tensor, vocabulary: Vocabulary, floor: float | None = LOG_ZERO) -> Tensor:
    """Log-probabilities from a known log-normaliser; without a floor, -inf where there is no mass."""
    log_p = allowed_logits(logits, vocabulary) - normaliser[:, None]
    return log_p if floor is None else log_p.clamp_min_(floor)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1)
