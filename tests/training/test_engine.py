"""The engine by itself, on a toy objective: a line that is fitted to data, and a critic that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from memory_keeper import Memory
from torch import Tensor, nn

from didi_core.errors import InputError
from didi_core.processes import Processes
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.components import components, expected
from didi_core.training.engine import Engine, due_updates, total_updates, unfinished_warmups
from didi_core.training.objective import Collapse, Learner, Objective, Scalars, Slice, Terms
from didi_core.training.optimiser import EMA, OptimiserSettings
from didi_core.training.placement import gathered, shared
from didi_core.training.settings import TrainingSettings
from didi_core.training.trainee import Clock, Trainee
from didi_toy import ToyDomain

ADAM = OptimiserSettings(lr=0.05, clip=1e9)
TRAINING = TrainingSettings(steps=6, batch_size=8, lr=0.05, warmup=0, ema=0.5, checkpoint_every=2, log_every=1)
SLOPE = 3.0


@dataclass(frozen=True)
class Played:
    """Inputs of a slice and the line's outputs, with their graph where the line is to learn."""

    x: Tensor
    y: Tensor


@dataclass
class Line(Objective[Played]):
    """The line y = w x is fitted to the data and to the critic; the critic is fitted to the line's values."""

    training: TrainingSettings
    critic: Mapping[str, int] | None = field(default_factory=dict)  # updates, warmup; None: there is none
    waits: int = 0
    noise: float = 0.1
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    networks: dict[str, nn.Linear] = field(init=False)

    def __post_init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.networks = {name: nn.Linear(1, 1) for name in ("critic", "line")}

    def learners(self) -> list[Learner]:
        line = Learner("line", self.networks["line"], ADAM, self.training.ema, warmup=self.waits)
        critic = [] if self.critic is None else [Learner("critic", self.networks["critic"], ADAM, **self.critic)]
        return [*critic, line]

    def batch(self, slice: Slice) -> Played:
        whole = torch.randn(self.training.batch_size, 1, generator=generator(7, "x", slice.step))
        y = self.networks["line"](x := slice.of(whole))
        self.calls.append(("batch", slice.step, slice.number, y.requires_grad, self.networks["line"].training))
        return Played(x, y + self.noise * torch.randn(x.shape, generator=slice.stream))

    def loss(self, learner: str, batch: Played, slice: Slice) -> Terms:
        noise = self.noise * torch.randn(batch.x.shape, generator=slice.stream)
        self.calls.append((learner, slice.step, slice.number, slice.update, self.networks[learner].training))
        if learner == "critic":
            loss = (self.networks["critic"](batch.x) + noise - batch.y.detach()).square().mean()
            return Terms(loss, {"critic_loss": float(loss.detach())})
        pull = (batch.y - self.networks["critic"](batch.x)).square().mean()  # the critic gets a gradient here
        loss = (batch.y - SLOPE * batch.x + noise).square().mean() + 0.1 * pull
        return Terms(loss, {"loss": float(loss.detach())})

    def weights(self) -> dict[str, Tensor]:
        return {f"{n}.{k}": v.clone() for n, net in self.networks.items() for k, v in net.state_dict().items()}


def engine(objective: Objective[Any], training: TrainingSettings = TRAINING, keeper: Memory | None = None) -> Engine:
    run = Run(ToyDomain())
    return Engine(objective, run, training, keeper or Memory(), "test", partial(run.stream, "test"))


def test_the_critic_learns_from_all_slices_before_the_result_learns_from_any() -> None:
    """The result begins with the slice whose graph was kept; the other is drawn again, with its graph."""
    training = replace(TRAINING, accumulate=2)
    line = Line(training)
    engine(line, training).step(4)
    assert line.calls == [
        ("batch", 4, 0, False, True),
        ("batch", 4, 1, True, True),
        ("critic", 4, 0, 4, True),
        ("critic", 4, 1, 4, True),
        ("line", 4, 1, 4, True),
        ("batch", 4, 0, True, True),
        ("line", 4, 0, 4, True),
    ]


def test_without_others_each_slice_is_drawn_once() -> None:
    training = replace(TRAINING, accumulate=2)
    line = Line(training, critic=None)
    engine(line, training).step(0)
    assert [call[:3] for call in line.calls] == [("batch", 0, 0), ("line", 0, 0), ("batch", 0, 1), ("line", 0, 1)]


