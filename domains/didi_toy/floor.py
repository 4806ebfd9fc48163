"""How near the chain's pairs of neighbours a student of few calls can come, where that can be computed:
``python -m didi_toy.floor``.

A factorised student writes the tokens of one call independently. Three numbers say what that costs, all in nats of the
pair KL, the divergence of the sampler's pairs from the chain's, pooled over positions:

- ``kept_letters``: one call that writes each letter as often as the chain. Its pairs are a product, so this is the
  mutual information of neighbours, exactly.
- ``one_call``: one call that may give letters up. A network without a table of positions cannot tell one position of an
  all-masked sequence from another, so it writes one distribution everywhere; the best one is searched for.
- ``lower_bound``: k calls. Neighbours that the first call reveals together are a product; whatever the later calls do,
  their share of the pairs is below no student's pairs. This is proven for every student whose first call writes the
  given letters, also for those that are not factorised later on. With one call it is exact.

``posterior_pairs`` are the pairs of the sampler that has the chain's exact posterior in each of its calls: what a
perfect teacher does. Its student can be better than that from the second call on, since what is visible by then may
decide several tokens at once; so this is not a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from didi_core.streams import generator

from .chain import MarkovChain, default_chain


def divergence(pairs: Float[Tensor, "V V"], exact: Float[Tensor, "V V"]) -> Float[Tensor, ""]:
    """KL(pairs || exact), nats."""
    return (torch.special.xlogy(pairs, pairs) - torch.special.xlogy(pairs, exact)).sum()


def kept_letters(exact: Float[Tensor, "V V"]) -> Float[Tensor, ""]:
    """Pair KL of one call that keeps the letters: the product of the marginals against the pairs."""
    return divergence(exact.sum(1)[:, None] * exact.sum(0)[None], exact)


@dataclass(frozen=True)
class OneCall:
    """The best distribution of letters that one call can write everywhere: its pair KL and its unigram KL."""

    letters: Float[Tensor, "V"]
    pair_kl: float
    unigram_kl: float


def one_call(exact: Float[Tensor, "V V"], keep: float = 0.0, starts: int = 200, updates: int = 1500) -> OneCall:
    """The letters r that minimise KL(r r^T || pairs) + keep * KL(r || letters), the best of ``starts`` local searches.

    The problem is not convex: the first search starts at the chain's letters, the others at random.
    """
    letters = exact.sum(1)
    draws = 2 * torch.randn(starts, len(letters), dtype=torch.float64, generator=generator(0, "floor"))
    draws[0] = letters.log()
    logits = draws.requires_grad_(True)
    optimiser = torch.optim.Adam([logits], lr=0.05)

    def cost(r: Float[Tensor, "S V"]) -> tuple[Tensor, Tensor]:
        entropy = torch.special.xlogy(r, r).sum(-1)
        pair = 2 * entropy - torch.einsum("sa,ab,sb->s", r, exact.log(), r)
        return pair, entropy - (r * letters.log()).sum(-1)

    with torch.enable_grad():
        for _ in range(updates):
            optimiser.zero_grad()
            pair, single = cost(torch.softmax(logits, -1))
            (pair + keep * single).sum().backward()
            optimiser.step()
    r = torch.softmax(logits.detach(), -1)
    pair, single = cost(r)
    best = int((pair + keep * single).argmin())
    return OneCall(r[best], float(pair[best]), float(single[best]))


def first_call_share(calls: int, length: int) -> float:
    """Probability that the first of k even calls reveals both of two neighbours: law ``stratified``, k divides L."""
    revealed = length // calls
    return revealed * (revealed - 1) / (length * (length - 1))


def lower_bound(exact: Float[Tensor, "V V"], letters: Float[Tensor, "V"], share: float) -> float:
    """The least KL(q || pairs) over all q >= share * letters letters^T.

    By the conditions of Karush, Kuhn and Tucker it is q = max(share * letters letters^T, c * pairs), with c such that
    q sums to one.
    """
    least = share * letters[:, None] * letters[None]
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if float(torch.maximum(least, middle * exact).sum()) < 1:
            low = middle
        else:
            high = middle
    return float(divergence(torch.maximum(least, low * exact), exact))


def posterior_pairs(chain: MarkovChain, length: int, calls: int) -> Float[Tensor, "V V"]:
    """Pairs of neighbours that the exact posterior writes in k even calls of law ``iid``, exactly.

    A gap of n masked positions between two visible tokens is a world of its own: what is revealed in it is independent
    given its ends, and cuts it into smaller gaps. So the expected pairs of a gap follow from those of smaller ones, one
    call later. The ends of the sequence are an end without a token.
    """
    v = chain.symbols
    both = torch.eye(v + 1, dtype=torch.float64)
    closed = torch.zeros(v + 1, v + 1, v, v, dtype=torch.float64)
    for a in range(v):
        for b in range(v):
            closed[a, b, a, b] = 1
    later = [closed.view((v + 1) ** 2, v * v)] + [torch.zeros((v + 1) ** 2, v * v, dtype=torch.float64)] * length
    ends = both[:, None].expand(v + 1, v + 1, v + 1), both[None].expand(v + 1, v + 1, v + 1)
    for call in range(calls - 1, -1, -1):
        reveals, now = 1 / (calls - call), [later[0]]
        for n in range(1, length + 1):
            tokens = torch.stack([ends[0], *(_inside(chain, n, u) for u in range(1, n + 1)), ends[1]])
            total = torch.zeros_like(later[0])
            for gap in range(n + 1):
                weights = _weights(n, gap, reveals)
                if not bool(weights.any()):
                    continue
                left, right = tokens[: n - gap + 1], tokens[gap + 1 :]
                chance = torch.einsum("u,uabc,uabd->abcd", weights, left, right)
                total += chance.reshape((v + 1) ** 2, -1) @ later[gap]
            now.append(total)
        later = now
    return later[length][-1].view(v, v) / (length - 1)


def _weights(n: int, gap: int, reveals: float) -> Float[Tensor, "U"]:
    """Probability that u and u + gap + 1 are visible after a call and nothing between, for u from the left end on."""
    weights = torch.full((n - gap + 1,), reveals**2 * (1 - reveals) ** gap, dtype=torch.float64)
    edge = reveals * (1 - reveals) ** gap
    weights[0] = weights[-1] = edge
    if gap == n:
        weights[0] = (1 - reveals) ** gap
    return weights


def _inside(chain: MarkovChain, n: int, u: int) -> Float[Tensor, "A B C"]:
    """Posterior of position u of a gap of n, for every left and right end; the last index is an end without a token."""
    power = torch.linalg.matrix_power
    left = torch.cat([power(chain.transition, u), chain.marginal(u - 1)[None]])
    right = torch.cat([power(chain.transition, n + 1 - u), torch.ones(chain.symbols, 1, dtype=torch.float64)], 1)
    joint = left[:, None] * right.T[None]
    return torch.nn.functional.pad(joint / joint.sum(-1, keepdim=True), (0, 1))


def main() -> None:
    """The table of docs/objectives.md for the default chain."""
    chain, length = default_chain(), 32
    exact = chain.pairs(1, length)
    print(f"one call, letters kept: {float(kept_letters(exact)):.4f}")
    for keep in (0.0, 0.5, 1.0, 2.0, 5.0, 10.0):
        best = one_call(exact, keep)
        print(f"one call, letters weigh {keep:g}: pair KL {best.pair_kl:.4f} at unigram KL {best.unigram_kl:.4f}")
    for calls in (1, 2, 4, 8):
        bound = lower_bound(exact, exact.sum(1), first_call_share(calls, length))
        print(f"{calls} calls, letters kept in the first: at least {bound:.4f}")
        print(f"{calls} calls, exact posterior: {float(divergence(posterior_pairs(chain, length, calls), exact)):.4f}")


if __name__ == "__main__":
    main()
