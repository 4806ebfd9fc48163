"""Objectives with a loss of their own: what they minimise on cases that can be enumerated, and what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from didi_core.config import build
from didi_core.diffusion.masking import log_p_x0, mean_or_zero, reveal_probability
from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.objectives import mmd
from didi_core.objectives.alpha import alpha_loss, row_means
from didi_core.objectives.anchor import Anchored, AnchorSettings
from didi_core.objectives.base import Materials
from didi_core.objectives.few_calls import FewCalls, one_call
from didi_core.objectives.mmd import Mmd, Units, kernel, reward
from didi_core.objectives.ratio import Completion, RatioObjective, Renoised, drawn_nll, followed
from didi_core.objectives.registry import BUILT_IN, OBJECTIVES
from didi_core.objectives.rewards.base import CriticSettings
from didi_core.objectives.sdtt import Targets
from didi_core.objectives.states import State
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.sampling.generate import trained_with
from didi_core.streams import generator
from didi_core.training.objective import Slice
from didi_core.training.settings import TrainingSettings
from didi_core.types import Denoiser, Vocabulary
from didi_toy import ExactTeacher, MarkovChain
from didi_toy.enumeration import TableDenoiser, every_sequence, state_index

DIRECT = ("alpha", "dmmd", "idlm", "mmd")
SMALL = {"states": {"source": "teacher", "samples": 16, "steps": 4}}


def materials(batch: int = 8, **training: Any) -> Materials:
    domain = registry().domain("toy", {})
    teacher, student = (domain.teacher("bundled") for _ in range(2))
    assert isinstance(teacher, Denoiser) and isinstance(student, Denoiser)

    def samples(num: int, steps: int) -> Tensor:
        tokens = domain.template(domain.lengths(num, generator(0, "test")))
        allowed = torch.tensor(domain.vocabulary.generated)
        drawn = allowed[torch.randint(len(allowed), tokens.shape, generator=generator(0, "tokens"))]
        return torch.where(tokens == domain.vocabulary.mask, drawn, tokens)

    settings = TrainingSettings(batch_size=batch, **training)
    return Materials(Run(domain), settings, student, teacher.eval().requires_grad_(False), samples)


def slice_of(number: int = 0, total: int = 1, step: int = 0) -> Slice:
    return Slice(step, number, total, stream=generator(0, "slice", step, number))


def remembered(features: Callable[..., Any]) -> Callable[..., Any]:
    """Features of every sequence, computed once."""
    known: dict[str, Any] = {}

    def found(self: Any, tokens: Tensor) -> Any:
        key = str(tokens.tolist())
        if key not in known:
            known[key] = features(self, tokens)
        return known[key]

    return found


def tiny(size: int = 3, seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    network = DiT(DiTConfig(hidden=16, layers=3, heads=2, conditioning=8), Vocabulary(size))
    torch.nn.init.normal_(network.output_layer.linear.weight, std=0.5)
    return network


# AlphaDLM


def test_alpha_becomes_cross_entropy_for_small_k() -> None:
    mean = torch.tensor([-0.5, -2.0, -1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(alpha_loss(mean, 1e-6), mean)
    torch.testing.assert_close(gradient, torch.full_like(mean, -1 / 3), rtol=1e-5, atol=0)
    (weighted,) = torch.autograd.grad(alpha_loss(mean, 1e-6, normalise=True), mean)
    torch.testing.assert_close(weighted, gradient, rtol=1e-5, atol=0)


def test_alpha_keeps_one_compatible_group_where_cross_entropy_keeps_both() -> None:
    """Data are 00 and 11; a factorised model that keeps both writes 01 half of the time."""

    def trained(loss: Any) -> float:
        logit = torch.tensor([0.3, 0.3], requires_grad=True)
        optimiser = torch.optim.SGD([logit], lr=2.0)
        for _ in range(300):
            ones, zeros = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
            optimiser.zero_grad()
            loss(torch.stack([zeros.mean(), ones.mean()])).backward()
            optimiser.step()
        p = torch.sigmoid(logit.detach())
        return float((p * (1 - p.flip(0))).sum())  # probability of 01 or 10

    assert trained(lambda s: -s.mean()) > 0.49
    assert trained(lambda s: alpha_loss(s, 4.0)) < 0.02


def test_row_means_count_each_row_by_itself() -> None:
    values, rows = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2])
    assert row_means(values, rows, 3).tolist() == [2.0, 0.0, 5.0]


# MMD


def test_the_reward_of_mmd_is_unbiased() -> None:
    """Its mean over all pairs of samples is 2 <real, made> - <made, made> without pairs at equal positions."""
    torch.manual_seed(0)
    table = torch.randn(2, 3, 4, dtype=torch.float64)  # position, token -> features
    p = torch.softmax(torch.randn(2, 3, dtype=torch.float64), -1)
    real = torch.stack([table[0, 1], table[1, 2]])[None]
    valid, c = torch.ones(1, 2, dtype=torch.bool), 0.3
    words = list(itertools.product(range(3), repeat=2))
    mean = torch.zeros((), dtype=torch.float64)
    for first, second in itertools.product(words, repeat=2):
        made = torch.stack([torch.stack([table[i, word[i]] for i in range(2)])[None] for word in (first, second)])
        chance = torch.stack([p[i, word[i]] for word in (first, second) for i in range(2)]).prod()
        mean = mean + chance * reward(real, made, valid, c)[0]
    every = kernel(real.expand(1, -1, -1), table.view(1, 6, 4), c)[0].view(2, 2, 3)
    attraction = (every * p).sum() * 2 / 4
    own = kernel(table[:1], table[1:], c)[0]
    repulsion = 2 * (p[0][:, None] * p[1] * own).sum() / 2
    torch.testing.assert_close(mean, attraction - repulsion, rtol=1e-9, atol=0)


def test_a_shift_of_mmds_reward_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline of a candidate is the mean of the others, so it takes off whatever all of them have."""
    objective = build(OBJECTIVES.find("mmd"), SMALL, "objective").prepare(materials(batch=4))
    batch, plain = objective.batch(slice_of()), type(objective).rewards
    found = []
    for shift in (0.0, 3.0):
        monkeypatch.setattr(type(objective), "rewards", lambda self, *given, by=shift: plain(self, *given) + by)
        terms = objective.loss("student", batch, slice_of())
        found.append(terms.scalars)
    assert found[1]["reward"] == pytest.approx(found[0]["reward"] + 3.0, abs=1e-4)
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], abs=1e-4) and found[0]["advantage_spread"] > 1e-4


