"""A Markov chain with everything about it computed exactly: posteriors given any visible subset, marginals, entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.errors import InputError
from didi_core.streams import generator


@dataclass(frozen=True)
class MarkovChain:
    """p(x) = initial[x_1] * prod_l transition[x_l, x_{l+1}], float64; symbols are 0 .. V-1."""

    initial: Float[Tensor, V]
    transition: Float[Tensor, "V V"]

    def __post_init__(self) -> None:
        v = self.initial.numel()
        if v < 2 or self.transition.shape != (v, v):
            shape = tuple(self.transition.shape)
            raise InputError(f"a chain of {v} symbols needs at least 2 and a [{v}, {v}] transition matrix, got {shape}")
        for name, rows in (("initial", self.initial[None]), ("transition", self.transition)):
            if rows.dtype != torch.float64:
                raise InputError(f"{name} must be float64, got {rows.dtype}: less is not exact enough for an oracle")
            sums = rows.sum(1)
            if bool((rows < 0).any()) or bool(((sums - 1).abs() > 1e-9).any()):
                raise InputError(f"the rows of {name} must be probabilities that sum to one, got {sums.tolist()}")

    @property
    def symbols(self) -> int:
        return self.initial.numel()

    def sample(self, n: int, length: int, generator: torch.Generator) -> Int[Tensor, "n L"]:
        """Draw n sequences, symbol by symbol."""
        x = torch.empty(n, length, dtype=torch.long)
        probabilities = self.initial.expand(n, -1)
        for position in range(length):
            x[:, position] = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
            probabilities = self.transition[x[:, position]]
        return x

    def log_prob(self, x: Int[Tensor, "B L"], lengths: Int[Tensor, B] | None = None) -> Float[Tensor, B]:
        """log p(x) in nats; positions beyond a row's length are not read."""
        inside = _inside(x, lengths)
        x = torch.where(inside, x, 0)
        steps = self.transition.log()[x[:, :-1], x[:, 1:]]
        return self.initial.log()[x[:, 0]] + torch.where(inside[:, 1:], steps, 0.0).sum(1)

    def posterior(
        self, tokens: Int[Tensor, "B L"], visible: Bool[Tensor, "B L"], lengths: Int[Tensor, B] | None = None
    ) -> Float[Tensor, "B L V"]:
        """log p(x_l | visible tokens) at every position; a visible position has its own token with probability one.

        Positions beyond a row's length get the uniform distribution and have no effect on others. A visible subset of
        probability zero has no posterior, and raises ValueError.
        """
        forward, backward = self._messages(tokens, visible, lengths)
        joint = forward + backward
        evidence = joint.logsumexp(-1, keepdim=True)
        if bool(torch.isinf(evidence).any()):
            raise ValueError("the visible tokens have probability zero under the chain: there is no posterior")
        uniform = torch.full_like(joint, -torch.tensor(float(self.symbols)).log().item())
        return torch.where(_inside(tokens, lengths)[..., None], joint - evidence, uniform)

    def log_marginal(
        self, tokens: Int[Tensor, "B L"], visible: Bool[Tensor, "B L"], lengths: Int[Tensor, B] | None = None
    ) -> Float[Tensor, B]:
        """Log-probability of the tokens at the visible positions, summed over all values of the others."""
        forward, backward = self._messages(tokens, visible, lengths)
        return (forward[:, 0] + backward[:, 0]).logsumexp(-1)

    def _messages(
        self, tokens: Int[Tensor, "B L"], visible: Bool[Tensor, "B L"], lengths: Int[Tensor, B] | None
    ) -> tuple[Float[Tensor, "B L V"], Float[Tensor, "B L V"]]:
        """Messages of the forward-backward algorithm, in a loop over positions.

        Returns:
            forward log p(visible up to l, x_l), and backward log p(visible after l | x_l).
        """
        inside = _inside(tokens, lengths)
        seen = visible & inside
        symbol = torch.arange(self.symbols, device=tokens.device)
        agrees = ~seen[..., None] | (tokens[..., None] == symbol)
        emission = torch.zeros(agrees.shape, dtype=torch.float64, device=tokens.device).masked_fill(~agrees, -torch.inf)
        length = tokens.shape[1]
        forward = [self.initial.log() + emission[:, 0]]
        for position in range(1, length):
            forward.append(_log_matmul(forward[-1], self.transition) + emission[:, position])
        backward = [torch.zeros_like(emission[:, 0])]
        for position in range(length - 1, 0, -1):
            message = _log_matmul(backward[-1] + emission[:, position], self.transition.T)
            # After the end the message is exactly zero, so that padding does not change a single bit.
            backward.append(torch.where(inside[:, position, None], message, 0.0))
        return torch.stack(forward, 1), torch.stack(backward[::-1], 1)

    def joint(self, length: int) -> tuple[Int[Tensor, "N L"], Float[Tensor, N]]:
        """Every sequence of that length in lexicographic order and its log-probability: V^L rows, for tiny cases."""
        count = self.symbols**length
        if count > 1_000_000:
            raise InputError(f"{self.symbols}^{length} = {count} sequences are too many to list: the limit is 1000000")
        place = self.symbols ** torch.arange(length - 1, -1, -1)
        x = torch.arange(count)[:, None] // place % self.symbols
        return x, self.log_prob(x)

    def stationary(self) -> Float[Tensor, V]:
        """The stationary distribution of the chain."""
        v = self.symbols
        balance = self.transition.T - torch.eye(v, dtype=torch.float64)
        system = torch.cat([balance, torch.ones(1, v, dtype=torch.float64)])
        target = torch.zeros(v + 1, 1, dtype=torch.float64)
        target[-1] = 1
        solution = torch.linalg.lstsq(system, target).solution.squeeze(1).clamp_min(0)
        return solution / solution.sum()

    def marginal(self, position: int) -> Float[Tensor, V]:
        """p(x_l) at a 0-based position."""
        return self.initial @ torch.linalg.matrix_power(self.transition, position)

    def pairs(self, lag: int, length: int) -> Float[Tensor, "V V"]:
        """p(x_l = a, x_{l+lag} = b), averaged over the length - lag places; lag 0 is the unigram, on the diagonal."""
        if not 0 <= lag < length:
            raise InputError(f"lag={lag} must be at least 0 and below the length {length}")
        first = torch.stack([self.marginal(position) for position in range(length - lag)]).mean(0)
        return first[:, None] * torch.linalg.matrix_power(self.transition, lag)

    def entropy_rate(self) -> Float[Tensor, ""]:
        """Nats per symbol of an endless sequence: sum_a stationary[a] * H(transition[a])."""
        return (self.stationary() * torch.special.entr(self.transition).sum(1)).sum()

    def entropy(self, length: int) -> Float[Tensor, ""]:
        """Nats of a sequence of that length: the expected negative log-likelihood of the chain's own samples."""
        visits = sum((self.marginal(position) for position in range(length - 1)), torch.zeros_like(self.initial))
        return torch.special.entr(self.initial).sum() + (visits * torch.special.entr(self.transition).sum(1)).sum()


