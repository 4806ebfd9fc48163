"""Theorems of the forward and reverse process, the NELBO, divergences and the scorer's loss, by enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tolerance import close, near

from didi_core.diffusion.divergences import DIVERGENCES, entropy, forward_kl, jeffreys, reverse_kl
from didi_core.diffusion.masking import (
    forward_mask,
    joint_reverse_log_p,
    log_p_x0,
    masked_mean,
    reveal_probability,
    step_log_p,
)
from didi_core.diffusion.schedules import SCHEDULES, antithetic_times, schedule
from didi_core.objectives.advantage import grouped_advantage, integral_weight
from didi_core.objectives.nelbo import nelbo
from didi_core.objectives.rewards.scorer import scorer_loss
from didi_core.streams import generator
from didi_core.types import Vocabulary
from didi_toy import ExactTeacher, MarkovChain
from didi_toy.enumeration import TableDenoiser, TableScorer, every_mask, state_index

VOCABULARY = Vocabulary(size=5, bos=0, pad=4, forbidden=(3,))  # generates 1 and 2


def random_chain(symbols: int, seed: int) -> MarkovChain:
    weights = torch.rand(symbols + 1, symbols, generator=generator(seed, "chain"), dtype=torch.float64) ** 2 + 0.02
    rows = weights / weights.sum(1, keepdim=True)
    return MarkovChain(rows[0], rows[1:])


# --- schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_fall_from_one_to_zero_and_know_their_slope_and_inverse(name: str) -> None:
    noise = schedule(name)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha = noise.alpha(t)
    assert alpha[0] == 1 and abs(alpha[-1]) < 1e-12
    assert (alpha.diff() < 0).all()
    inner = t[1:-1].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(noise.alpha(inner).sum(), inner)
    torch.testing.assert_close(noise.dalpha(inner.detach()), slope)
    torch.testing.assert_close(noise.inverse(alpha), t, atol=1e-7, rtol=0)


def test_antithetic_times_put_one_time_into_every_stratum() -> None:
    times = antithetic_times(64, generator(0), low=0.2, high=0.8)
    strata = torch.ceil((times - 0.2) / 0.6 * 64).long()
    assert sorted(strata.tolist()) == list(range(1, 65))
    assert not torch.equal(times, times.sort().values)


# --- forward and reverse


def test_forward_mask_hides_the_right_share_and_no_pinned_position() -> None:
    x = torch.tensor([[0, 1, 2, 1, 4]]).repeat(20_000, 1)
    xt = forward_mask(x, torch.full((20_000,), 0.3), VOCABULARY.maskable(x), VOCABULARY.mask, generator(0))
    hidden = xt == VOCABULARY.mask
    assert not hidden[:, [0, 4]].any()
    assert torch.equal(xt[~hidden], x[~hidden])
    share = hidden[:, 1:4].double().mean(0)
    assert ((share - 0.7).abs() < 4 * math.sqrt(0.21 / 20_000)).all()
    together = (hidden[:, 1] & hidden[:, 2]).double().mean()
    assert abs(together - 0.49) < 4 * math.sqrt(0.25 / 20_000)
    for alpha, all_hidden in ((1.0, False), (0.0, True)):
        ends = forward_mask(x, torch.full((20_000,), alpha), VOCABULARY.maskable(x), VOCABULARY.mask, generator(1))
        assert ((ends[:, 1:4] == VOCABULARY.mask) == all_hidden).all()


def test_reverse_step_is_bayes_rule() -> None:
    """q(xs | xt, x0) from the forward process alone against the reverse step with p(x0) a point."""
    for alpha_s, alpha_t in ((0.9, 0.5), (0.4, 0.1), (1.0, 0.3)):
        stay = alpha_t / alpha_s  # q(xt = token | xs = token): alpha_t = alpha_s * stay
        # P(xs visible | xt masked) = P(xt masked | xs visible) P(xs visible) / P(xt masked)
        bayes = (1 - stay) * alpha_s / (1 - alpha_t)
        at, as_ = torch.tensor(alpha_t, dtype=torch.float64), torch.tensor(alpha_s, dtype=torch.float64)
        assert reveal_probability(at, as_).item() == pytest.approx(bayes, abs=1e-12)


def test_reverse_step_carries_the_marginal_of_t_to_that_of_s() -> None:
    """With the exact p(x0 | xt), pushing q(xt) through the reverse step gives q(xs), position by position.

    Of the joint law this holds only as s approaches t: positions revealed together are taken as independent.
    """
    chain = random_chain(3, 1)
    teacher = ExactTeacher(chain)
    mask = teacher.vocabulary.mask
    x, log_p = chain.joint(2)
    alpha_t, alpha_s = torch.tensor(0.3), torch.tensor(0.6)
    marginal = torch.zeros(2, mask + 1)
    for hidden in every_mask(2):
        weight = 0.3 ** int((~hidden).sum()) * 0.7 ** int(hidden.sum())
        xt = torch.where(hidden, mask, x)
        step = joint_reverse_log_p(log_p_x0(teacher(xt), teacher.vocabulary), alpha_t, alpha_s).exp()
        visible = torch.nn.functional.one_hot(xt, mask + 1).float()
        xs = torch.where(hidden[None, :, None], step, visible)
        marginal += weight * (log_p.exp()[:, None, None] * xs).sum(0)
    close(marginal[:, mask], torch.full((2,), 0.4))
    for position in range(2):
        exact = 0.6 * chain.marginal(position).float()
        close(marginal[position, :3], exact)


def test_joint_reverse_step_is_the_factorised_one() -> None:
    log_p = log_p_x0(torch.randn(7, 6, generator=generator(0)), VOCABULARY)
    alpha_t, alpha_s = torch.tensor(0.2), torch.tensor(0.5)
    joint = joint_reverse_log_p(log_p, alpha_t, alpha_s).exp()
    close(joint.sum(-1), torch.ones(7))
    reveal = reveal_probability(alpha_t, alpha_s)
    close(joint[:, -1], (1 - reveal).expand(7))
    close(joint[:, :-1] / joint[:, :-1].sum(1, keepdim=True), log_p.exp())


def test_subs_rows_sum_to_one_without_mask_and_forbidden_tokens() -> None:
    logits = 10 * torch.randn(4, 6, 9, generator=generator(0))  # more columns than tokens, as padded heads have
    masked = log_p_x0(logits, VOCABULARY)
    assert masked.dtype == torch.float32 and masked.shape[-1] == VOCABULARY.size
    close(masked.exp().sum(-1), torch.ones(4, 6))
    assert (masked[..., [0, 3, 4]] == -torch.inf).all() and masked[..., [1, 2]].isfinite().all()
    half = log_p_x0(logits.bfloat16(), VOCABULARY)
    assert half.dtype == torch.float32
    close(half.exp().sum(-1), torch.ones(4, 6))


def test_step_log_p_sums_per_sequence() -> None:
    chosen = torch.tensor([-1.0, -2.0, -4.0], requires_grad=True)
    total = step_log_p(chosen, torch.tensor([0, 2, 0]), 3)
    assert total.tolist() == [-5.0, 0.0, -2.0]
    total.sum().backward()
    assert chosen.grad is not None and chosen.grad.tolist() == [1, 1, 1]


# --- NELBO


def enumerated_nelbo(denoiser: torch.nn.Module, chain: MarkovChain, length: int) -> float:
    """E_{t, x0, xt} exactly: with m masks the integral over alpha of (1-alpha)^(m-1) alpha^(L-m) is Beta(m, L-m+1)."""
    x, log_p = chain.joint(length)
    mask = denoiser.vocabulary.mask
    total = 0.0
    with torch.no_grad():
        for hidden in every_mask(length):
            m = int(hidden.sum())
            if m:
                xt = torch.where(hidden, mask, x)
                own = log_p_x0(denoiser(xt), denoiser.vocabulary).gather(2, x[..., None]).squeeze(2)
                nll = -(own[:, hidden].sum(1).double() * log_p.exp()).sum()
                beta = math.lgamma(m) + math.lgamma(length - m + 1) - math.lgamma(length + 1)
                total += math.exp(beta) * nll.item()
    return total / length


def test_nelbo_of_the_exact_posterior_is_the_entropy_of_the_chain() -> None:
    chain = random_chain(3, 2)
    exact = enumerated_nelbo(ExactTeacher(chain), chain, 4)
    assert exact == near(chain.entropy(4).item() / 4)


def test_nelbo_is_the_mean_any_order_cross_entropy_and_bounds_the_entropy() -> None:
    """The chain rule in every order of the positions, averaged: what any denoiser's NELBO integrates to."""
    chain = random_chain(3, 3)
    denoiser = TableDenoiser(3, 3, generator(0, "table"))
    x, log_p = chain.joint(3)
    orders, total = list(itertools.permutations(range(3))), 0.0
    with torch.no_grad():
        for order in orders:
            tokens = torch.full_like(x, denoiser.vocabulary.mask)
            for position in order:
                rows = log_p_x0(denoiser(tokens)[:, position], denoiser.vocabulary)
                nll = -rows.gather(1, x[:, position, None]).squeeze(1).double()
                total += (nll @ log_p.exp()).item() / len(orders)
                tokens[:, position] = x[:, position]
    assert enumerated_nelbo(denoiser, chain, 3) == near(total / 3)
    assert total > chain.entropy(3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_nelbo_estimates_the_same_integral_under_every_schedule(name: str) -> None:
    chain = random_chain(3, 2)
    denoiser = TableDenoiser(3, 4, generator(1, "table"))
    expected = enumerated_nelbo(denoiser, chain, 4)
    parts = []
    for batch in range(20):
        x0 = chain.sample(2000, 4, generator(batch, "x0"))
        times = antithetic_times(2000, generator(batch, "t"), low=1e-4)
        loss = nelbo(denoiser, x0, times, schedule(name), generator(batch, "mask"))
        assert loss.requires_grad
        parts.append(loss.detach())
    values = torch.stack(parts).double()
    error = values.std() / math.sqrt(len(parts))
    assert abs(values.mean() - expected) < 4 * error + 1e-3  # 1e-3: the times below 1e-4 are left out
    assert error < 0.02 * expected


def test_nelbo_ignores_padding() -> None:
    chain = random_chain(3, 2)
    teacher = ExactTeacher(chain)
    x0 = chain.sample(8, 5, generator(0))
    value = nelbo(teacher, x0, torch.full((8,), 1.0), schedule("log_linear"), generator(0))
    wide = torch.cat([x0, torch.full((8, 4), teacher.vocabulary.pad)], 1)
    wide_value = nelbo(teacher, wide, torch.full((8,), 1.0), schedule("log_linear"), generator(0))
    assert wide_value.item() == near(value.item())  # at t=1 everything is masked whatever the draws


# --- divergences


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_vanish_only_at_equality_and_survive_forbidden_tokens(name: str) -> None:
    p = log_p_x0(torch.randn(6, 5, generator=generator(0)), VOCABULARY)
    q = log_p_x0(torch.randn(6, 5, generator=generator(1)), VOCABULARY)
    close(DIVERGENCES[name](p, p), torch.zeros(6), size=float(entropy(p).max()))
    assert (DIVERGENCES[name](p, q) > 0).all()
    logits = torch.randn(6, 5, generator=generator(1)).requires_grad_(True)
    DIVERGENCES[name](p, log_p_x0(logits, VOCABULARY)).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.abs().sum() > 0


def test_divergences_relate_as_they_should() -> None:
    p = torch.log_softmax(torch.randn(5, 7, generator=generator(0), dtype=torch.float64), -1)
    q = torch.log_softmax(torch.randn(5, 7, generator=generator(1), dtype=torch.float64), -1)
    torch.testing.assert_close(forward_kl(p, q), torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)))  # fmt: skip
    torch.testing.assert_close(reverse_kl(p, q), forward_kl(q, p))
    torch.testing.assert_close(jeffreys(p, q), forward_kl(p, q) + reverse_kl(p, q))
    uniform = torch.full((5, 7), -math.log(7), dtype=torch.float64)
    torch.testing.assert_close(forward_kl(p, uniform), math.log(7) - entropy(p))


