"""The policy gradient against the gradient of the enumerated integral KL, for V=3 and L=2.

The student is a table, the reference a Markov chain, and the reward the exact log-ratio, so that whatever differs from
the truth is the estimator's fault.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from tolerance import close, near

from didi_core.diffusion.divergences import entropy, reverse_kl
from didi_core.diffusion.masking import log_p_x0, step_log_p
from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError
from didi_core.objectives.advantage import BaselineSettings, WeightingSettings, integral_weight, policy_loss
from didi_core.objectives.anchor import AnchorSettings
from didi_core.objectives.didi import Didi
from didi_core.objectives.policy import draw_episode, student_terms
from didi_core.objectives.reference import SampleReference
from didi_core.objectives.rewards import Corrupted, Reward, corrupt
from didi_core.objectives.rewards.base import CriticSettings
from didi_core.objectives.rewards.log_ratio import LogRatioReward
from didi_core.objectives.rewards.scorer import ScorerReward
from didi_core.objectives.rollout import RolloutSettings
from didi_core.streams import generator
from didi_core.training.objective import Slice
from didi_core.training.optimiser import adamw, apply_gradients
from didi_toy import ExactTeacher, MarkovChain
from didi_toy.enumeration import (
    TableDenoiser,
    TableScorer,
    every_mask,
    every_sequence,
    few_step_law,
    iid_assignments,
    one_by_one_assignments,
    state_index,
)

SYMBOLS, LENGTH = 3, 2
SEQUENCES = every_sequence(SYMBOLS, LENGTH)
ONE = iid_assignments(LENGTH, torch.tensor([1.0]))  # one shot
HALF = iid_assignments(LENGTH, torch.tensor([0.5, 1.0]))  # all-masked -> z_0.5 -> x
THIRDS = iid_assignments(LENGTH, torch.tensor([0.2, 0.6, 1.0]))
ORDERS = one_by_one_assignments(LENGTH)  # two calls under a law that never reveals both positions together
Assignments = tuple[torch.Tensor, torch.Tensor]


def random_chain(seed: int) -> MarkovChain:
    weights = torch.rand(4, 3, generator=generator(seed, "chain"), dtype=torch.float64) ** 2 + 0.05
    rows = weights / weights.sum(1, keepdim=True)
    return MarkovChain(rows[0], rows[1:])


CHAIN = random_chain(11)
TEACHER = ExactTeacher(CHAIN)
MASK = TEACHER.vocabulary.mask


def student_table() -> TableDenoiser:
    return TableDenoiser(SYMBOLS, LENGTH, generator(0, "student"))


def visible_marginal(law: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Probability of each sequence's visible part under a law over sequences, [N]."""
    agree = ((SEQUENCES[:, None] == SEQUENCES[None]) | ~visible).all(-1)
    return agree.double() @ law


def pattern_probability(hidden: torch.Tensor, alpha: float) -> float:
    """Chance of a mask pattern at alpha, where a draw without masks has one position masked, as ``corrupt`` does."""
    m = int(hidden.sum())
    if m == 0:
        return 0.0
    return (1 - alpha) ** m * alpha ** (LENGTH - m) + (alpha**LENGTH / LENGTH if m == 1 else 0.0)


def divergence_at(law: torch.Tensor, alpha: float) -> torch.Tensor:
    """KL(q_nu(z_t) || q_theta(z_t)) at one time; patterns have the same probability on both sides and drop out."""
    total = torch.zeros((), dtype=torch.float64)
    reference = CHAIN.log_prob(SEQUENCES).exp()
    for hidden in every_mask(LENGTH):
        ours, theirs = visible_marginal(law, ~hidden), visible_marginal(reference, ~hidden)
        total = total + pattern_probability(hidden, alpha) * (law * (ours / theirs).log()).sum()
    return total


def exact_gradient(student: TableDenoiser, assignments: Assignments, weights: Mapping[float, float]) -> torch.Tensor:
    """Gradient of the sum over times of weight * KL, for a student that samples through these assignments."""
    law = few_step_law(student, SYMBOLS, assignments)
    value = sum(weight * divergence_at(law, alpha) for alpha, weight in weights.items())
    (gradient,) = torch.autograd.grad(value, student.table)
    return gradient


def exact_log_ratio(student: TableDenoiser, assignments: Assignments, zt: torch.Tensor) -> torch.Tensor:
    """log q_nu(z_t) - log q_theta(z_t) of each row; it does not depend on t, only on what is visible."""
    with torch.no_grad():
        law = few_step_law(student, SYMBOLS, assignments)
    agree = ((zt[:, None] == SEQUENCES[None]) | (zt == MASK)[:, None]).all(-1).double()
    return (agree @ law).log() - (agree @ CHAIN.log_prob(SEQUENCES).exp()).log()