def test_the_gradient_of_mmd_is_that_of_the_expected_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all draws, the loss has the gradient of -E[reward of a candidate] / (b n) for a row of n masked positions.

    Two positions, two letters, two candidates of two samples, so 256 draws with their probabilities.
    """
    keys = SMALL | {"candidates": 2, "samples": 2, "layers": [1, 3], "kernel": 0.05}
    made = materials(batch=1)
    student, teacher = tiny(size=2, seed=1), tiny(size=2, seed=2).requires_grad_(False)
    objective = build(Mmd, keys, "objective").prepare(replace(made, network=student, teacher=teacher))
    monkeypatch.setattr(type(objective), "features", remembered(type(objective).features))
    xt, masked = torch.full((1, 2), 2), torch.ones(1, 2, dtype=torch.bool)
    state = State(torch.tensor([[0, 1]]), xt, masked, torch.ones(1), torch.zeros(1))
    words = list(itertools.product(range(2), repeat=2))
    log_p = log_p_x0(student(xt), student.vocabulary)[0, :, :2]
    chance = {word: log_p[[0, 1], list(word)].sum().exp() for word in words}

    total, expected = torch.zeros(()), torch.zeros(())
    units = Units.of(masked, 0, 0, generator(0, "units"))
    for draws in itertools.product(words, repeat=4):
        columns = iter(torch.tensor(draws))
        monkeypatch.setattr(mmd, "draw_tokens", lambda *_, left=columns: next(left))
        p = torch.stack([chance[word] for word in draws]).prod()
        total = total + p.detach() * objective.loss("student", state, slice_of()).loss
        expected = expected + p * objective.rewards(state, torch.tensor(draws).T, units)[0, 0]
    weight = student.output_layer.linear.weight
    (found,) = torch.autograd.grad(total, weight)
    (wanted,) = torch.autograd.grad(-expected / (2 * 2), weight)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    assert float(wanted.abs().max()) > 1e-4


def test_rewards_of_several_layers_add_up() -> None:
    made = materials(batch=4)
    found = []
    for layers in ([1], [2], [2, 1]):
        objective = build(Mmd, SMALL | {"layers": layers, "kernel": 0.01}, "objective").prepare(made)
        state = objective.batch(slice_of())
        units = Units.of(state.masked, 0, 0, generator(0, "units"))
        drawn = torch.randint(20, (int(state.masked.sum()), 8), generator=generator(0, "drawn"))
        found.append(objective.rewards(state, drawn, units))
    torch.testing.assert_close(found[2], found[0] + found[1])
    assert float((found[0] - found[1]).abs().max()) > 1e-3


def test_units_are_rows_or_blocks_with_two_masked_positions() -> None:
    masked = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    whole = Units.of(masked, 0, 0, generator(0, "units"))
    assert whole.rows.tolist() == [0, 2] and whole.valid.sum(1).tolist() == [3, 5]
    assert whole.of_position[:, 0].tolist() == [0, -1, 1]
    for row, columns, valid in zip(whole.rows, whole.columns, whole.valid, strict=True):
        assert bool(masked[row, columns[valid]].all())
    blocks = Units.of(masked, 3, 2, generator(0, "units"))
    assert blocks.rows.tolist() == [0, 2, 2] and blocks.valid.sum(1).tolist() == [2, 2, 2]
    assert blocks.of_position[0].tolist() == [0, 0, 0, -1, -1, -1]


def test_features_stop_after_the_deepest_layer_that_is_read() -> None:
    network, ran = tiny(), []
    for i, block in enumerate(network.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    tokens = torch.randint(4, (2, 5))
    second, first = network.after_blocks(tokens, [2, 1])
    assert ran == [0, 1] and first.shape == second.shape == (2, 5, 16)
    (last,) = network.after_blocks(tokens, [3])
    assert torch.equal(last, network.trunk(tokens))


def test_the_median_rule_gives_a_kernel_of_order_one() -> None:
    objective = build(Mmd, SMALL, "objective").prepare(materials())
    (c,) = objective.kernels
    assert c > 0 and objective.kernels == [c]
    with pytest.raises(InputError, match=r"objective.layers=\[9\]: the teacher has \d+ blocks"):
        build(Mmd, SMALL | {"layers": [9]}, "objective").prepare(materials())


# Log-ratios


def test_the_fake_denoiser_follows_the_students_distribution() -> None:
    """Soft targets have the gradient of the mean over what could have been drawn."""
    student, fake = tiny(seed=1), tiny(seed=2)
    tokens = torch.full((1, 2), 3)
    masked = torch.ones(1, 2, dtype=torch.bool)
    hidden = student.trunk(tokens)[masked]
    noised = torch.tensor([[True, False]])
    p = torch.softmax(student.head(hidden)[:, :3], -1).detach()

    def gradient(loss: Tensor) -> Tensor:
        fake.zero_grad()
        loss.backward()
        assert fake.output_layer.linear.weight.grad is not None
        return fake.output_layer.linear.weight.grad.clone()

    total_soft, total_hard = torch.zeros(()), torch.zeros(())
    for a, b in itertools.product(range(3), repeat=2):
        x = torch.tensor([[a, b]])
        batch = Completion(tokens, masked, hidden, x)
        seen = Renoised(x.masked_fill(noised, 3), noised, torch.ones(1))
        losses, rows = followed(fake, student, batch, seen)
        assert rows.tolist() == [0]
        total_soft = total_soft + p[0, a] * p[1, b] * gradient(losses.mean())
        total_hard = total_hard + p[0, a] * p[1, b] * gradient(drawn_nll(fake, batch, seen))
    torch.testing.assert_close(total_soft, total_hard, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["idlm", "dmmd"])
def test_a_fake_denoiser_that_is_the_teacher_teaches_nothing(name: str) -> None:
    objective = build(OBJECTIVES.find(name), SMALL, "objective").prepare(materials())
    part = slice_of()
    terms = objective.loss("student", objective.batch(part), part)
    terms.loss.backward()
    gradients = [p.grad for p in objective.materials.student.parameters() if p.grad is not None]
    assert gradients and max(float(g.abs().max()) for g in gradients) < 1e-6
    assert terms.scalars["kl"] == pytest.approx(0, abs=1e-5)


@dataclass
class Given(RatioObjective):
    """The student's loss at a completion that was re-noised as the test says."""

    noised: Renoised

    def renoise(self, batch: Completion, stream: torch.Generator) -> Renoised:
        return self.noised

    def fake_loss(self, batch: Completion, noised: Renoised) -> Tensor:
        return drawn_nll(self.fake, batch, noised)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("clip", [100.0, 0.1])