# --- weights, advantages, scorer


def test_integral_weight_is_the_nelbo_weight_clipped() -> None:
    t = torch.tensor([0.001, 0.25, 0.5, 0.999])
    close(integral_weight(t, schedule("log_linear"), 0.1, 10), [10.0, 4.0, 2.0, 1 / 0.999])


def test_advantages_are_blind_to_shifts_and_scales_of_a_group() -> None:
    rewards = torch.randn(12, generator=generator(0))
    plain = grouped_advantage(rewards, 4)
    moved = rewards.view(3, 4) * torch.tensor([[1.0], [50.0], [7.0]]) + torch.tensor([[3.0], [-2.0], [100.0]])
    torch.testing.assert_close(grouped_advantage(moved.reshape(-1), 4), plain, atol=2e-3, rtol=2e-3)
    close(plain.view(3, 4).sum(1), torch.zeros(3), size=float(plain.abs().max()))
    assert grouped_advantage(torch.full((8,), 3.0), 4).abs().max() == 0
    alone = grouped_advantage(rewards, 4, normalise=False, leave_one_out=True, clip=1e9)
    others = (rewards.view(3, 4).sum(1, keepdim=True) - rewards.view(3, 4)) / 3
    close(alone, (rewards.view(3, 4) - others).reshape(-1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_trained_scorer_knows_the_log_ratio(smoothing: float) -> None:
    """Trained to the optimum on samples of two chains at one time, every logit is the log-ratio of the whole state."""
    real, fake = random_chain(3, 4), random_chain(3, 5)
    n, alpha = 60_000, 0.4
    x0 = torch.cat([real.sample(n, 2, generator(0, "real")), fake.sample(n, 2, generator(0, "fake"))])
    is_real = torch.arange(2 * n) < n
    scorer = TableScorer(3, 2)
    mask = scorer.vocabulary.mask
    xt = forward_mask(x0, torch.full((2 * n,), alpha), torch.ones_like(x0, dtype=torch.bool), mask, generator(0, "m"))
    optimiser = torch.optim.LBFGS(scorer.parameters(), max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss, _ = scorer_loss(scorer(xt), xt == mask, is_real, smoothing)
        loss.backward()
        return loss

    optimiser.step(closure)
    states = torch.tensor(list(itertools.product([0, 1, 2, mask], repeat=2)))
    states = states[(states == mask).any(1)]
    shown = states < 3
    log_ratio = real.log_marginal(states, shown) - fake.log_marginal(states, shown)
    share = torch.sigmoid(log_ratio)  # of real samples among those in this state
    expected = torch.logit(share * (1 - smoothing) + smoothing / 2)
    seen = torch.bincount(state_index(xt, 3), minlength=16)[state_index(states, 3)]
    with torch.no_grad():
        logits = scorer(states).double()
    for row, truth, count, hidden in zip(logits, expected, seen.tolist(), ~shown, strict=True):
        error = 5 * 2.5 / math.sqrt(count)  # of a logit estimated from that many draws, shares between 0.2 and 0.8
        assert (row[hidden] - truth).abs().max() < error + 0.01
    assert log_ratio.abs().max() > 0.5


def test_masked_mean_of_an_empty_row_is_zero() -> None:
    values = torch.tensor([[1.0, 5.0], [7.0, 9.0]])
    where = torch.tensor([[True, False], [False, False]])
    assert masked_mean(values, where).tolist() == [1.0, 0.0]