class ExactReward(Reward):
    """log q_theta - log q_nu by enumeration, with the sign of a reward."""

    name = "exact"

    def __init__(self, student: TableDenoiser, assignments: Assignments) -> None:
        states = torch.tensor(list(itertools.product([0, 1, 2, MASK], repeat=LENGTH)))
        self.table = -exact_log_ratio(student, assignments, states).float()

    def score(self, noised: Corrupted) -> torch.Tensor:
        return self.table[state_index(noised.zt, SYMBOLS)]


# --- the identity itself, summed over every path


@pytest.mark.parametrize("assignments", [ONE, HALF, THIRDS, ORDERS], ids=["one", "two", "three", "one by one"])
@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_the_score_function_form_is_the_gradient_of_the_integral_kl(assignments: Assignments, baseline: float) -> None:
    """E[omega (R - constant) grad log p(path)] over every rollout path and corruption, each with its probability."""
    student = student_table()
    times = {0.3: 1.7, 0.8: 0.4}
    expected = exact_gradient(student, assignments, times)
    loss = torch.zeros(())
    for step_of, chance in zip(*assignments, strict=True):
        log_p = torch.zeros(len(SEQUENCES))
        for step in step_of.unique().tolist():
            where = (step_of == step).expand(len(SEQUENCES), -1)
            rows, columns = where.nonzero(as_tuple=True)
            tokens = torch.where(step_of < step, SEQUENCES, MASK)
            every = log_p_x0(student.head(student.trunk(tokens)[rows, columns]), student.vocabulary)
            chosen = every.gather(1, SEQUENCES[rows, columns][:, None]).squeeze(1)
            log_p = log_p + step_log_p(chosen, rows, len(SEQUENCES))
        for (alpha, omega), hidden in itertools.product(times.items(), every_mask(LENGTH)):
            noised = torch.where(hidden, MASK, SEQUENCES)
            advantage = -exact_log_ratio(student, assignments, noised) - baseline
            weight = chance * pattern_probability(hidden, alpha) * omega * log_p.detach().exp() * advantage
            loss = loss + policy_loss(log_p, weight * len(SEQUENCES))
    (gradient,) = torch.autograd.grad(loss, student.table)
    close(gradient, expected, dtype=torch.float32, size=1 + baseline)  # the terms are of the size of the reward
    assert expected.abs().max() > 0.01


# --- the estimator that training uses, by Monte Carlo


def settings(states: int = 1, branches: int = 1, **changes: object) -> Didi:
    """Everything off that biases: no spread, clip or anchor; tau within a hair of 1/2 where the path depends on it."""
    low, high = (0.499, 0.501) if states > 1 else (0.2, 0.8)
    return replace(
        Didi(
            rollout=RolloutSettings(states=states, low=low, high=high, branches=branches),
            baseline=BaselineSettings(group=4, normalise=False, leave_one_out=True, clip=1e9),
            anchor=AnchorSettings(kl=0.0, entropy=0.0),
            weighting=WeightingSettings(omega=True),
        ),
        **changes,  # type: ignore[arg-type]
    )