def test_while_the_result_waits_the_others_make_one_update_a_step() -> None:
    line = Line(TRAINING, critic={"updates": 3}, waits=2)
    made = engine(line)
    before = line.networks["line"].weight.clone()
    for step in range(2):
        made.step(step)
    assert torch.equal(line.networks["line"].weight, before)
    assert [call for call in line.calls if call[0] != "critic"] == [("batch", s, 0, False, False) for s in range(2)]
    made.step(2)
    assert not torch.equal(line.networks["line"].weight, before)
    assert [call[3] for call in line.calls if call[0] == "critic"] == [0, 1, 2, 3, 4]
    assert made.steps == 2 + TRAINING.steps


def test_updates_are_numbered_without_gaps_up_to_their_total() -> None:
    for updates, own, wait, steps in [(1, 0, 0, 5), (3, 0, 4, 5), (2, 3, 1, 5), (2, 1, 4, 5), (0, 0, 3, 5)]:
        learner = Learner("critic", nn.Linear(1, 1), ADAM, updates=updates, warmup=own)
        numbers = [n for step in range(wait + steps) for n in due_updates(learner, wait, step)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == total_updates(learner, wait, steps) or updates == 0
    assert numbers == [0, 1, 2]  # updates=0: only while the result waits


@pytest.mark.parametrize("critic", [None, {"updates": 2}])
def test_slices_add_up_to_the_whole_batch(critic: Mapping[str, int] | None) -> None:
    found = []
    for accumulate in (1, 2, 4):
        training = replace(TRAINING, accumulate=accumulate)
        line = Line(training, critic, noise=0.0)
        engine(line, training).train()
        found.append(line.weights())
    for other in found[1:]:
        for name, weight in other.items():
            torch.testing.assert_close(weight, found[0][name])


def test_a_run_that_is_cut_ends_like_an_uninterrupted_one() -> None:
    training = replace(TRAINING, accumulate=2)
    whole = Line(training, {"updates": 2}, waits=1)
    engine(whole, training).train()
    keeper = Memory(stop=4)
    with pytest.raises(KeyboardInterrupt):
        engine(Line(training, {"updates": 2}, waits=1), training, keeper).train()
    keeper.stop = 0
    cut = Line(training, {"updates": 2}, waits=1)
    engine(cut, training, keeper).train()
    assert {step for step, _ in keeper.lines} == set(range(1, 8))
    for name, weight in whole.weights().items():
        assert torch.equal(cut.weights()[name], weight)


def test_a_checkpoint_names_networks_optimisers_and_averages() -> None:
    assert set(engine(Line(TRAINING)).state()) == {"critic", "critic_optimiser", "line", "optimiser", "ema"}


SLOW = OptimiserSettings(lr=0.005, clip=1e9)


@dataclass
class Parts(Line):
    """The same line, whose bias is another learner's, at another rate."""

    first: int = 1  # updates of the bias for each of the slope
    overlap: bool = False

    def learners(self) -> list[Learner]:
        *critic, line = super().learners()
        bias = Learner("bias", line.network, SLOW, 0.9, self.first, only=frozenset({"bias"}))
        return [*critic, bias, line if self.overlap else replace(line, only=frozenset({"weight"}))]

    def loss(self, learner: str, batch: Played, slice: Slice) -> Terms:
        if learner != "bias":
            return super().loss(learner, batch, slice)
        self.calls.append((learner, slice.step, slice.number, slice.update, self.networks["line"].training))
        loss = (self.networks["line"](batch.x) - 1.0).square().mean()
        return Terms(loss, {"bias_loss": loss})


def test_learners_of_one_network_train_their_own_parameters_at_their_own_rates() -> None:
    """Adam moves a parameter by about its rate at the first update, whatever its gradient."""
    line = Parts(TRAINING, critic=None, waits=1)
    made = engine(line)
    moved = []
    for step in range(2):
        before = line.weights()
        made.step(step)
        moved.append({name: float((line.weights()[name] - before[name]).abs().sum()) for name in before})
    assert moved[0]["line.weight"] == 0 and moved[0]["line.bias"] == pytest.approx(SLOW.lr, rel=0.01)
    assert moved[1]["line.weight"] == pytest.approx(ADAM.lr, rel=0.01)
    assert [call[-1] for call in line.calls if call[0] == "line"] == [True]  # of the other it was in train mode too


def test_each_learner_of_a_network_has_its_average_and_the_network_ends_with_both() -> None:
    line = Parts(TRAINING)
    made = engine(line)
    assert set(made.state()) == {
        "critic", "critic_optimiser", "bias_optimiser", "bias_ema", "line", "optimiser", "ema"
    }  # fmt: skip
    made.train()
    averages = {trainee.learner.name: trainee.ema for trainee in made.trainees if trainee.ema is not None}
    assert {name: set(ema.shadow) for name, ema in averages.items()} == {"bias": {"bias"}, "line": {"weight"}}
    for name, ema in averages.items():
        for key, value in ema.shadow.items():
            assert torch.equal(line.networks["line"].get_parameter(key), value), name


def test_a_cut_run_of_two_learners_of_one_network_ends_with_the_same_weights() -> None:
    whole = Parts(TRAINING, {"updates": 2}, waits=2)
    engine(whole).train()
    keeper = Memory(stop=4)
    with pytest.raises(KeyboardInterrupt):
        engine(Parts(TRAINING, {"updates": 2}, waits=2), keeper=keeper).train()
    keeper.stop = 0
    cut = Parts(TRAINING, {"updates": 2}, waits=2)
    engine(cut, keeper=keeper).train()
    assert all(torch.equal(cut.weights()[name], weight) for name, weight in whole.weights().items())


def test_two_learners_of_one_parameter_are_refused() -> None:
    with pytest.raises(InputError, match=r"the learners 'bias' and 'line' both train bias: .*Learner\(\.\.\., only="):
        engine(Parts(TRAINING, overlap=True))


def test_memory_of_a_network_with_two_learners_is_counted_once() -> None:
    line = Parts(TRAINING)
    made = engine(line)
    made.step(0)
    counted = {one.name: one for one in components({}, made.trainees)}
    assert counted["bias"].parameters == 1 and counted["line"].parameters == 2
    assert (counted["bias"].weights, counted["line"].weights) == (4, 4)
    computed = {one.name: one for one in expected({}, line.learners())}
    for name in ("bias", "line"):
        assert computed[name].weights == counted[name].weights and computed[name].ema == counted[name].ema == 4
        assert computed[name].gradients == counted[name].gradients == 4
    assert not shared(line.learners(), [])
    assert gathered([line.networks["line"]] * 2) == gathered([line.networks["line"]])


def test_the_result_ends_with_its_averaged_weights_in_eval_mode() -> None:
    line = Line(TRAINING)
    made = engine(line)
    made.train()
    assert made.result.ema is not None and not line.networks["line"].training
    assert torch.equal(line.networks["line"].weight, made.result.ema.shadow["weight"])


def test_released_it_holds_no_more_than_the_networks() -> None:
    made = engine(Line(TRAINING))
    made.train()
    assert all(trainee.optimiser.state for trainee in made.trainees) and made.result.ema is not None
    before = made.result.learner.network.weight.clone()
    made.release()
    for trainee in made.trainees:
        assert not trainee.optimiser.state and trainee.ema is None
        assert all(parameter.grad is None for parameter in trainee.parameters)
    assert torch.equal(made.result.learner.network.weight, before)


def test_what_one_loss_leaves_in_another_network_moves_nothing() -> None:
    """The line's loss has a gradient for the critic, which must not be in the critic's next update."""
    training = replace(TRAINING, steps=2)
    moved = []
    for pull in (True, False):
        line = Line(training, noise=0.0)
        if not pull:
            original = line.loss
            line.loss = lambda *a, _of=original, _line=line: _without_critic(_of, _line, *a)  # type: ignore[method-assign]
        engine(line, training).train()
        moved.append(line.networks["critic"].weight.detach().clone())
    assert torch.equal(*moved)


def _without_critic(loss: Any, line: Line, *arguments: Any) -> Terms:
    """The same loss, whose gradient does not reach the critic from the line's."""
    frozen = arguments[0] == "line"
    line.networks["critic"].requires_grad_(not frozen)
    terms: Terms = loss(*arguments)
    line.networks["critic"].requires_grad_(True)
    return terms


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (torch.ones((), requires_grad=True), r"loss\('line', ...\) returned Tensor: return Terms\(loss"),
        (None, "returned NoneType: return Terms"),
        (Terms(torch.ones(3, requires_grad=True)), r"a loss of \(3,\): it must be one number"),
        (Terms(0.5), "a loss of 0.5: it must be one number"),  # type: ignore[arg-type]
        (Terms(torch.ones(())), "a loss without a gradient: compute it from the network 'line', outside"),
    ],
    ids=["bare tensor", "nothing", "one a sample", "a number", "detached"],
)
def test_a_loss_that_cannot_be_minimised_is_refused(returned: Any, told: str) -> None:
    line = Line(TRAINING, critic=None)
    line.loss = lambda *arguments: returned  # type: ignore[method-assign]
    with pytest.raises(InputError, match=told):
        engine(line).step(0)