def test_the_student_follows_the_ratio_with_the_weight_of_each_row(clip: float, weights: tuple[float, ...]) -> None:
    """-mean over rows of w * mean over positions of sum_a p(a) r(a): the ratio r is clipped and has no gradient.

    Only positions count that the student wrote and the new corruption hides; the last row has none.
    """
    student, teacher, fake = (tiny(seed=seed) for seed in (1, 2, 3))
    tokens = torch.tensor([[3, 3], [3, 3], [0, 3]])
    masked = tokens == 3
    hidden = torch.tensor([[True, True], [False, True], [True, False]])
    x = torch.tensor([[0, 2], [1, 1], [0, 2]])
    zt, wrote = x.masked_fill(hidden, 3), masked & hidden

    def log_p(network: DiT, seen: Tensor) -> Tensor:
        return torch.log_softmax(network.head(network.trunk(seen))[..., :3], -1)

    def gradient(loss: Tensor) -> Tensor:
        student.zero_grad()
        loss.backward()
        assert student.output_layer.linear.weight.grad is not None
        return student.output_layer.linear.weight.grad.clone()

    ratio = (log_p(teacher, zt) - log_p(fake, zt)).detach().clamp(-clip, clip)
    expected = ((log_p(student, tokens).exp() * ratio).sum(-1) * wrote).sum(1) / wrote.sum(1).clamp_min(1)
    wanted = gradient(-(torch.tensor(weights) * expected).mean())
    run = Run(registry().domain("toy", {}))
    made = Materials(run, TrainingSettings(batch_size=3), student, teacher.eval().requires_grad_(False))
    seen = Renoised(zt, hidden, torch.tensor(weights))
    objective = Given(made, fake, CriticSettings(), AnchorSettings(kl=0.0), clip, seen)
    batch = Completion(tokens, masked, student.trunk(tokens)[masked], x)
    found = gradient(objective.loss("student", batch, slice_of()).loss)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert float(wanted.abs().max()) > 1e-4