def monte_carlo(
    student: TableDenoiser, reward: ExactReward, how: Didi, repeats: int = 40, batch: int = 3000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean gradient and its standard error over independent batches."""
    template = torch.full((batch, LENGTH), MASK)
    gradients = []
    for repeat in range(repeats):
        stream = generator(1, "gradient", repeat)
        episode = draw_episode(student, template, how, stream)
        terms = student_terms(student, TEACHER, [(reward, 1.0)], episode, how, stream)
        gradients.append(torch.autograd.grad(terms.loss, student.table)[0].double())
    stacked = torch.stack(gradients)
    return stacked.mean(0), stacked.std(0) / math.sqrt(repeats)


def deviations(mean: torch.Tensor, error: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """z-scores of the parameters that the path visits."""
    moved = error > 1e-9
    assert moved.any()
    close(expected[~moved], torch.zeros(int((~moved).sum())), size=float(expected.abs().max()))
    return ((mean - expected) / error.clamp_min(1e-9))[moved]


def time_weights(how: Didi, uniform: bool, points: int = 200) -> dict[float, float]:
    """omega(tau) under the tau that is drawn (mean), or integrated over the range (uniform), by the midpoint rule."""
    low, high = how.rollout.low, how.rollout.high
    unit = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    tau = low + (high - low) * unit
    omega = integral_weight(tau, schedule(how.schedule), how.weighting.low, how.weighting.high)
    a, b = how.rollout.beta
    density = torch.distributions.Beta(a, b).log_prob(unit).exp()
    share = torch.full_like(tau, (high - low) / points) if uniform else density / points
    return {1 - t: w for t, w in zip(tau.tolist(), (omega * share).tolist(), strict=True)}


@pytest.mark.parametrize(("states", "branches"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_the_training_gradient_is_unbiased(states: int, branches: int) -> None:
    """One-shot and two-step rollouts, also with several completions of one prefix, under leave-one-out baselines."""
    student, how = student_table(), settings(states, branches)
    assignments = ONE if states == 1 else HALF
    expected = exact_gradient(student, assignments, time_weights(how, uniform=False)) / LENGTH  # per position
    mean, error = monte_carlo(student, ExactReward(student, assignments), how)
    z = deviations(mean, error, expected)
    assert z.abs().max() < 4.5
    assert (expected / error.clamp_min(1e-9)).abs().max() > 20  # so the test could detect a missing gradient


def test_division_by_the_density_gives_the_integral_over_time() -> None:
    student = student_table()
    how = settings(
        rollout=RolloutSettings(states=1, beta=(2.0, 3.0), low=0.2, high=0.8),
        weighting=WeightingSettings(omega=True, divide_by_density=True),
    )
    expected = exact_gradient(student, ONE, time_weights(how, uniform=True)) / LENGTH
    mean, error = monte_carlo(student, ExactReward(student, ONE), how)
    assert deviations(mean, error, expected).abs().max() < 4.5
    unweighted = replace(how, weighting=WeightingSettings(omega=True))
    mean, error = monte_carlo(student, ExactReward(student, ONE), unweighted)
    expected = exact_gradient(student, ONE, time_weights(unweighted, uniform=False)) / LENGTH
    assert deviations(mean, error, expected).abs().max() < 4.5


def test_the_plain_group_mean_shrinks_the_gradient_by_exactly_one_in_the_group() -> None:
    student, how = student_table(), settings()
    plain = replace(how, baseline=BaselineSettings(group=4, normalise=False, leave_one_out=False, clip=1e9))
    reward = ExactReward(student, ONE)
    alone, _ = monte_carlo(student, reward, how, repeats=2)
    mean, _ = monte_carlo(student, reward, plain, repeats=2)
    close(mean, alone * 3 / 4, dtype=torch.float32)


def test_a_shift_of_the_reward_changes_nothing() -> None:
    student, how = student_table(), settings(2)
    reward = ExactReward(student, HALF)
    before, _ = monte_carlo(student, reward, how, repeats=2)
    reward.table = reward.table + 3
    after, _ = monte_carlo(student, reward, how, repeats=2)
    close(after, before, dtype=torch.float32)


@pytest.mark.parametrize("bonus", [0.0, 0.5])
def test_the_anchor_is_the_mean_divergence_at_the_revealed_positions(bonus: float) -> None:
    """Less what the student's entropy there earns."""
    student = student_table()
    how = settings(anchor=AnchorSettings(kl=1.0, entropy=bonus))
    template = torch.full((64, LENGTH), MASK)
    episode = draw_episode(student, template, how, generator(0))
    reward = ExactReward(student, ONE)
    reward.table = torch.zeros_like(reward.table)
    terms = student_terms(student, TEACHER, [(reward, 1.0)], episode, how, generator(0))
    ours = log_p_x0(student(template[:1]), student.vocabulary)
    theirs = log_p_x0(TEACHER(template[:1]), student.vocabulary)
    close(terms.loss, reverse_kl(theirs, ours).mean() - bonus * entropy(ours).mean())
    assert terms.scalars["entropy"] == near(entropy(ours).mean().item())
    assert terms.scalars["teacher_entropy"] == near(entropy(theirs).mean().item())


def test_descending_the_training_gradient_brings_the_divergence_to_zero() -> None:
    """Two calls that reveal one position each can represent the chain, so with the exact reward nothing is in the way.

    Every z_t has a mask, so at L=2 the divergence compares single positions; the joint law is not identified by it.
    """
    student = student_table()
    how = settings(rollout=RolloutSettings(states=2, low=0.499, high=0.501, law="stratified"))
    template = torch.full((512, LENGTH), MASK)
    optimiser = torch.optim.Adam(student.parameters(), lr=0.05)

    def distance() -> float:
        with torch.no_grad():
            return float(divergence_at(few_step_law(student, SYMBOLS, ORDERS), 0.5))

    start = distance()
    for step in range(150):
        stream = generator(2, "descent", step)
        episode = draw_episode(student, template, how, stream)
        loss = student_terms(student, TEACHER, [(ExactReward(student, ORDERS), 1.0)], episode, how, stream).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert start > 0.3 and distance() < 0.01 * start


@pytest.mark.parametrize(("trained", "reached"), [(0, True), (1, False), (2, True)])
def test_only_the_trained_calls_move_the_student(trained: int, reached: bool) -> None:
    """The first call sees the all-masked state, whose row of the table no other call reads."""
    student = student_table()
    how = settings(rollout=RolloutSettings(states=2, low=0.499, high=0.501, law="stratified", trained=trained))
    template = torch.full((64, LENGTH), MASK)
    episode = draw_episode(student, template, how, generator(3))
    student_terms(student, TEACHER, [(ExactReward(student, ORDERS), 1.0)], episode, how, generator(3)).loss.backward()
    masked = state_index(template[:1], SYMBOLS)
    gradient = student.table.grad
    assert gradient.abs().sum() > 0
    assert bool(gradient[masked].abs().sum() > 0) is reached


def test_more_trained_calls_than_calls_are_refused() -> None:
    with pytest.raises(InputError, match=r"objective.rollout.trained=3 is out of range: between 0 \(all\) and the 2"):
        RolloutSettings(states=2, trained=3)


@pytest.mark.parametrize("branches", [1, 2])
def test_expected_credit_is_the_mean_of_token_credit(branches: int) -> None:
    """Every action weighted by its probability, against one drawn: the same gradient, with less noise.

    In one call only: tokens that later calls add to z_t depend on the token drawn, which ``expected`` holds fixed.
    """
    student = student_table()
    fake = TableDenoiser(SYMBOLS, LENGTH, generator(4, "fake"))
    how, template = settings(1, branches), torch.full((4000 // branches, LENGTH), MASK)
    found: dict[str, list[torch.Tensor]] = {"token": [], "expected": []}
    for repeat, credit in itertools.product(range(24), found):
        reward = LogRatioReward(TEACHER, fake, CriticSettings(), credit, clip=1e9)
        stream = generator(5, "credit", repeat)
        episode = draw_episode(student, template, how, stream)
        loss = student_terms(student, TEACHER, [(reward, 1.0)], episode, how, stream).loss
        found[credit].append(torch.autograd.grad(loss, student.table)[0].double())
    token, expected = torch.stack(found["token"]), torch.stack(found["expected"])
    difference = token - expected  # same rollouts, so that only the noise of the drawn token is left
    z = deviations(difference.mean(0), difference.std(0) / math.sqrt(24), torch.zeros_like(difference[0]))
    assert z.abs().max() < 4.5
    assert expected.std(0).norm() < token.std(0).norm()
    assert expected.mean(0).abs().max() > 0.01


# --- the learnt reward


def test_corruption_masks_at_least_one_position_with_the_right_patterns() -> None:
    x = SEQUENCES.repeat(4000, 1)
    noised = corrupt(x, torch.full((len(x),), 0.7), TEACHER.vocabulary, generator(0))
    assert noised.masked.any(1).all() and torch.equal(noised.masked, noised.zt == MASK)
    assert torch.equal(noised.zt[~noised.masked], x[~noised.masked])
    for hidden in every_mask(LENGTH):
        share = (noised.masked == hidden).all(1).double().mean()
        assert abs(share - pattern_probability(hidden, 0.7)) < 4 * math.sqrt(0.25 / len(x))


def test_the_learnt_reward_approaches_the_exact_log_ratio() -> None:
    """The scorer's own updates, student samples against reference samples at coupled times, unsmoothed."""
    student = student_table()
    law = few_step_law(student, SYMBOLS, ONE).detach()
    reference = SampleReference(CHAIN.sample(40_000, LENGTH, generator(0, "reference")), seed=0, pad=None)
    rule = CriticSettings(lr=0.1, gradient_clip=1e9)
    scorer = TableScorer(SYMBOLS, LENGTH)
    reward = ScorerReward(scorer, reference, rule, smoothing=0.0)
    optimiser = adamw(scorer.parameters(), rule.optimiser)
    for index in range(400):
        stream = generator(3, "scorer", index)
        drawn = SEQUENCES[torch.multinomial(law, 4000, replacement=True, generator=stream)]
        alpha = torch.rand(4000, generator=stream)
        terms = reward.critic_loss(drawn, alpha, Slice(update=index, stream=stream))
        terms.loss.backward()
        apply_gradients(optimiser, rule.optimiser, 0.1 * 0.985**index)
    assert set(terms.scalars) == {"scorer_loss", "scorer_accuracy"}
    states = torch.tensor(list(itertools.product([0, 1, 2, MASK], repeat=LENGTH)))
    states = states[(states == MASK).any(1)]
    learnt = reward.score(Corrupted(states, states, states == MASK))
    exact = -exact_log_ratio(student, ONE, states).float()
    assert exact.abs().max() > 0.5
    torch.testing.assert_close(learnt, exact, atol=0.15, rtol=0)  # noise of the last updates: a few hundredths
