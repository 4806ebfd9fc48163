"""Blocks of the first call and of later ones: who learns when and from what; a cut run ends with equal weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from memory_keeper import Memory
from torch import Tensor

from didi_core.config import build
from didi_core.errors import InputError
from didi_core.models.noise import learning, of_first_call, with_noise
from didi_core.objectives.base import Materials
from didi_core.objectives.idlm import Idlm
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.objective import Collapse, Slice
from didi_core.training.planning import DryRun, time_steps
from didi_core.training.settings import TrainingSettings

STATES = {"source": "teacher", "samples": 16, "steps": 1}
TRAINING = TrainingSettings(
    steps=5, batch_size=8, lr=1e-3, warmup=0, ema=0.5, checkpoint_every=1, log_every=1, accumulate=2
)


def prepared(
    critic: int = 0,
    noise: int = 2,
    first: bool = True,
    calls: tuple[int, ...] | None = (1, 2, 4),
    coupling: dict[str, Any] | None = None,
    updates: int = 1,
) -> Any:
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").requires_grad_(False)
    student = learning(with_noise(teacher, noise, 0, once=first, first_blocks=first))

    def drawn(num: int, steps: int) -> Tensor:
        return domain.chain.sample(num, 32, generator(0, "test"))  # type: ignore[attr-defined]

    keys = {"updates": 2, "states": STATES, **(coupling or {})}
    given = {
        "rollout": {"calls": calls} if calls else None,
        "critic": {"warmup": critic, "updates": updates},
        "coupling": keys,
    }
    materials = Materials(Run(domain), TRAINING, student, teacher, drawn, collapse=0.1)
    return build(Idlm, given, "objective").prepare(materials)


def train(objective: Any, keeper: Memory) -> None:
    run, training = objective.materials.run, objective.materials.training
    Engine(objective, run, training, keeper, "test", partial(run.stream, "test")).train()


class Recorded(Memory):
    """Remembers the scalars of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, set[str]] = {}

    def record(self, step: int, scalars: Any) -> None:
        self.steps[step] = set(scalars)


@pytest.mark.parametrize(("critic", "alone"), [(0, 2), (1, 3)])
def test_the_first_call_learns_coupled_noise_alone_until_the_critics_are_ready(critic: int, alone: int) -> None:
    keeper = Recorded()
    train(prepared(critic), keeper)
    seen = [keeper.steps[step] for step in sorted(keeper.steps)]
    assert len(seen) == alone + TRAINING.steps
    for fake in ("fake_loss", "first_fake_loss"):
        assert [fake in names for names in seen] == [step >= 2 for step in range(len(seen))]
    for loss in ("loss", "first_loss", "advantage_spread"):
        assert [loss in names for names in seen] == [step >= alone for step in range(len(seen))]
    assert all("first_nll" in names for names in seen)  # of coupled noise, in every step


def first_loss(objective: Any, step: int) -> Tensor:
    part = Slice(step=step, stream=generator(0, "slice"))
    found: Tensor = objective.loss("first", objective.batch(part), part).loss
    return found


def test_the_losses_of_the_first_call_are_added_with_the_weight() -> None:
    objective = prepared(coupling={"weight": 0.5})
    part = Slice(step=4, stream=generator(0, "slice"))
    objective.batch(part)
    rows = objective.noise.loss(objective.noise.draw(part)).loss
    own = objective.first.loss("student", objective.first.batch(part), part).loss
    torch.testing.assert_close(first_loss(objective, 4), own + 0.5 * rows, rtol=1e-4, atol=1e-6)
    part = Slice(step=1, stream=generator(0, "slice"))
    assert objective.batch(part) is None
    torch.testing.assert_close(first_loss(objective, 1), objective.noise.loss(objective.noise.draw(part)).loss)


