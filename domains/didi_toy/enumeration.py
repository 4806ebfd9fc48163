"""Oracles for spaces small enough to enumerate: table networks, and the exact distribution of a few-step sampler.

With them a test compares a sampler or a gradient with the exact result instead of a second copy of its formula.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from didi_core.diffusion.masking import log_p_x0
from didi_core.types import Denoiser, Scorer

from .teacher import toy_vocabulary


def state_index(tokens: Int[Tensor, "B L"], symbols: int) -> Int[Tensor, B]:
    """Index of each sequence among the (symbols + 1)^L of symbols and masks; anything but a symbol is a mask."""
    place = (symbols + 1) ** torch.arange(tokens.shape[1] - 1, -1, -1, device=tokens.device)
    index: Tensor = (tokens.clamp_max(symbols) * place).sum(1)
    return index


class TableDenoiser(Denoiser):
    """A free logit for every state, position and token: arbitrary conditional distributions, consistent or not."""

    def __init__(self, symbols: int, length: int, generator: torch.Generator, spread: float = 1.0) -> None:
        super().__init__()
        self.vocabulary = toy_vocabulary(symbols)
        self.symbols, self.length = symbols, length
        draws = torch.randn((symbols + 1) ** length, length, self.vocabulary.size, generator=generator)
        self.table = nn.Parameter(spread * draws)

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        return self.table[state_index(tokens, self.symbols)]

    def head(self, hidden: Float[Tensor, "... V"]) -> Float[Tensor, "... V"]:
        return hidden

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        return self.head(self.trunk(tokens))


class TableScorer(Scorer):
    """A free logit for every state and position; soft tokens are expanded over all states that they may stand for."""

    def __init__(self, symbols: int, length: int) -> None:
        super().__init__()
        self.vocabulary = toy_vocabulary(symbols)
        self.symbols, self.length = symbols, length
        self.table = nn.Parameter(torch.zeros((symbols + 1) ** length, length))

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return self.table[state_index(tokens, self.symbols)]

    def soft(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L"]:
        """The multilinear extension of the table: expected logits with each soft position drawn independently."""
        hard = nn.functional.one_hot(tokens.clamp_max(self.symbols), self.symbols + 1).to(weights.dtype)
        soft = nn.functional.pad(weights[:, : self.symbols], (0, 1))
        rows = hard.masked_scatter(where[..., None], soft)
        joint = rows[:, 0]
        for position in range(1, self.length):
            joint = (joint[:, :, None] * rows[:, position, None]).flatten(1)
        return joint @ self.table


def every_sequence(symbols: int, length: int) -> Int[Tensor, "N L"]:
    """All sequences without masks, in lexicographic order."""
    return torch.tensor(list(itertools.product(range(symbols), repeat=length)))


def every_mask(length: int) -> Bool[Tensor, "N L"]:
    """All subsets of positions."""
    return torch.tensor(list(itertools.product([False, True], repeat=length)))


def iid_assignments(length: int, shares: Float[Tensor, k]) -> tuple[Int[Tensor, "A L"], Float[Tensor, A]]:
    """Every assignment of positions to steps, with its probability for independent uniform reveal times."""
    widths = torch.diff(shares.double(), prepend=torch.zeros(1, dtype=torch.float64))
    steps = torch.tensor(list(itertools.product(range(len(widths)), repeat=length)))
    return steps, widths[steps].prod(1)


def one_by_one_assignments(length: int) -> tuple[Int[Tensor, "A L"], Float[Tensor, A]]:
    """Every order of the positions, all equally likely."""
    steps = torch.tensor(list(itertools.permutations(range(length))))
    return steps, torch.full((len(steps),), 1 / len(steps), dtype=torch.float64)


def few_step_law(
    denoiser: Denoiser, symbols: int, assignments: tuple[Int[Tensor, "A L"], Float[Tensor, A]]
) -> Float[Tensor, N]:
    """Exact probability of every sequence, in the order of ``every_sequence``; tokens of a step are independent.

    It sums over the given assignments of positions to steps, and is differentiable in the denoiser's parameters.
    """
    steps, weights = assignments
    x = every_sequence(symbols, steps.shape[1])
    law = torch.zeros(len(x), dtype=torch.float64)
    for step_of, weight in zip(steps, weights, strict=True):
        log_p = torch.zeros(len(x), dtype=torch.float64)
        for step in step_of.unique().tolist():
            here = step_of == step
            tokens = torch.where(step_of < step, x, denoiser.vocabulary.mask)
            rows = log_p_x0(denoiser(tokens), denoiser.vocabulary).double()
            log_p = log_p + rows.gather(2, x[..., None]).squeeze(2)[:, here].sum(1)
        law = law + weight * log_p.exp()
    return law


def chi_square_p_value(counts: Float[Tensor, N], probabilities: Float[Tensor, N], least: float = 5.0) -> float:
    """Probability of counts at least this far from their expectation; cells expected below ``least`` are pooled."""
    expected = probabilities.double() * counts.sum()
    rare = expected < least
    observed = torch.cat([counts[~rare].double(), counts[rare].double().sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    held = expected > 0
    if bool((observed[~held] > 0).any()):
        return 0.0
    statistic = ((observed - expected).square() / expected)[held].sum()
    freedom = torch.tensor((int(held.sum()) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def histogram(tokens: Int[Tensor, "n L"], symbols: int) -> Float[Tensor, N]:
    """How often each sequence occurs, in the order of ``every_sequence``."""
    place = symbols ** torch.arange(tokens.shape[1] - 1, -1, -1)
    return torch.bincount((tokens * place).sum(1), minlength=symbols ** tokens.shape[1]).double()
