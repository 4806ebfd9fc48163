"""The trunk on distinct rows only, and the vocabulary head in chunks at chosen positions only.

The head gives draws, log-probabilities, entropies and divergences from hidden states [N, D] of the chosen positions.
With gradients, the logits of each chunk are recomputed in the backward pass, so memory grows with the chunk and not
with N times V.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from didi_core.diffusion import divergences
from didi_core.diffusion.closed_forms import ExpectedRatio, Memory, RowLogP, RowStatistics, clipped_ratio
from didi_core.diffusion.distinct import distinct_rows
from didi_core.diffusion.draws import INVERTED, draw, invert, uniforms
from didi_core.diffusion.masking import allowed_logits, log_p_x0
from didi_core.types import Denoiser

CHUNK_ELEMENTS = 1 << 25  # logits of one chunk of a draw: 128 MB in fp32
CLOSED_ELEMENTS = 1 << 24  # logits of one chunk with a gradient
DEVICE_SHARE = 128  # one array of a chunk's logits in fp32 takes this part of a GPU's memory, where that is more
CACHE_POSITIONS = 2048  # of one trunk call on a CPU, so that its activations stay in the cache


def chunk_rows(vocabulary_size: int) -> int:
    """Positions whose logits are held at once."""
    return max(CHUNK_ELEMENTS // vocabulary_size, 1)


def traced_rows(vocabulary_size: int) -> int:
    """Largest number of positions whose statistics autograd traces; more are split into chunks with closed forms."""
    return max(CLOSED_ELEMENTS // vocabulary_size, 1)


def closed_rows(vocabulary_size: int, device: torch.device) -> int:
    """Positions in one chunk with closed forms: on a CPU as few as are traced, on a GPU as many as its memory allows.

    Small chunks would leave a GPU idle: launching their kernels takes the host longer than running them. Each chunk
    also casts the head's weights and adds to their gradient.
    """
    return max(max(CLOSED_ELEMENTS, device_elements(device)) // vocabulary_size, 1)


@lru_cache
def device_elements(device: torch.device) -> int:
    """Numbers in fp32 that fit into the share of a GPU's memory that a chunk may take; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory) // (4 * DEVICE_SHARE)


@dataclass(frozen=True)
class TokenStatistics:
    """Per position: log-probability of each given token, entropy, divergence from a reference, the reference's entropy.

    All in nats. The last two are zero without a reference.
    """

    log_p: Float[Tensor, "N M"]
    entropy: Float[Tensor, "N"]
    divergence: Float[Tensor, "N"]
    reference_entropy: Float[Tensor, "N"]


def token_statistics(
    denoiser: Denoiser,
    hidden: Float[Tensor, "N D"],
    tokens: Int[Tensor, "N M"],
    *,
    reference: Denoiser | None = None,
    reference_hidden: Float[Tensor, "N E"] | None = None,
    divergence: divergences.Divergence = divergences.reverse_kl,
    chunk: int | None = None,
) -> TokenStatistics:
    """Log-probability of M tokens each, entropy, and divergence from ``reference``, at N masked positions.

    Where the positions do not fit into one chunk, gradients come from closed forms (``closed_forms``). They equal
    those of autograd up to rounding, and only first derivatives exist.
    """
    vocabulary = denoiser.vocabulary
    mixture = divergences.MIXTURES.get(divergence)

    def compared(part: Tensor | None) -> Tensor | None:
        if reference is None or part is None:
            return None
        with torch.no_grad():
            return reference.head(part)

    def traced(part: Tensor, chosen: Tensor, other: Tensor | None) -> tuple[Tensor, ...]:
        log_p = log_p_x0(denoiser.head(part), vocabulary)
        own, spread, logits = log_p.gather(1, chosen), divergences.entropy(log_p), compared(other)
        if logits is None:
            return own, spread, torch.zeros_like(spread), torch.zeros_like(spread)
        log_q = log_p_x0(logits, vocabulary)
        return own, spread, divergence(log_q, log_p), divergences.entropy(log_q)

    def closed(memory: Memory, part: Tensor, chosen: Tensor, other: Tensor | None) -> tuple[Tensor, ...]:
        return RowStatistics.apply(denoiser.head(part), chosen, compared(other), vocabulary, mixture, memory)

    sizes = Chunks.of(vocabulary.size, hidden.device, chunk)
    found = _in_chunks(sizes, traced, closed if mixture else None, hidden, tokens, reference_hidden)
    return TokenStatistics(*found)