def test_scalars_of_a_step() -> None:
    keeper = Memory()
    engine(Line(TRAINING), keeper=keeper).train()
    step, scalars = keeper.lines[0]
    assert step == 1 and len(keeper.lines) == TRAINING.steps
    assert set(scalars) == {"critic_loss", "critic_gradient", "loss", "gradient_norm", "lr", "seconds"}
    assert keeper.lines[-1][1]["lr"] == pytest.approx(0.05 / TRAINING.steps)


def test_a_value_that_is_not_finite_stops_the_run_before_anything_is_kept() -> None:
    line, keeper = Line(replace(TRAINING, checkpoint_every=1), noise=float("inf")), Memory()
    with pytest.raises(Collapse, match="step 0: critic_loss is .*The last checkpoint is intact"):
        engine(line, keeper=keeper).train()
    assert keeper.saved is None and not keeper.lines


def test_the_objective_may_stop_the_run() -> None:
    class Stopped(Line):
        def check(self, step: int, scalars: Scalars) -> None:
            if step == 2:
                raise Collapse(f"step {step}: loss {scalars['loss']:.1f}")

    keeper = Memory()
    with pytest.raises(Collapse, match="step 2: loss"):
        engine(Stopped(TRAINING), keeper=keeper).train()
    assert [step for step, _ in keeper.lines] == [1, 2]


