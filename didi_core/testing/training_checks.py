"""The contract of objectives and rewards that a plugin offers.

The checks run on a small domain of letters with an untrained network, or on a given domain and teacher.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import DidiError
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.policy import checked_scores
from didi_core.objectives.reference import SampleReference
from didi_core.objectives.rewards.base import Context, Corrupted, CriticSettings, Reward, RewardSettings, corrupt
from didi_core.objectives.rewards.text import TextFunction
from didi_core.run import Run
from didi_core.sequences import AlphabetDomain
from didi_core.streams import generator
from didi_core.testing.bench import Broken, promise, tiny_network
from didi_core.training.engine import checked_learners
from didi_core.training.objective import Learner, Objective, Slice, Terms
from didi_core.training.settings import TrainingSettings
from didi_core.types import Denoiser, Domain, Sample

ROWS = 8  # samples of a slice


class Letters(AlphabetDomain):
    """Random letters, of several lengths."""

    name, alphabet = "letters", "abcd"

    def load(self) -> list[Sample]:
        random = np.random.default_rng(0)
        return [Sample("".join(random.choice(list("abcd"), size=random.integers(6, 11)))) for _ in range(200)]


@dataclass
class Training:
    """A run for the checks: a domain, its frozen teacher, and the inputs of an objective or a reward."""

    domain: Domain
    teacher: Denoiser

    @classmethod
    def of(cls, domain: Domain | None, teacher: Denoiser | None) -> Training:
        own: Domain = Letters() if domain is None else domain
        frozen = tiny_network(own.vocabulary) if teacher is None else teacher.eval()
        return cls(own, frozen.requires_grad_(False))

    @cached_property
    def sequences(self) -> Int[Tensor, "B L"]:
        """Sequences of the domain, in place of a network's samples."""
        return next(iter(self.domain.batches("train", ROWS, seed=0)))

    @cached_property
    def materials(self) -> Materials:
        training = TrainingSettings(steps=4, batch_size=2 * ROWS, accumulate=2)
        student = copy.deepcopy(self.teacher).requires_grad_(True)
        samples = self.sequences
        return Materials(Run(self.domain), training, student, self.teacher, lambda n, steps: samples)

    def slice(self, number: int = 0) -> Slice:
        """One of the two slices of the first step, with a fresh stream."""
        return Slice(0, number, 2, number == 0, stream=generator(0, "contract", number))


def check_objective(rules: ObjectiveSettings, domain: Domain | None = None, teacher: Denoiser | None = None) -> None:
    """An objective names its networks, draws the same batch twice, and has a finite loss with a gradient for each.

    Args:
        rules: the settings that a plugin registers, with the values to check.
        domain, teacher: replacements for the small ones, if those do not suit the objective.
    """
    bench = Training.of(domain, teacher)
    objective = rules.prepare(bench.materials)
    learners = _learners(objective)
    for number, learner in enumerate(learners):
        _stir(learner, number)
        learner.network.eval()
    promise(
        learners[-1].network is bench.materials.network,
        f"the last learner, {learners[-1].name!r}, is the result of the run: its network must be materials.network.",
    )
    first, again, other = (objective.batch(bench.slice(number)) for number in (0, 0, 1))
    promise(_same(first, again), "batch gave two batches for one slice: draw from slice.stream and nothing else.")
    promise(
        not _tensors(first) or not _same(first, other),
        "batch gave one batch for two slices: cut the data with slice.of, or draw from slice.stream.",
    )
    for learner in learners:

        def loss(name: str = learner.name) -> Terms:
            return objective.loss(name, objective.batch(bench.slice()), bench.slice())

        _check_loss(f"loss({learner.name!r})", learner, loss, learners)
    try:
        json.dumps(dict(objective.record()))
    except TypeError as error:
        raise Broken(f"record() goes into a card as JSON: {error}.") from error


@torch.no_grad()
def _stir(learner: Learner, number: int) -> None:
    """Change a network a little, as updates do, because a fresh copy of another network may have no gradient."""
    stream = generator(0, "stir", number)
    for parameter in learner.learnt.values():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=stream))


def _learners(objective: Objective[Any]) -> Sequence[Learner]:
    try:
        return checked_learners(objective.learners())
    except DidiError as error:
        raise Broken(str(error)) from error