def token_log_p(
    denoiser: Denoiser, hidden: Float[Tensor, "N D"], tokens: Int[Tensor, "N"], chunk: int | None = None
) -> Float[Tensor, "N"]:
    """Log-probability of one token at each of N masked positions."""
    vocabulary = denoiser.vocabulary

    def traced(part: Tensor, chosen: Tensor) -> tuple[Tensor]:
        return (log_p_x0(denoiser.head(part), vocabulary).gather(1, chosen),)

    def closed(memory: Memory, part: Tensor, chosen: Tensor) -> tuple[Tensor]:
        return (RowLogP.apply(denoiser.head(part), chosen, vocabulary, memory),)

    sizes = Chunks.of(vocabulary.size, hidden.device, chunk)
    (log_p,) = _in_chunks(sizes, traced, closed, hidden, tokens[:, None])
    return log_p.squeeze(1)


class Chunks(NamedTuple):
    """Most positions whose statistics autograd traces at once, and those of one chunk with closed forms."""

    traced: int
    closed: int

    @classmethod
    def of(cls, vocabulary_size: int, device: torch.device, chunk: int | None = None) -> Chunks:
        """The usual sizes, or ``chunk`` for both."""
        return cls(chunk or traced_rows(vocabulary_size), chunk or closed_rows(vocabulary_size, device))


def _in_chunks(
    sizes: Chunks,
    traced: Callable[..., tuple[Tensor, ...]],
    closed: Callable[..., tuple[Tensor, ...]] | None,
    hidden: Float[Tensor, "N D"],
    *others: Tensor | None,
) -> tuple[Tensor, ...]:
    """Results of ``traced`` where N is at most ``sizes.traced``; otherwise those of ``closed``, chunk by chunk.

    Without ``closed``, ``traced`` does the chunks too. The logits of a chunk are recomputed in the backward pass.
    """
    if hidden.shape[0] <= sizes.traced:
        return traced(hidden, *others)
    rows, found = sizes.traced if closed is None else sizes.closed, []
    for start in range(0, hidden.shape[0], rows):
        parts = [None if part is None else part[start : start + rows] for part in (hidden, *others)]
        one = traced if closed is None else partial(closed, Memory())
        found.append(checkpoint(one, *parts, use_reentrant=False) if torch.is_grad_enabled() else one(*parts))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def sharpen(log_p: Float[Tensor, "N V"], temperature: float = 1.0, top_p: float = 1.0) -> Float[Tensor, "N V"]:
    """Temperature, then nucleus: the smallest set of tokens whose probability reaches top_p, renormalised."""
    if temperature != 1.0:
        log_p = torch.log_softmax(log_p / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = log_p.sort(dim=-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        drop = torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, order, before >= top_p)
        log_p = torch.log_softmax(log_p.masked_fill(drop, -torch.inf), dim=-1)
    return log_p


def draw_tokens(
    denoiser: Denoiser,
    hidden: Float[Tensor, "N D"],
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    bias: Float[Tensor, "V"] | None = None,
) -> Int[Tensor, "N"]:
    """Tokens for N masked positions, drawn from log_p_x0 chunk by chunk; ``bias`` is added to the logits."""
    vocabulary, drawn = denoiser.vocabulary, list[Tensor]()
    if not len(hidden):
        return torch.zeros(0, dtype=torch.long, device=hidden.device)
    if vocabulary.size >= INVERTED and top_p == 1.0:  # nothing here needs the passes that normalise
        rows = max(chunk_rows(vocabulary.size), closed_rows(vocabulary.size, hidden.device))
        numbers = uniforms(len(hidden), generator, hidden.device)  # all at once: draws don't depend on a GPU's memory
        for part, own in zip(hidden.split(rows), numbers.split(rows), strict=True):
            logits = allowed_logits(denoiser.head(part), vocabulary)
            logits = logits if bias is None else logits + bias
            drawn.append(invert(logits if temperature == 1.0 else logits / temperature, own))
        return torch.cat(drawn)
    for part in hidden.split(chunk_rows(vocabulary.size)):
        drawn.append(draw(sharpen(position_log_p(denoiser, part, bias), temperature, top_p), generator))
    return torch.cat(drawn)


def position_log_p(
    denoiser: Denoiser, hidden: Float[Tensor, "N D"], bias: Float[Tensor, "V"] | None = None
) -> Float[Tensor, "N V"]:
    """log_p_x0 at N masked positions; ``bias`` is added to the logits of every position."""
    log_p = log_p_x0(denoiser.head(hidden), denoiser.vocabulary)
    return log_p if bias is None else torch.log_softmax(log_p + bias, dim=-1)


def distinct_trunk(denoiser: Denoiser, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "U L D"], Int[Tensor, "B"]]:
    """Hidden states of the distinct rows of ``tokens``.

    The first call of a generation has the same input for every sequence of one length, so it runs once per length.

    Returns:
        the hidden states of the U distinct rows, and for each row of ``tokens`` the index of its own.
    """
    unique, own = distinct_rows(tokens)
    return trunk_in_pieces(denoiser, unique), own


