"""The training loop of all objectives: optimisers, schedules, slices, EMA, checkpoints and the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from didi_core.errors import InputError
from didi_core.run import Run
from didi_core.streams import seeded
from didi_core.training.objective import (
    Learner,
    Objective,
    Scalars,
    Slice,
    Validated,
    check_finite,
    checked_terms,
    last_of_each,
)
from didi_core.training.optimiser import apply_gradients
from didi_core.training.parallel import Parallel, Replicated
from didi_core.training.recomputing import recomputing
from didi_core.training.settings import TrainingSettings
from didi_core.training.state import Keeper, Stateful
from didi_core.training.stopping import stopping
from didi_core.training.trainee import Clock, Curve, Trainee, averaged

RESERVED = ("optimiser", "ema", "validation", "clock")  # states that belong to the run or its result


@dataclass
class Engine:
    """Trains one objective. ``train`` runs it to its end; ``step`` does one whole step.

    A step derives its randomness from its number, so an exact resume needs no saved random state.

    updates: of the result, made so far. clock: time spent in training.
    title: of the progress bar. stream: (step, number of the slice) -> fresh random stream of that slice.
    how: processes share the networks; None for all of them on each.
    """

    objective: Objective[Any]
    run: Run
    training: TrainingSettings
    keeper: Keeper
    title: str
    stream: Callable[[int, int], torch.Generator]
    how: InitVar[Parallel | None] = None
    parallel: Parallel = field(init=False)
    trainees: list[Trainee] = field(init=False)
    curve: Curve = field(init=False, default_factory=Curve)
    clock: Clock = field(init=False, default_factory=Clock)
    updates: int = field(init=False, default=0)

    def __post_init__(self, how: Parallel | None) -> None:
        self.parallel = how or Replicated(self.run.processes)
        self.training.slice_size(self.run.processes.size)
        learners = checked_learners(self.objective.learners())
        for learner in learners:
            self.parallel.place(learner.network)
        self.trainees = [Trainee(learner) for learner in learners]
        for trainee in self.trainees:
            trainee.learner.network.eval()

    @property
    def result(self) -> Trainee:
        return self.trainees[-1]

    @property
    def steps(self) -> int:
        """Steps of the run: the warm-up of the result, and then its ``training.steps`` updates."""
        return self.result.learner.warmup + self.training.steps

    def state(self) -> dict[str, Stateful]:
        """The states in a checkpoint. Those of the result's optimiser and EMA have no prefix."""
        found: dict[str, Stateful] = {}
        whole = last_of_each([trainee.learner for trainee in self.trainees])
        for trainee in self.trainees:
            prefix = "" if trainee is self.result else f"{trainee.learner.name}_"
            found |= trainee.state(prefix, with_network=trainee.learner in whole)
        if self.training.seconds:
            found["clock"] = self.clock
        return found | {"validation": self.curve} if isinstance(self.objective, Validated) else found

    def train(self) -> dict[int, float]:
        """Run all steps after the newest checkpoint, or as many as ``training.seconds`` leave time for. The result ends
        with its averaged weights, in eval mode.

        Returns:
            validation loss by step; empty for an objective without validation.

        Raises:
            KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; the current step is finished and saved first.
            Collapse: a scalar is not finite, or the objective's own check failed. The last checkpoint is intact.
        """
        state, reporter, every = self.state(), self.run.reporter, self.training
        first = self.keeper.restore(state)
        if first:
            reporter.message(f"{self.title}: continuing after step {first} of {self.steps}")
        wait = self.result.learner.warmup
        others = [trainee.learner for trainee in self.trainees[:-1]]
        for caution in [] if first else [*every.cautions(), *unfinished_warmups(others, wait, every.steps)]:
            reporter.message(f"{self.title}: {caution}")
        self._show(first, wait)
        done, over = first, self._over(self.clock.seconds)
        self.clock.start()
        with stopping() as asked, self._activations():
            while done < self.steps and not over:
                scalars = self.step(done)
                check_finite(done, scalars)
                self.objective.check(done, scalars)
                reporter.advance(scalars)
                done += 1
                if done == wait:
                    reporter.stop()
                    self._show(wait, wait)
                shared = self.run.processes.mean({"stop": float(asked()), "seconds": self.clock.seconds})
                stop, over = shared["stop"] > 0, self._over(shared["seconds"])
                if over and done < self.steps:
                    scalars |= self._validation(done)
                last = over or done == self.steps
                if done % every.log_every == 0 or last or done == 1:
                    self.keeper.record(done, {**scalars, "seconds": round(self.clock.seconds, 3)})
                if done % every.checkpoint_every == 0 or last or stop:
                    self.keeper.save(done, state)
                if stop and not last:
                    reporter.stop()
                    raise KeyboardInterrupt(f"after step {done}, which is saved")
        reporter.stop()
        self.updates = max(done - wait, 0)
        if over:
            reporter.message(f"{self.title}: {self.updates} updates in {self.clock.seconds:.0f} s")
        for trainee in self.trainees:
            if trainee.ema is not None:
                trainee.ema.copy_to(trainee.learner.network)
        self.result.learner.network.eval()
        return self.curve.values

    def release(self) -> None:
        """Give up what only training needs: gradients, AdamW's numbers and averages. The networks stay."""
        for trainee in self.trainees:
            trainee.optimiser.zero_grad(set_to_none=True)
            trainee.optimiser.state.clear()
            trainee.ema = None

    def _activations(self) -> AbstractContextManager[None]:
        """Whether blocks keep their activations or compute them again."""
        if not self.training.activation_checkpointing:
            return nullcontext()
        return recomputing([trainee.learner.network for trainee in self.trainees])

    def _over(self, seconds: float) -> bool:
        """Whether the time that the run may take is spent."""
        return 0 < self.training.seconds <= seconds

    def _show(self, done: int, wait: int) -> None:
        """Start a bar: for the ``wait`` warm-up steps of the result, or for the ``training.steps`` after them."""
        if done < wait:
            self.run.reporter.start(f"{self.title}: warm-up", wait, done)
        else:
            steps = 0 if self.training.seconds else self.training.steps  # 0: nobody knows how many
            self.run.reporter.start(self.title, steps, done - wait)

    def step(self, step: int) -> dict[str, float]:
        """All updates of one step; returns the scalars that show its health, the same on all processes.

        Every other learner learns from all slices before the result learns from any. Only one graph is held at a time,
        that of the last slice; the other slices are drawn again for the result, from the same stream.
        """
        *others, result = self.trainees
        learns = step >= result.learner.warmup
        result.learner.network.train(learns)
        slices = self._slices(step)
        held = {s.number: self._batch(s, learns and s is slices[-1]) for s in slices} if others else {}
        scalars = self._rounds(others, step, slices, lambda slice: held[slice.number])
        for slice in slices[:-1]:
            held.pop(slice.number, None)
        if learns and others:  # the slice whose graph was kept goes first, so that its memory is free for the next
            scalars |= self._rounds([result], step, slices[::-1], partial(self._again, held))
        elif learns:
            scalars |= self._rounds([result], step, slices, partial(self._batch, graph=True))
        done = step + 1
        every = self.objective.validate_every if isinstance(self.objective, Validated) else 0
        due = every and (done % every == 0 or done == self.steps)
        return self.run.processes.mean(scalars) | (self._validation(done) if due else {})

    def _rounds(
        self, trainees: Sequence[Trainee], step: int, slices: Sequence[Slice], draw: Callable[[Slice], Any]
    ) -> dict[str, float]:
        """The updates of a step, one of each trainee in turn. The scalars of each trainee's last update are kept."""
        wait, scalars = self.result.learner.warmup, dict[str, float]()
        due = [due_updates(trainee.learner, wait, step) for trainee in trainees]
        for turn in range(max(map(len, due), default=0)):
            for trainee, numbers in zip(trainees, due, strict=True):
                if turn < len(numbers):
                    scalars |= self._update(trainee, numbers[turn], slices, draw)
        return scalars

    def _update(
        self, trainee: Trainee, number: int, slices: Sequence[Slice], draw: Callable[[Slice], Any]
    ) -> dict[str, float]:
        """One update of one network, on all slices of this process."""
        learner, is_result = trainee.learner, trainee is self.result
        trainee.optimiser.zero_grad(set_to_none=True)  # losses of other learners may have left gradients here
        mode = learner.network.training  # the result's, where this is another learner of its network
        learner.network.train()
        found = [self._gradients(learner, draw(slice), replace(slice, update=number)) for slice in slices]
        learner.network.train(mode)
        lr = learner.optimiser.rate(number, total_updates(learner, self.result.learner.warmup, self.training.steps))
        self.parallel.reduce(trainee.parameters)
        norm = apply_gradients(trainee.optimiser, learner.optimiser, lr)
        if trainee.ema is not None:
            trainee.ema.update(learner.network)
        own = {"gradient_norm": norm, "lr": lr} if is_result else {f"{learner.name}_gradient": norm}
        return mean_scalars(found) | own

    def _gradients(self, learner: Learner, batch: Any, slice: Slice) -> Scalars:
        """Add the gradients of one slice to the learner's."""
        with self.parallel.phase(learner.network):
            with self._layers(slice, learner.name, slice.update), self.run.autocast(), torch.enable_grad():
                terms = checked_terms(self.objective.loss(learner.name, batch, slice), learner.name)
            (terms.loss / self.training.accumulate).backward()
        return terms.scalars

    def _slices(self, step: int) -> list[Slice]:
        processes, cut = self.run.processes, self.training.accumulate
        numbers = processes.slices(cut)
        total = processes.size * cut
        return [Slice(step, n, total, n == numbers[0], stream=self.stream(step, n)) for n in numbers]

    def _batch(self, slice: Slice, graph: bool) -> Any:
        with (
            self.parallel.phase(),
            self._layers(slice),
            self.run.autocast(),
            torch.set_grad_enabled(graph),
        ):
            return self.objective.batch(slice)

    def _layers(self, slice: Slice, *names: str | int) -> AbstractContextManager[None]:
        """What layers draw by themselves, as dropout does, from a stream of the slice."""
        return seeded(self.run.seed, "layers", slice.step, slice.number, *names, device=self.run.device)

    def _again(self, held: dict[int, Any], slice: Slice) -> Any:
        """The batch of a slice with its graph: the kept one, or one drawn again from the same stream."""
        if slice.number in held:
            return held.pop(slice.number)
        return self._batch(replace(slice, stream=self.stream(slice.step, slice.number)), graph=True)

    @torch.no_grad()
    def _validation(self, done: int) -> dict[str, float]:
        """The validation loss after so many steps, where the objective has one."""
        if not isinstance(self.objective, Validated):
            return {}
        if done not in self.curve.values:
            with ExitStack() as stack:
                for trainee in self.trainees:
                    stack.enter_context(averaged(trainee))
                stack.enter_context(self.parallel.phase())
                self.curve.values[done] = self.objective.validate()
        return {"validation_loss": self.curve.values[done]}