def check_reward(
    rules: RewardSettings | TextFunction, domain: Domain | None = None, teacher: Denoiser | None = None
) -> None:
    """A reward gives one finite score per sample or token, the same ones at every call, and its critic learns.

    Args:
        rules: the settings that a plugin registers, with the values to check, or a function of texts.
        domain, teacher: replacements for the small ones; a reward of texts needs its own domain.
    """
    bench = Training.of(domain, teacher)
    made = rules.settings() if isinstance(rules, TextFunction) else rules
    kept = SampleReference(bench.sequences, 0, bench.domain.vocabulary.pad)
    reward = made.make(Context(bench.materials, CriticSettings(), lambda: kept))
    promise(bool(reward.name), "a reward has a name, for messages and scalars.")
    learner = reward.critic()
    if learner is not None:
        learner.network.eval()
    scores, again = (_scores(reward, _judged(bench)) for _ in range(2))
    if isinstance(scores, Tensor) and isinstance(again, Tensor):
        promise(torch.equal(scores, again), f"reward {reward.name!r} scored the same samples twice in two ways.")
    if learner is None:
        return
    promise(
        not any(p is q for p in learner.network.parameters() for q in bench.teacher.parameters()),
        f"the critic of reward {reward.name!r} shares weights with the teacher; it must have a copy.",
    )
    share = torch.full((ROWS,), 0.5)
    _check_loss("critic_loss", learner, lambda: reward.critic_loss(bench.sequences, share, bench.slice()), [learner])


def _judged(bench: Training) -> Corrupted:
    """Samples in the form that a reward gets in a run."""
    noised = corrupt(bench.sequences, torch.full((ROWS,), 0.5), bench.domain.vocabulary, generator(0, "contract"))
    time, group = torch.full((ROWS,), 0.5), torch.arange(ROWS) // 4
    return Corrupted(noised.x, noised.zt, noised.masked, time, group, bench.domain.decode)


def _scores(reward: Reward, noised: Corrupted) -> object:
    try:
        scores = checked_scores(reward, noised)
    except DidiError as error:
        raise Broken(str(error)) from error
    if isinstance(scores, Tensor) and scores.ndim == 2:
        outside = scores[~noised.masked]
        promise(
            bool((outside == 0).all()), f"reward {reward.name!r} scored tokens that z_t shows; they are zero there."
        )
    return scores


def _one_number(value: object) -> bool:
    """Whether a value is a number, or a tensor of one."""
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.ndim == 0)


def _check_loss(what: str, learner: Learner, ask: Callable[[], Terms], others: Sequence[Learner]) -> None:
    """The loss is finite, the same at every call, and its gradient reaches the learner's network."""
    terms = []
    before = copy.deepcopy([other.network.state_dict() for other in others])
    for _ in range(2):
        for other, state in zip(others, before, strict=True):  # calls change state, for example a spectral norm
            other.network.load_state_dict(state)
            other.network.zero_grad(set_to_none=True)
        learner.network.train()
        terms.append(ask())
        learner.network.eval()
    for made in terms:
        kind = type(made).__name__
        promise(isinstance(made, Terms), f"{what} returned {kind}: return Terms(loss, {{name: number}}).")
    loss, again = (made.loss for made in terms)
    promise(loss.ndim == 0, f"{what} gave a loss of shape {tuple(loss.shape)}: it must be one number.")
    values = float(loss.detach()), float(again.detach())
    promise(math.isfinite(values[0]), f"{what} gave the loss {values[0]}.")
    promise(
        math.isclose(*values, rel_tol=1e-4, abs_tol=1e-6),
        f"{what} gave {values[0]:.6g} and {values[1]:.6g} for the same slice: draw from slice.stream only.",
    )
    odd = [name for name, value in terms[0].measured.items() if not _one_number(value)]
    promise(not odd, f"{what} gave scalars that are not single numbers: {', '.join(odd)}. Take their mean.")
    promise(loss.requires_grad, f"{what} has no gradient: it does not depend on the network of {learner.name!r}.")
    again.backward()
    moved = [p.grad for p in learner.learnt.values() if p.grad is not None]
    promise(
        any(bool(gradient.abs().max() > 0) for gradient in moved),
        f"{what} has no gradient in the network of {learner.name!r}.",
    )
    promise(
        all(bool(torch.isfinite(gradient).all()) for gradient in moved), f"{what} has a gradient that is not finite."
    )


def _tensors(batch: Any) -> list[Tensor]:
    """The tensors in a batch of any shape: a tensor, a sequence, a mapping, a dataclass of them."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        return [tensor for value in batch.values() for tensor in _tensors(value)]
    if isinstance(batch, list | tuple):
        return [tensor for value in batch for tensor in _tensors(value)]
    if is_dataclass(batch) and not isinstance(batch, type):
        return [tensor for field in fields(batch) for tensor in _tensors(getattr(batch, field.name))]
    return []


def _same(first: Any, other: Any) -> bool:
    pairs = _tensors(first), _tensors(other)
    return len(pairs[0]) == len(pairs[1]) and all(
        a.shape == b.shape and torch.allclose(a.detach(), b.detach(), rtol=1e-4, atol=1e-5, equal_nan=True)
        for a, b in zip(*pairs, strict=True)
    )
