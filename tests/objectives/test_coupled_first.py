"""An objective after coupled noise: who learns when, what the loss is, and that a cut run ends with equal weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from memory_keeper import Memory
from torch import Tensor

from didi_core.config import build
from didi_core.errors import InputError
from didi_core.models.noise import learning, with_noise
from didi_core.objectives.base import Materials
from didi_core.objectives.coupled_first import CoupledFirst
from didi_core.objectives.idlm import Idlm
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.objective import Collapse, Slice, Staged
from didi_core.training.planning import time_steps
from didi_core.training.settings import TrainingSettings

STATES = {"source": "teacher", "samples": 16, "steps": 1}
TRAINING = TrainingSettings(
    steps=5, batch_size=8, lr=1e-2, warmup=0, ema=0.5, checkpoint_every=1, log_every=1, accumulate=2
)


def prepared(
    critic: int = 0, noise: int = 2, first: bool = False, calls: tuple[int, ...] | None = (1, 2), **coupling: Any
) -> Any:
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").requires_grad_(False)
    student = learning(with_noise(teacher, noise, 0, once=first, first_blocks=first))

    def samples(num: int, steps: int) -> Tensor:
        return domain.chain.sample(num, 32, generator(0, "test"))  # type: ignore[attr-defined]

    keys = {"updates": 2, "states": STATES, **coupling}
    given = {"rollout": {"calls": calls} if calls else None, "critic": {"warmup": critic}, "coupling": keys}
    materials = Materials(Run(domain), TRAINING, student, teacher, samples, collapse=0.1)
    return build(Idlm, given, "objective").prepare(materials)


def train(objective: Any, keeper: Memory) -> None:
    run, training = objective.noise.materials.run, objective.noise.materials.training
    Engine(objective, run, training, keeper, "test", partial(run.stream, "test")).train()


class Recorded(Memory):
    """Remembers the scalars of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, set[str]] = {}

    def record(self, step: int, scalars: Any) -> None:
        self.steps[step] = set(scalars)


@pytest.mark.parametrize(("critic", "alone"), [(0, 2), (1, 3)])
def test_the_student_learns_coupled_noise_alone_until_the_critics_are_ready(critic: int, alone: int) -> None:
    keeper = Recorded()
    train(prepared(critic), keeper)
    seen = [keeper.steps[step] for step in sorted(keeper.steps)]
    assert ["fake_loss" in names for names in seen] == [step >= 2 for step in range(len(seen))]
    assert ["advantage_spread" in names for names in seen] == [step >= alone for step in range(len(seen))]
    assert all("nll" in names for names in seen)  # of coupled noise, in every step


def test_the_losses_are_added_with_the_weight() -> None:
    objective = prepared(weight=0.5)

    def loss(of: Any, step: int) -> Tensor:
        part = Slice(step=step, stream=generator(0, "slice"))
        found: Tensor = of.loss("student", of.batch(part), part).loss
        return found

    part = Slice(step=4, stream=generator(0, "slice"))
    rows = objective.noise.loss(objective.noise.draw(part)).loss
    own = objective.then.loss("student", objective.then.batch(part), part).loss
    torch.testing.assert_close(loss(objective, 4), own + 0.5 * rows, rtol=1e-4, atol=1e-6)
    part = Slice(step=1, stream=generator(0, "slice"))
    torch.testing.assert_close(loss(objective, 1), objective.noise.loss(objective.noise.draw(part)).loss)