def default_chain(symbols: int = 20, seed: int = 0) -> MarkovChain:
    """The chain of the tutorial: blocks of five symbols, seldom left, and few likely successors inside a block.

    Neighbours depend strongly on each other (successors within the block are drawn from Dirichlet 0.3; 1.5 nats of
    mutual information), and the block persists over about ten positions. Revealing many positions in one call therefore
    visibly lowers the quality, near and far. 2 % of every row is uniform, so that all probabilities are positive and
    every log-ratio is finite. The chain starts in its stationary distribution.
    """
    if symbols < 2:
        raise InputError(f"symbols={symbols}: a chain needs at least 2")
    stream = generator(seed, "toy chain")
    block = torch.arange(symbols) // 5
    same = (block[:, None] == block[None]).double()
    gamma = torch._standard_gamma(torch.full((symbols, symbols), 0.3, dtype=torch.float64), generator=stream)
    within = _rows(gamma * same)
    across = _rows(torch._standard_gamma(torch.full((symbols, symbols), 0.3, dtype=torch.float64), generator=stream))
    transition = _rows(0.90 * within + 0.08 * across + 0.02 / symbols)
    uniform = torch.full((symbols,), 1 / symbols, dtype=torch.float64)
    return MarkovChain(MarkovChain(uniform, transition).stationary(), transition)


def _rows(weights: Float[Tensor, "V V"]) -> Float[Tensor, "V V"]:
    return weights / weights.sum(1, keepdim=True)


def _inside(tokens: Int[Tensor, "B L"], lengths: Int[Tensor, B] | None) -> Bool[Tensor, "B L"]:
    if lengths is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]


def _log_matmul(log_a: Float[Tensor, "B V"], matrix: Float[Tensor, "V W"]) -> Float[Tensor, "B W"]:
    """log(exp(log_a) @ matrix) without underflow: one matrix product instead of a [B, V, W] log-sum-exp."""
    top = log_a.amax(-1, keepdim=True).clamp_min(torch.finfo(log_a.dtype).min)
    return ((log_a - top).exp() @ matrix).log() + top