def learnt(network: Any) -> set[str]:
    return {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_blocks_of_the_first_call_and_of_later_ones_learn_apart() -> None:
    """From rollouts of one call and from later calls of longer ones, each half with its own fake denoiser."""
    objective = prepared()
    *fakes, first, student = objective.learners()
    assert [one.name for one in fakes] == ["first_fake", "fake"] and fakes[0].network is not fakes[1].network
    assert first.network is student.network and {*first.learnt}.isdisjoint(student.learnt)
    assert {*first.learnt, *student.learnt} == {n for n, p in student.network.named_parameters() if p.requires_grad}
    mask = student.network.vocabulary.mask
    for step in range(2, 12):
        part = Slice(step=step, stream=generator(0, "slice", step))
        made = objective.batch(part)
        assert (made.first.tokens == mask).all() and made.first.masked.all() and not made.first.hidden.requires_grad
        assert (made.later.tokens != mask).any(1).all() and not (made.later.masked & (made.later.tokens != mask)).any()
    with torch.no_grad():
        for fake in fakes:  # where it is the teacher still, there is nothing to follow
            for parameter in fake.network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator(0, fake.name)) * 0.05)
    part = Slice(step=5, stream=generator(0, "slice"))
    made = objective.batch(part)
    for learner, parts in ((first, {"first", "noise_map"}), (student, {"blocks"})):
        student.network.zero_grad()
        objective.loss(learner.name, objective.batch(part), part).loss.backward()
        assert learnt(student.network) == parts == {name.partition(".")[0] for name in learner.learnt}
    student.network.zero_grad()
    for fake in fakes:
        found = objective.loss(fake.name, made, part)
        found.loss.backward()
        assert learnt(fake.network) and f"{fake.name}_loss" in found.measured
        fake.network.zero_grad()
        assert not any(map(learnt, [one.network for one in fakes] + [student.network]))


def test_later_calls_learn_from_rollouts_of_their_own() -> None:
    """Of those, the first call's blocks write nothing, not even where nothing is written yet."""
    objective, part = prepared(), Slice(step=5, stream=generator(0, "slice"))
    before = objective.batch(part).later
    with torch.no_grad():
        for name in of_first_call(objective.materials.student):
            objective.materials.student.get_parameter(name).add_(1.0)
    after = objective.batch(replace(part, stream=generator(0, "slice"))).later
    assert torch.equal(before.tokens, after.tokens) and torch.equal(before.x, after.x)


def test_each_half_has_a_rate_of_its_own() -> None:
    *_, first, student = prepared(coupling={"lr": 3e-3, "lr_warmup": 7, "gradient_clip": 2.0}).learners()
    assert (first.optimiser.lr, first.optimiser.warmup, first.optimiser.clip) == (3e-3, 7, 2.0)
    assert student.optimiser == TRAINING.optimiser and (first.warmup, student.warmup) == (0, 2)
    assert first.ema == student.ema == TRAINING.ema


def test_the_fake_denoiser_of_the_first_call_makes_one_update_a_step() -> None:
    fakes = prepared(updates=2).learners()[:2]
    assert [(one.name, one.updates) for one in fakes] == [("first_fake", 1), ("fake", 2)]


def test_the_first_call_may_learn_from_a_smaller_batch() -> None:
    part = Slice(step=5, total=TRAINING.accumulate, stream=generator(0, "slice"))
    for size, rows in ((4, 2), (None, 4)):
        objective = prepared(coupling={"batch_size": size})
        made = objective.batch(part)
        assert (len(made.first.x), len(made.later.x), len(objective.noise.draw(part).x0)) == (rows, 4, rows)
    train(prepared(coupling={"batch_size": 4}), Memory())


def test_a_batch_of_the_first_call_that_cannot_be_cut_is_refused() -> None:
    rules = build(Idlm, {"rollout": {"calls": (1, 2)}, "coupling": {"batch_size": 3}}, "objective")
    with pytest.raises(InputError, match=r"training\.accumulate=2 must divide objective\.coupling\.batch_size=3"):
        rules.check(TRAINING, 1)
    with pytest.raises(InputError, match=r"objective\.coupling\.batch_size=3 cannot be shared evenly by 2 processes"):
        rules.check(replace(TRAINING, accumulate=1), 2)


def test_the_card_has_the_rollouts_of_both_halves_and_the_coupling() -> None:
    """A sampler reads there how few calls the student is for."""
    record = prepared(calls=(1, 4), coupling={"updates": 3}).record()
    assert list(record["rollout"]["calls"]) == [1, 4] and record["coupling"]["updates"] == 3