def test_the_anchor_holds_to_the_teacher_and_rewards_entropy() -> None:
    """Divergence is a loss and entropy a gain, each with its own weight; the teacher's entropy is only shown."""
    how = AnchorSettings(kl=0.5, entropy=0.25)
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    Anchored(*values).loss(how).backward()
    assert values.grad is not None and values.grad.tolist() == [0.5, -0.25, 0.0]


@pytest.mark.parametrize("clip", [5.0, 2.0])
def test_idlm_has_the_weight_of_the_nelbo(clip: float) -> None:
    """1/t' for the sum over hidden positions, over the number of free ones; it multiplies a mean over the former."""
    keys = SMALL | {"low": 0.2, "weight_clip": clip}
    objective = build(OBJECTIVES.find("idlm"), keys, "objective").prepare(materials(batch=64))
    part = slice_of()
    batch = objective.batch(part)
    noised = objective.renoise(batch, part.stream)
    rate = (1 / noised.time).clamp_max(clip)
    written = (noised.masked & batch.masked).sum(1)
    torch.testing.assert_close(noised.weight, rate * written / batch.x.shape[1])
    assert float(rate.min()) >= 1 and 0.8 * clip < float(rate.max()) <= clip


def test_idlm_without_that_weight_counts_all_times_equally() -> None:
    keys = SMALL | {"inverse_time": False}
    objective = build(OBJECTIVES.find("idlm"), keys, "objective").prepare(materials())
    part = slice_of()
    assert objective.renoise(objective.batch(part), part.stream).weight.tolist() == [1.0] * 8


