"""What a student of few calls can reach on the chain, against enumeration on small chains."""

from __future__ import annotations

import itertools

import pytest
import torch

from didi_core.diffusion.masking import log_p_x0
from didi_core.models.dit import DiT, DiTConfig
from didi_core.streams import generator
from didi_core.types import Vocabulary
from didi_toy import ExactTeacher, MarkovChain, default_chain
from didi_toy.enumeration import every_sequence, few_step_law, iid_assignments
from didi_toy.floor import (
    divergence,
    first_call_share,
    kept_letters,
    lower_bound,
    one_call,
    posterior_pairs,
)


def chain_of(symbols: int, seed: int = 0) -> MarkovChain:
    draws = torch.rand(symbols, symbols, dtype=torch.float64, generator=generator(seed, "chain")) ** 3 + 0.02
    transition = draws / draws.sum(1, keepdim=True)
    uniform = torch.full((symbols,), 1 / symbols, dtype=torch.float64)
    return MarkovChain(MarkovChain(uniform, transition).stationary(), transition)


@pytest.mark.parametrize(("symbols", "length", "calls"), [(2, 4, 1), (2, 5, 2), (2, 4, 3), (3, 4, 2), (3, 4, 4)])
def test_pairs_of_the_exact_posterior_are_those_of_its_enumerated_law(symbols: int, length: int, calls: int) -> None:
    chain = chain_of(symbols)
    shares = torch.arange(1, calls + 1, dtype=torch.float64) / calls
    law = few_step_law(ExactTeacher(chain), symbols, iid_assignments(length, shares))
    wanted = torch.zeros(symbols, symbols, dtype=torch.float64)
    for x, p in zip(every_sequence(symbols, length), law, strict=True):
        for a, b in itertools.pairwise(x.tolist()):
            wanted[a, b] += p / (length - 1)
    torch.testing.assert_close(posterior_pairs(chain, length, calls), wanted, rtol=1e-5, atol=1e-7)


def test_many_calls_of_the_posterior_come_to_the_chain() -> None:
    chain = chain_of(3)
    exact = chain.pairs(1, 6)
    found = [float(divergence(posterior_pairs(chain, 6, k), exact)) for k in (1, 2, 4, 16, 64)]
    assert found[0] == pytest.approx(float(kept_letters(exact)), rel=1e-9)
    assert found == sorted(found, reverse=True) and found[-1] < 0.02 * found[0]


@pytest.mark.parametrize("symbols", [2, 3])
def test_the_best_letters_of_one_call_are_those_of_a_fine_grid(symbols: int) -> None:
    exact = chain_of(symbols, seed=1).pairs(1, 8)
    ticks = torch.arange(0, 401, dtype=torch.float64) / 400
    grid = torch.stack([t.flatten() for t in torch.meshgrid(*[ticks] * (symbols - 1), indexing="ij")], 1)
    grid = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], 1)
    grid = grid[grid[:, -1] >= 0]
    costs = torch.stack([divergence(r[:, None] * r[None], exact) for r in grid[:: 1 if symbols == 2 else 7]])
    best = one_call(exact, starts=20)
    assert best.pair_kl <= float(costs.min()) + 1e-9
    assert best.pair_kl == pytest.approx(float(costs.min()), abs=2e-3)
    assert best.pair_kl == pytest.approx(float(divergence(best.letters[:, None] * best.letters[None], exact)))
    assert best.pair_kl <= float(kept_letters(exact)) + 1e-9


def test_no_pairs_above_the_first_calls_share_come_nearer_than_the_bound() -> None:
    exact = chain_of(4).pairs(1, 8)
    letters = exact.sum(1)
    for share in (0.9, 0.5, 0.2):
        bound = lower_bound(exact, letters, share)
        rest = torch._standard_gamma(torch.full((4000, 4, 4), 0.5, dtype=torch.float64), generator=generator(0, "q"))
        rest = torch.cat([rest / rest.sum((1, 2), keepdim=True), exact[None]])
        tried = share * letters[:, None] * letters[None] + (1 - share) * rest
        assert bound <= min(float(divergence(q, exact)) for q in tried) + 1e-9
    assert lower_bound(exact, letters, 1.0) == pytest.approx(float(kept_letters(exact)), rel=1e-6)
    assert lower_bound(exact, letters, 0.0) == pytest.approx(0.0, abs=1e-9)


def test_the_share_of_neighbours_that_the_first_call_reveals() -> None:
    times = torch.arange(8)
    for calls in (1, 2, 4, 8):
        orders = torch.stack([torch.randperm(8, generator=generator(i, "order")) for i in range(4000)])
        first = orders < 8 // calls
        found = float((first[:, :-1] & first[:, 1:]).double().mean())
        assert first_call_share(calls, len(times)) == pytest.approx(found, abs=0.01)


def test_the_floor_of_the_default_chain() -> None:
    exact = default_chain().pairs(1, 32)
    assert float(kept_letters(exact)) == pytest.approx(2.2161, abs=1e-4)
    best = one_call(exact, starts=50, updates=800)
    assert best.pair_kl == pytest.approx(1.744, abs=2e-3) and best.unigram_kl > 1


@pytest.mark.parametrize("noise", [0, 1])
def test_one_call_passes_the_floor_with_noise_only(noise: int) -> None:
    """The pairs that one call writes, over equally likely values of the noise, brought near to those of a chain that
    seldom changes. Without noise they stay a product."""
    stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    exact = MarkovChain(torch.tensor([0.5, 0.5], dtype=torch.float64), stay).pairs(1, 8)
    floor = one_call(exact, starts=20).pair_kl
    torch.manual_seed(0)
    student = DiT(DiTConfig(hidden=32, layers=1, heads=2, conditioning=8, noise=noise), Vocabulary(2))
    values = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(32) + 0.5) / 32)[:, None] if noise else None
    masked = torch.full((len(values) if values is not None else 1, 8), 2)
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-3)
    for _ in range(300):
        optimiser.zero_grad()
        p = log_p_x0(student(masked, values), student.vocabulary).exp().double()
        cost = divergence(torch.einsum("bla,blc->ac", p[:, :-1], p[:, 1:]) / (7 * len(p)), exact)
        cost.backward()
        optimiser.step()
    assert float(cost.detach()) < 0.5 * floor if noise else float(cost.detach()) > floor - 1e-4