def checked_learners(learners: Sequence[Learner]) -> Sequence[Learner]:
    """Raise InputError for learners that the engine cannot train or tell apart by name."""
    names = [learner.name for learner in learners]
    if not names:
        raise InputError("the objective has no learner: its last learner is the result of the run.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two learners of the objective are called {twice[0]!r}: their checkpoints need two names.")
    taken = [name for name in names if name in RESERVED or name.removesuffix("_optimiser").removesuffix("_ema") != name]
    if taken:
        raise InputError(f"a learner cannot be called {taken[0]!r}: a checkpoint uses that name for another file.")
    for learner in learners:
        if not learner.learnt:
            raise InputError(f"the learner {learner.name!r} has no parameter that requires a gradient.")
    owners: dict[int, str] = {}
    for learner in learners:
        for name, parameter in learner.learnt.items():
            if (owner := owners.setdefault(id(parameter), learner.name)) != learner.name:
                raise InputError(
                    f"the learners {owner!r} and {learner.name!r} both train {name}: give each the names of its own "
                    "parameters, Learner(..., only=...)."
                )
    if learners[-1].updates != 1:
        raise InputError(f"the result {names[-1]!r} must make one update per step, not {learners[-1].updates}.")
    return learners


def due_updates(learner: Learner, wait: int, step: int) -> range:
    """Numbers of the updates that a learner makes in a step: one during the result's warm-up, then ``updates``.

    wait: warm-up of the result, in steps.
    """
    if step < learner.warmup:
        return range(0)
    if step < wait:
        return range(step - learner.warmup, step - learner.warmup + 1)
    together = max(wait, learner.warmup)
    first = together - learner.warmup + (step - together) * learner.updates
    return range(first, first + learner.updates)


def total_updates(learner: Learner, wait: int, steps: int) -> int:
    """Length of the learner's schedule, in updates, if the result makes ``steps`` updates after its warm-up."""
    together = max(wait, learner.warmup)
    return together - learner.warmup + (wait + steps - together) * max(learner.updates, 1)


def unfinished_warmups(learners: Sequence[Learner], wait: int, steps: int) -> list[str]:
    """A sentence on each learner whose learning rate still rises when the run ends."""
    return [
        f"the learning rate of {learner.name} rises through the whole run: its warm-up has "
        f"{learner.optimiser.warmup} updates and the run {made}. A critic's is objective.critic.lr_warmup."
        for learner in learners
        if learner.updates and learner.optimiser.warmup >= (made := total_updates(learner, wait, steps)) > 1
    ]


def mean_scalars(found: Sequence[Scalars]) -> dict[str, float]:
    """Mean of every scalar over the slices that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for scalars in found:
        for name, value in scalars.items():
            values[name].append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}