def test_the_weight_of_the_nelbo_makes_all_times_weigh_the_same_in_the_mean() -> None:
    """A row of time t' hides a share t' of its positions, so 1/t' times the share is one in the mean."""
    keys = {"states": SMALL["states"] | {"low": 0.99}, "low": 0.2}
    objective = build(OBJECTIVES.find("idlm"), keys, "objective").prepare(materials(batch=256))
    part = slice_of()
    noised = objective.renoise(objective.batch(part), part.stream)
    early = noised.time < 0.5
    for rows in (early, ~early):
        assert float(noised.weight[rows].mean()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("inverse", "weights"), [(True, (4.0, 1.25)), (False, (1.0, 1.0))])
def test_the_fake_denoiser_of_idlm_has_the_students_weight(inverse: bool, weights: tuple[float, float]) -> None:
    """Rows at t' of 0.25 and 0.8: the loss is a weighted sum over their hidden positions, over the free ones."""
    objective = build(OBJECTIVES.find("idlm"), SMALL | {"inverse_time": inverse}, "objective").prepare(materials(2))
    part = slice_of()
    batch = objective.batch(part)
    hidden = torch.zeros_like(batch.masked)
    hidden[0, :3] = hidden[1, :9] = True
    zt = batch.x.masked_fill(hidden, objective.fake.vocabulary.mask)
    noised = Renoised(zt, hidden, torch.ones(2), torch.tensor([0.25, 0.8]))
    losses, rows = followed(objective.fake, objective.materials.student, batch, noised)
    wanted = (losses * torch.tensor(weights)[rows]).sum() / (batch.x.numel() if inverse else 12)
    assert sorted(rows.tolist()) == [0] * 3 + [1] * 9
    torch.testing.assert_close(objective.fake_loss(batch, noised), wanted)


@pytest.mark.parametrize("name", ["log_linear", "cosine"])
def test_dmmd_reveals_a_small_step_and_hides_no_visible_position(name: str) -> None:
    keys = SMALL | {"calls": 4, "schedule": name}
    objective = build(OBJECTIVES.find("dmmd"), keys, "objective").prepare(materials(batch=256))
    part = slice_of()
    batch = objective.batch(part)
    noised = objective.renoise(batch, part.stream)
    assert not bool((noised.masked & ~batch.masked).any())
    assert torch.equal(noised.masked.any(1), batch.masked.any(1))
    revealed = 1 - noised.masked.sum(1) / batch.masked.sum(1)
    times = batch.time[:, None]
    spans = torch.linspace(0, 0.25, 101)
    alpha_t, alpha_s = (schedule(name).alpha(t) for t in (times, (times - spans).clamp_min(0)))
    expected = reveal_probability(alpha_t, alpha_s).mean(1)  # over steps of up to a quarter
    many = batch.masked.sum(1) > 12
    assert float(revealed[many].mean()) == pytest.approx(float(expected[many].mean()), abs=0.03)


@pytest.mark.parametrize("complete", [False, True])
def test_few_calls_learn_from_a_call_of_a_sampler(complete: bool) -> None:
    """It writes its share of the sequence, or all that is left."""
    made = materials(batch=16)
    mask, seen = made.run.domain.vocabulary.mask, set()
    for step in range(24):
        found = one_call(made, FewCalls(calls=(1, 4), complete=complete), slice_of(step=step))
        before, after = ((tokens == mask).sum(1) for tokens in (found.tokens, found.x))
        assert torch.equal(found.masked, (found.tokens == mask) & (found.x != mask))
        assert found.hidden.requires_grad and len(found.hidden) == int((before - after).sum())
        length = found.tokens.shape[1]
        seen.add(tuple(round(float((left / length).mean()) * 4) for left in (before, after)))
    assert seen == ({(4, 0), (3, 0), (2, 0), (1, 0)} if complete else {(4, 0), (4, 3), (3, 2), (2, 1), (1, 0)})


