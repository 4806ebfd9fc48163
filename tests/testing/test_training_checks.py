"""The kit on objectives and rewards: the built-in ones pass, and each broken one fails for its own reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.didi import Didi
from didi_core.objectives.rewards import BUILT_IN, Corrupted, Reward, reward
from didi_core.objectives.rewards.base import Context, RewardSettings
from didi_core.testing import Broken, check_objective, check_reward
from didi_core.training.objective import Learner, Objective, Slice, Terms
from didi_core.training.optimiser import OptimiserSettings

ADAM = OptimiserSettings()


@dataclass
class Likelihood(Objective[Tensor]):
    """A sound objective: mean squared logits on data. The broken ones differ from it in one method each."""

    materials: Materials

    def learners(self) -> Sequence[Learner]:
        return [Learner("student", self.materials.network, ADAM)]

    def batch(self, slice: Slice) -> Tensor:
        return slice.of(self.materials.data().batch(slice.step, self.materials.training.batch_size))

    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        loss = self.materials.network(batch).square().mean()
        return Terms(loss, {"loss": float(loss.detach())})


class Twins(Likelihood):
    def learners(self) -> Sequence[Learner]:
        return [*super().learners(), *super().learners()]


class Nobody(Likelihood):
    def learners(self) -> Sequence[Learner]:
        return []


class Elsewhere(Likelihood):
    def learners(self) -> Sequence[Learner]:
        return [*super().learners(), Learner("other", nn.Linear(2, 2), ADAM)]


class Frozen(Likelihood):
    def learners(self) -> Sequence[Learner]:
        self.materials.network.requires_grad_(False)
        return super().learners()


class Dice(Likelihood):
    def batch(self, slice: Slice) -> Tensor:
        return torch.randint(4, (8, 6))


class Deaf(Likelihood):
    def batch(self, slice: Slice) -> Tensor:
        return self.materials.data().batch(slice.step, 8)


class Detached(Likelihood):
    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        return Terms(super().loss(learner, batch, slice).loss.detach())


class Rows(Likelihood):
    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        return Terms(self.materials.network(batch).square().mean((1, 2)))


class Infinite(Likelihood):
    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        return Terms(super().loss(learner, batch, slice).loss / 0)


class Moody(Likelihood):
    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        return Terms(super().loss(learner, batch, slice).loss * torch.rand(()))


class Lists(Likelihood):
    def loss(self, learner: str, batch: Tensor, slice: Slice) -> Terms:
        made = super().loss(learner, batch, slice)
        return replace(made, measured={"loss": made.loss.expand(2)})


class Talks(Likelihood):
    def record(self) -> Mapping[str, Any]:
        return {"network": self.materials.network}


@dataclass(frozen=True, kw_only=True)
class Rules(ObjectiveSettings):
    made: type[Objective[Any]] = Likelihood

    def prepare(self, materials: Materials) -> Objective[Any]:
        return self.made(materials)  # type: ignore[call-arg]


def test_objectives_that_are_sound_pass() -> None:
    check_objective(Rules())
    check_objective(Didi(reference_samples=8, reference_steps=2))
    check_objective(Didi(reference_samples=8, reference_steps=2, reward=["scorer", {"kind": "log_ratio"}]))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (Twins, "two learners of the objective are called 'student'"),
        (Nobody, "the objective has no learner"),
        (Elsewhere, "the last learner, 'other', is the result of the run: its network must be materials.network"),
        (Frozen, "the learner 'student' has no parameter that requires a gradient"),
        (Dice, "batch gave two batches for one slice"),
        (Deaf, "batch gave one batch for two slices"),
        (Detached, "has no gradient: it does not depend on the network of 'student'"),
        (Rows, r"gave a loss of shape \(8,\): it must be one number"),
        (Infinite, "gave the loss inf"),
        (Moody, "for the same slice: draw from slice.stream only"),
        (Lists, "gave scalars that are not single numbers: loss"),
        (Talks, r"record\(\) goes into a card as JSON"),
    ],
)
def test_broken_objective_fails_for_its_own_reason(made: type[Objective[Any]], told: str) -> None:
    with pytest.raises(Broken, match=told):
        check_objective(Rules(made=made))


@dataclass
class Linear(Reward):
    """A sound learned reward: a linear function of token frequencies."""

    context: Context
    name: str = "linear"

    def __post_init__(self) -> None:
        self.network: nn.Module = nn.Linear(self.context.materials.run.domain.vocabulary.size, 1)

    def score(self, noised: Corrupted) -> Tensor:
        return self.logits(noised.x)

    def logits(self, tokens: Tensor) -> Tensor:
        size = self.context.materials.run.domain.vocabulary.size
        return self.network(nn.functional.one_hot(tokens, size).float().mean(1)).squeeze(1)

    def critic(self) -> Learner | None:
        return self.context.critic.learner("linear", self.network)

    def critic_loss(self, samples: Tensor, alpha: Tensor, slice: Slice) -> Terms:
        return Terms(self.logits(samples).square().mean())


class Column(Linear):
    def score(self, noised: Corrupted) -> Tensor:
        return super().score(noised)[:, None]


class Few(Linear):
    def score(self, noised: Corrupted) -> Tensor:
        return super().score(noised)[1:]


class Undefined(Linear):
    def score(self, noised: Corrupted) -> Tensor:
        return super().score(noised) * float("nan")


class Gambler(Linear):
    def score(self, noised: Corrupted) -> Tensor:
        return torch.rand(len(noised.x))


class Everywhere(Linear):
    def score(self, noised: Corrupted) -> Tensor:
        return torch.ones(noised.x.shape)


class Idle(Linear):
    def critic_loss(self, samples: Tensor, alpha: Tensor, slice: Slice) -> Terms:
        return Terms(torch.zeros((), requires_grad=True) * 1.0)


class Thief(Linear):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.network = nn.Sequential(self.network, self.context.materials.frozen)

    def logits(self, tokens: Tensor) -> Tensor:
        return tokens.float().mean(1)


@dataclass(frozen=True)
class Makes:
    made: type[Linear] = Linear

    def make(self, context: Context) -> Reward:
        return self.made(context)


@pytest.mark.parametrize("name", BUILT_IN)
def test_rewards_in_the_box_pass(name: str) -> None:
    check_reward(BUILT_IN[name]())


@reward
def vowels(texts: list[str], *, pull: float = 1.0) -> list[float]:
    return [pull * text.count("a") for text in texts]


@reward
def forgets_one(texts: list[str]) -> list[float]:
    return [0.0 for _ in texts[1:]]


@reward
def empty_mean(texts: list[str]) -> list[float]:
    return [float("nan") for _ in texts]


def test_learned_and_text_rewards_that_are_sound_pass() -> None:
    check_reward(Makes())
    check_reward(vowels)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (Makes(Column), r"scores of shape \(8, 1\) for 8 samples"),
        (Makes(Few), r"scores of shape \(7,\) for 8 samples"),
        (Makes(Undefined), "returned a score that is not finite"),
        (Makes(Gambler), "scored the same samples twice in two ways"),
        (Makes(Everywhere), "scored tokens that z_t shows; they are zero there"),
        (Makes(Idle), "critic_loss has no gradient in the network of 'linear'"),
        (Makes(Thief), "shares weights with the teacher; it must have a copy"),
        (forgets_one, "'forgets_one' returned 7 scores for 8 texts"),
        (empty_mean, "'empty_mean' gave text 0 the score nan"),
    ],
    ids=lambda value: getattr(getattr(value, "made", None), "__name__", None),
)
def test_broken_reward_fails_for_its_own_reason(rules: RewardSettings, told: str) -> None:
    with pytest.raises(Broken, match=told):
        check_reward(rules)