def test_validation_sees_the_averaged_weights_and_leaves_the_present_ones() -> None:
    class Measured(Line):
        validate_every = 4

        def validate(self) -> float:
            assert not self.networks["line"].training and not torch.is_grad_enabled()
            return self.networks["line"].weight.item()

    line, keeper = Measured(TRAINING), Memory()
    made = engine(line, keeper=keeper)
    assert made.result.ema is not None
    for step in range(4):
        scalars = made.step(step)
    assert scalars["validation_loss"] == float(made.result.ema.shadow["weight"])
    assert line.networks["line"].weight.item() != scalars["validation_loss"]
    curve = engine(Measured(TRAINING), keeper=keeper).train()
    assert list(curve) == [4, 6] and "validation" in (keeper.saved or (0, {}))[1]


class Several(Objective[None]):
    """An objective of given learners."""

    def __init__(self, *learners: Learner) -> None:
        self.found = learners

    def learners(self) -> Sequence[Learner]:
        return self.found

    def batch(self, slice: Slice) -> None:
        return None

    def loss(self, learner: str, batch: None, slice: Slice) -> Terms:
        return Terms(torch.zeros((), requires_grad=True))


NET = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("learners", "said"),
    [
        ([], "the objective has no learner: its last learner is the result of the run"),
        ([Learner("a", NET, ADAM), Learner("a", NET, ADAM)], "two learners of the objective are called 'a'"),
        ([Learner("ema", NET, ADAM)], "a learner cannot be called 'ema'"),
        ([Learner("a", NET, ADAM, updates=2)], "the result 'a' must make one update per step, not 2"),
        ([Learner("a", nn.Linear(1, 1).requires_grad_(False), ADAM)], "'a' has no parameter that requires a gradient"),
    ],
)
def test_learners_that_cannot_be_trained_are_refused(learners: list[Learner], said: str) -> None:
    with pytest.raises(InputError, match=said):
        engine(Several(*learners))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    run = Run(ToyDomain(), processes=Processes(0, 3))
    with pytest.raises(InputError, match="batch_size=8 cannot be shared evenly by 3 processes"):
        Engine(Line(TRAINING), run, TRAINING, Memory(), "test", partial(run.stream, "test"))