def trunk_in_pieces(denoiser: Denoiser, tokens: Int[Tensor, "U L"]) -> Float[Tensor, "U L D"]:
    """Hidden states; on a CPU without gradients, in pieces that fit into the cache."""
    if tokens.device.type != "cpu" or torch.is_grad_enabled():
        return denoiser.trunk(tokens)
    rows = max(CACHE_POSITIONS // max(tokens.shape[1], 1), 1)
    return torch.cat([denoiser.trunk(piece) for piece in tokens.split(rows)])


def expected_log_ratio(
    denoiser: Denoiser,
    hidden: Float[Tensor, "N D"],
    target: Denoiser,
    target_hidden: Float[Tensor, "N E"],
    proposal: Denoiser,
    proposal_hidden: Float[Tensor, "N F"],
    clip: float,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Mean and spread, under the denoiser, of the clipped log-ratio log p_target(a) - log p_proposal(a) at N positions.

    The log-ratio is a constant for the gradient. This is the policy gradient of a single token with every action
    weighted by its probability, instead of one that is drawn, so that token adds no sampling noise.

    Returns:
        sum_a p(a) ratio(a), centred as in ``ExpectedRatio``, and the standard deviation, which has no gradient.
    """
    vocabulary = denoiser.vocabulary

    def constants(wanted: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return target.head(wanted), proposal.head(made)

    def traced(part: Tensor, wanted: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        p = log_p_x0(denoiser.head(part), vocabulary).exp()
        with torch.no_grad():
            log_t, log_f = (log_p_x0(logits, vocabulary) for logits in constants(wanted, made))
            ratio = clipped_ratio(log_t, log_f, clip)
            ratio = ratio - (p * ratio).sum(-1, keepdim=True)
            spread = (p * ratio.square()).sum(-1).sqrt()
        return (p * ratio).sum(-1), spread

    def closed(memory: Memory, part: Tensor, wanted: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        return ExpectedRatio.apply(denoiser.head(part), *constants(wanted, made), vocabulary, clip, memory)

    sizes = Chunks.of(vocabulary.size, hidden.device)
    value, spread = _in_chunks(sizes, traced, closed, hidden, target_hidden, proposal_hidden)
    return value, spread