def learnt(network: Any) -> set[str]:
    return {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_blocks_of_the_first_call_and_of_later_ones_learn_apart() -> None:
    """From rollouts of one call and from later calls of longer ones, each half with its own fake denoiser."""
    objective = prepared(first=True, calls=(1, 2, 4), empty=1.0)
    *fakes, student = objective.learners()
    assert [one.name for one in fakes] == ["first_fake", "fake"] and fakes[0].network is not fakes[1].network
    halves, mask = objective.then, student.network.vocabulary.mask
    for step in range(2, 12):
        part = Slice(step=step, stream=generator(0, "slice", step))
        made = objective.batch(part).own
        assert (made.first.tokens == mask).all() and made.first.masked.all()
        assert (made.later.tokens != mask).any(1).all() and not (made.later.masked & (made.later.tokens != mask)).any()
    with torch.no_grad():
        for fake in fakes:  # where it is the teacher still, there is nothing to follow
            for parameter in fake.network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator(0, fake.name)) * 0.05)
    part = Slice(step=5, stream=generator(0, "slice"))
    made = objective.batch(part).own
    found = halves.loss("student", made, part)
    assert {"first_kl", "kl", "first_loss", "loss"} <= {*found.measured}
    for half, parts in ((halves.first, {"first", "noise_map"}), (halves.later, {"blocks"})):
        student.network.zero_grad()
        half.loss("student", half.batch(part), part).loss.backward()
        assert learnt(student.network) == parts
    for fake in fakes:
        halves.loss(fake.name, made, part).loss.backward()
        assert learnt(fake.network) and f"{fake.name}_loss" in halves.loss(fake.name, made, part).measured
        fake.network.zero_grad()
        assert not any(map(learnt, (one.network for one in fakes)))


def test_the_card_has_the_rollouts_of_both_halves() -> None:
    """A sampler reads there how few calls the student is for."""
    assert list(prepared(first=True, calls=(1, 4)).record()["rollout"]["calls"]) == [1, 4]


def test_without_rollouts_of_one_call_only_later_calls_learn_from_rollouts() -> None:
    objective = prepared(first=True, calls=(2, 4))
    assert [one.name for one in objective.learners()] == ["fake", "student"] and objective.then.begun


@pytest.mark.parametrize("calls", [(1,), None])
def test_blocks_of_the_first_call_need_rollouts_of_more(calls: tuple[int, ...] | None) -> None:
    with pytest.raises(InputError, match=r"student.first_blocks=true: .* Set objective.rollout.calls, to \[1,4,8\]"):
        prepared(first=True, calls=calls)


def test_a_collapse_of_either_half_is_one() -> None:
    objective, well = prepared(first=True), {"entropy": 1.0, "teacher_entropy": 1.0}
    objective.check(3, {**well, "first_entropy": 1.0, "first_teacher_entropy": 1.0})
    for name in ("entropy", "first_entropy"):
        with pytest.raises(Collapse, match="step 3"):
            objective.check(3, {**well, "first_entropy": 1.0, "first_teacher_entropy": 1.0, name: 0.01})


@pytest.mark.parametrize("first", [False, True])
def test_a_cut_run_ends_with_the_same_weights(first: bool) -> None:
    whole, cut = Memory(), Memory(stop=3)
    train(prepared(first=first), whole)
    with pytest.raises(KeyboardInterrupt):
        train(prepared(first=first), cut)
    cut.stop = 0
    train(prepared(first=first), cut)
    assert whole.saved is not None and cut.saved is not None
    for key, part in whole.saved[1].items():
        tensors = {name: value for name, value in part.items() if torch.is_tensor(value)}
        assert all(torch.equal(value, cut.saved[1][key][name]) for name, value in tensors.items())


def test_a_dry_run_measures_the_steps_that_do_everything() -> None:
    objective = prepared(updates=100)
    assert isinstance(objective, Staged) and isinstance(objective.later(), CoupledFirst)
    part = Slice(step=0, stream=generator(0, "slice"))
    assert objective.batch(part).own is None and objective.later().batch(part).own is not None
    materials = objective.noise.materials
    measured = time_steps(objective, materials.run, materials.training)
    fake = next(trainee for trainee in measured.trainees if trainee.learner.name == "fake")
    assert fake.optimiser.state_dict()["state"]  # it made updates


def test_the_card_names_the_coupling() -> None:
    assert prepared(updates=3).record()["coupling"]["updates"] == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"updates": -1}, r"objective\.coupling\.updates=-1"),
        ({"weight": -0.5}, r"objective\.coupling\.weight=-0\.5 is out of range"),
        ({"empty": 0.0}, r"objective\.coupling\.empty=0\.0 is out of range"),
        ({"noise": 0}, r"needs a student that reads noise"),
    ],
)
def test_wrong_settings_are_refused_by_name(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(**keys)