def test_without_rollouts_of_one_call_the_first_learns_from_coupled_noise_alone() -> None:
    objective = prepared(calls=(2, 4))
    assert [one.name for one in objective.learners()] == ["fake", "first", "student"] and objective.later.begun
    part = Slice(step=5, stream=generator(0, "slice"))
    assert set(objective.loss("first", objective.batch(part), part).measured) == {"first_nll"}
    train(objective, Memory())


@pytest.mark.parametrize("calls", [(1,), None])
def test_blocks_of_the_first_call_need_rollouts_of_more(calls: tuple[int, ...] | None) -> None:
    with pytest.raises(InputError, match=r"student.first_blocks=true: .* Set objective.rollout.calls, to \[1,4,8\]"):
        prepared(calls=calls)


def test_blocks_of_the_first_call_and_coupled_noise_need_each_other() -> None:
    with pytest.raises(InputError, match=r"objective\.coupling is .* this student has none\. Set student\.noise=2"):
        prepared(first=False)
    made = prepared().materials
    with pytest.raises(InputError, match=r"student\.first_blocks=true: nothing here .* objective=few_calls_coupled"):
        build(Idlm, {"rollout": {"calls": (1, 4)}}, "objective").prepare(made)


def test_a_collapse_of_either_half_is_one() -> None:
    objective, well = prepared(), {"entropy": 1.0, "teacher_entropy": 1.0}
    objective.check(3, {**well, "first_entropy": 1.0, "first_teacher_entropy": 1.0})
    for name in ("entropy", "first_entropy"):
        with pytest.raises(Collapse, match="step 3"):
            objective.check(3, {**well, "first_entropy": 1.0, "first_teacher_entropy": 1.0, name: 0.01})


def test_a_cut_run_ends_with_the_same_weights() -> None:
    whole, cut = Memory(), Memory(stop=3)
    train(prepared(), whole)
    with pytest.raises(KeyboardInterrupt):
        train(prepared(), cut)
    cut.stop = 0
    train(prepared(), cut)
    assert whole.saved is not None and cut.saved is not None
    assert {"first_optimiser", "first_ema", "optimiser", "ema", "student"} < whole.saved[1].keys()
    assert "first" not in whole.saved[1]  # the student has these weights
    for key, part in whole.saved[1].items():
        tensors = {name: value for name, value in part.items() if torch.is_tensor(value)}
        assert all(torch.equal(value, cut.saved[1][key][name]) for name, value in tensors.items())


def test_a_dry_run_measures_the_steps_that_do_everything() -> None:
    objective = prepared(coupling={"updates": 100})
    measured = time_steps(objective, objective.materials.run, objective.materials.training)
    moved = {trainee.learner.name for trainee in measured.trainees if trainee.optimiser.state_dict()["state"]}
    assert moved == {"first_fake", "fake", "first", "student"}
    waiting, training = measured.stages
    assert (waiting.name, waiting.units, training.name, training.units) == (
        "warm-up steps", 100, "training steps", TRAINING.steps
    )  # fmt: skip
    assert waiting.seconds_each > 0 and training.seconds_each > 0
    made = [DryRun(objective).batch(Slice(step, stream=generator(0, "slice"))) for step in range(4)]
    assert [one is None for one in made] == [True, True, False, False]  # the warm-up is that of the run


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"updates": -1}, r"objective\.coupling\.updates=-1"),
        ({"weight": -0.5}, r"objective\.coupling\.weight=-0\.5 is out of range"),
        ({"group": 1}, r"objective\.coupling\.group=1"),
        ({"batch_size": 0}, r"objective\.coupling\.batch_size=0"),
        ({"lr": -1.0}, r"objective\.coupling\.lr=-1\.0"),
        ({"gradient_clip": 0.0}, r"objective\.coupling\.gradient_clip=0\.0"),
        ({"empty": 0.5}, r"objective\.coupling\.empty"),
        ({"states": {"low": 0.1}}, r"objective\.coupling\.states\.low"),
    ],
)
def test_wrong_settings_are_refused_by_name(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(coupling=keys)