def test_an_average_follows_every_update() -> None:
    trainee = Trainee(Learner("a", nn.Linear(2, 1), ADAM, ema=0.9))
    assert trainee.ema is not None
    with torch.no_grad():
        trainee.learner.network.weight.fill_(2.0)
    start = trainee.ema.shadow["weight"].clone()
    trainee.ema.update(trainee.learner.network)
    rate = 1 - 2 / 11  # of the first update: min(0.9, (1 + 1) / (10 + 1))
    torch.testing.assert_close(trainee.ema.shadow["weight"], start + rate * (2.0 - start))


def test_an_average_that_is_longer_than_the_run_is_of_the_run() -> None:
    """The decay grows with the number of updates, so nothing of the weights at the start is left after a few."""
    moving = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(moving.weight)
    average = EMA(moving, 0.9999)
    nn.init.ones_(moving.weight)
    for _ in range(20):
        average.update(moving)
    assert float(average.shadow["weight"]) > 0.99
    assert TrainingSettings(steps=20, warmup=0, ema=0.9999).cautions() == []
    assert "training.warmup=20" in TrainingSettings(steps=20, warmup=20).cautions()[0]


@pytest.mark.parametrize(
    ("critic", "warmup", "made"),
    [
        ({}, 6, 6),
        ({}, 5, None),
        ({"updates": 2}, 12, 12),
        ({"updates": 2, "warmup": 2}, 8, 8),
        ({"updates": 0}, 9, None),
    ],
)
def test_a_rate_that_rises_to_the_end_is_told(critic: Mapping[str, int], warmup: int, made: int | None) -> None:
    """Of every learner, by the number of its own updates; the engine's run has six steps."""
    optimiser = OptimiserSettings(lr=0.5, warmup=warmup)
    found = unfinished_warmups([Learner("critic", NET, optimiser, **critic)], 0, TRAINING.steps)
    assert len(found) == (made is not None)
    assert all(f"its warm-up has {warmup} updates and the run {made}." in said for said in found)


# --- a budget of time


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that shows a second more whenever it is read."""
    now = iter(range(1_000_000))
    monkeypatch.setattr(Clock, "now", lambda: float(next(now)))


LONG = replace(TRAINING, steps=1000, seconds=20.0, log_every=1000)


def test_a_run_ends_when_its_time_is_spent(ticking: None) -> None:
    keeper = Memory()
    trained = engine(Line(LONG), LONG, keeper)
    trained.train()
    assert 3 <= trained.updates < 20
    assert keeper.saved is not None and keeper.saved[0] == trained.updates == keeper.lines[-1][0]
    assert float(keeper.saved[1]["clock"]["seconds"]) >= 20
    again = engine(Line(LONG), LONG, keeper)
    again.train()
    assert again.updates == trained.updates


def test_time_of_earlier_parts_counts(ticking: None) -> None:
    whole = engine(Line(LONG), LONG)
    whole.train()
    keeper = Memory(stop=4)
    with pytest.raises(KeyboardInterrupt):
        engine(Line(LONG), LONG, keeper).train()
    keeper.stop = 0
    rest = engine(Line(LONG), LONG, keeper)
    rest.train()
    assert 4 < rest.updates <= whole.updates + 1


def test_steps_end_a_run_that_has_time_left() -> None:
    training = replace(TRAINING, seconds=1e6)
    line, plain = Line(training), Line(TRAINING)
    trained = engine(line, training)
    trained.train()
    engine(plain).train()
    assert trained.updates == TRAINING.steps
    assert all(torch.equal(value, plain.weights()[name]) for name, value in line.weights().items())


def test_the_warm_up_counts_in_the_time_but_not_in_the_updates(ticking: None) -> None:
    trained = engine(Line(LONG, waits=3), LONG)
    trained.train()
    assert trained.updates < 17


def test_a_time_that_is_none_is_refused_and_a_falling_rate_is_a_caution() -> None:
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"training.seconds=.* out of range"):
            replace(TRAINING, seconds=wrong)
    assert any("training.final=1" in said for said in replace(LONG, final=0.1).cautions())
    assert not any("training.final" in said for said in replace(LONG, final=1.0).cautions())