@pytest.mark.parametrize("kind", ["few_calls", "soft", "inverse_time"])
def test_what_a_call_has_not_written_is_neither_hidden_nor_learnt(kind: str) -> None:
    keys = {"rollout": {"calls": [4]}, "soft_targets": kind == "soft", "inverse_time": kind == "inverse_time"}
    objective = build(OBJECTIVES.find("idlm"), SMALL | keys, "objective").prepare(materials(batch=16))
    mask = objective.materials.run.domain.vocabulary.mask
    for step in range(8):
        part = slice_of(step=step)
        batch = objective.batch(part)
        noised = objective.renoise(batch, part.stream)
        assert not bool((noised.masked & (batch.x == mask)).any()) and bool(noised.masked.any(1).all())
        assert torch.equal(noised.zt == mask, noised.masked | (batch.x == mask))
        for learner in ("fake", "student"):
            assert math.isfinite(float(objective.loss(learner, batch, part).loss.detach()))


@pytest.mark.parametrize("complete", [False, True])
def test_a_perfect_teacher_stays_as_it_is_unless_a_call_completes(complete: bool) -> None:
    """By enumeration, two letters: a student that is the teacher, at the empty state, and a fake that is never wrong.

    A call that completes draws both letters from a product, which is no sample of the teacher's, so the ratio is not
    zero and the entropy falls. A call that writes one of the two leaves a state as the teacher leaves it.
    """
    first, kept = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    teacher = ExactTeacher(MarkovChain(first, 0.7 * kept + 0.1))
    every, mask = every_sequence(3, 2), teacher.vocabulary.mask
    empty = torch.full((1, 2), mask)
    student, fake = (TableDenoiser(3, 2, generator(0, "table")) for _ in range(2))
    start = teacher.trunk(empty)
    with torch.no_grad():
        student.table[state_index(empty, 3)] = start
        fake.table[:] = start  # what is visible says nothing of what is hidden: so it is in a product
    letters = start[0, :, :3].softmax(-1)
    chance = letters[0, every[:, 0]] * letters[1, every[:, 1]]
    wrote, hidden = (
        torch.tensor(rows, dtype=torch.bool).repeat_interleave(len(every), 0)
        for rows in (([[1, 1]] * 3, [[1, 0], [0, 1], [1, 1]]) if complete else ([[1, 0], [0, 1]], [[1, 0], [0, 1]]))
    )
    patterns = len(wrote) // len(every)
    x = every.repeat(patterns, 1).masked_fill(~wrote, mask)
    seen = Renoised(x.masked_fill(hidden, mask), hidden, chance.repeat(patterns) * len(every))
    run = Run(registry().domain("toy", {}))
    made = Materials(run, TrainingSettings(batch_size=1), student, teacher)
    objective = Given(made, fake, CriticSettings(), AnchorSettings(kl=0.0), 100.0, seen)
    tokens = empty.expand(len(x), 2)
    batch = Completion(tokens, wrote, student.trunk(tokens)[wrote], x)
    objective.loss("student", batch, slice_of()).loss.backward()
    assert student.table.grad is not None
    slope = student.table.grad[state_index(empty, 3)][0, :, :3]

    def entropy(logits: Tensor) -> float:
        return float(-(logits.softmax(-1) * logits.log_softmax(-1)).sum())

    if complete:
        assert entropy(start[0, :, :3] - 0.1 * slope) < entropy(start[0, :, :3]) - 1e-3
    else:
        assert float(slope.abs().max()) < 1e-6


def test_a_student_of_few_calls_is_sampled_as_it_was_trained() -> None:
    """Its card says by which law and grid; one that learnt from data went by none."""
    settings = build(OBJECTIVES.find("idlm"), {**SMALL, "rollout": {"law": "dilated", "grid": "power"}}, "objective")
    assert trained_with({"training": settings.prepare(materials()).record()}) == ("dilated", "power")
    plain = build(OBJECTIVES.find("idlm"), SMALL, "objective").prepare(materials())
    assert trained_with({"training": plain.record()}) == ("iid", "uniform")


# Training and bad input


@pytest.mark.parametrize("name", DIRECT)
def test_a_batch_follows_from_its_slice_and_gives_a_gradient(name: str) -> None:
    objective = build(OBJECTIVES.find(name), SMALL, "objective").prepare(materials())
    learner = objective.learners()[-1].name
    found = []
    for _ in range(2):
        part = slice_of()
        terms = objective.loss(learner, objective.batch(part), part)
        found.append(float(terms.loss.detach()))
    assert found[0] == found[1] and terms.loss.requires_grad
    assert objective.record()


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("alpha", {"k": 0}, r"objective.k=0.* out of range"),
        ("alpha", {"k": float("nan")}, r"objective.k=nan"),
        ("mmd", {"candidates": 1}, r"objective.candidates=1.*at least 2"),
        ("mmd", {"samples": 1}, r"objective.samples=1"),
        ("mmd", {"layers": [0]}, r"objective.layers=\[0\]"),
        ("mmd", {"layers": []}, r"objective.layers=\[\].*one block or more"),
        ("mmd", {"layers": [2, 2]}, r"objective.layers=\[2, 2\].*once, counted from 1"),
        ("mmd", {"kernel": -1.0}, r"objective.kernel=-1"),
        ("idlm", {"low": 0.0}, r"objective.low=0"),
        ("idlm", {"rollout": {"calls": [0]}}, r"objective.rollout.calls=\[0\]"),
        ("idlm", {"rollout": {"calls": []}}, r"objective.rollout.calls=\[\].*name some"),
        ("idlm", {"states": {"source": "nowhere"}}, r"objective.states.source"),
        ("dmmd", {"calls": 0}, r"objective.calls=0"),
        ("dmmd", {"states": {"low": 0.9, "high": 0.5}}, r"objective.states.low=0.9, high=0.5"),
    ],
)
def test_wrong_settings_are_refused_by_name(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(OBJECTIVES.find(name), keys, "objective")


# a slice of one sequence, of which few positions or none are masked


FROM_STATES = sorted(name for name, kind in BUILT_IN.items() if "states" in {field.name for field in fields(kind)})


@pytest.mark.parametrize("name", FROM_STATES)
@pytest.mark.parametrize("time", [1e-6, 0.15])
def test_a_sequence_without_a_mask_teaches_nothing_and_stops_nothing(name: str, time: float) -> None:
    """Means over no position are zero, as their gradients are; a NaN would stop the run."""
    keys = {"states": SMALL["states"] | {"low": time / 2, "high": time}}
    objective = build(OBJECTIVES.find(name), keys, "objective").prepare(materials(batch=1))
    unmasked = 0
    for step in range(4):
        part = slice_of(step=step)
        for learner in objective.learners():
            learner.network.zero_grad()
            batch = objective.batch(part)
            terms = objective.loss(learner.name, batch, part)
            assert all(map(math.isfinite, terms.scalars.values())), terms.scalars
            terms.loss.backward()
            gradients = [p.grad for p in learner.network.parameters() if p.grad is not None]
            assert all(bool(gradient.isfinite().all()) for gradient in gradients)
            masked = (batch.state if isinstance(batch, Targets) else batch).masked
            if learner.name == "student" and not masked.any():  # a fake may learn from positions that were given
                unmasked += 1
                assert not any(bool(gradient.any()) for gradient in gradients)
    assert unmasked or time > 1e-3


def test_the_mean_of_nothing_is_zero() -> None:
    for count in (0, 1, 3):
        values = torch.arange(2.0, 2.0 + count, requires_grad=True)
        mean = mean_or_zero(values)
        mean.backward()
        assert float(mean.detach()) == {0: 0.0, 1: 2.0, 3: 3.0}[count]
        torch.testing.assert_close(values.grad, torch.full((count,), 1 / max(count, 1)))
