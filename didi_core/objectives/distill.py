"""Distil a teacher into a few-step student: reward network first, then the student, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from didi_core.device import autocast
from didi_core.errors import InputError
from didi_core.objectives.policy import Episode, play, student_terms
from didi_core.objectives.rewards import Reward
from didi_core.objectives.settings import ObjectiveSettings
from didi_core.processes import Part, Processes
from didi_core.progress import Reporter
from didi_core.streams import generator
from didi_core.training.loop import Collapse, Keeper, Scalars, Stateful, check_finite, run_steps
from didi_core.training.optimiser import EMA, adamw, apply_gradients
from didi_core.training.settings import TrainingSettings
from didi_core.types import Domain


@dataclass(frozen=True)
class DistillSettings:
    """The objective, the rhythm, and when a run counts as collapsed.

    collapse: the run stops when the student's entropy falls below this fraction of the teacher's at the same states.
    """

    objective: ObjectiveSettings
    training: TrainingSettings
    collapse: float = 0.1

    def __post_init__(self) -> None:
        self.part()
        if not 0 <= self.collapse < 1:
            raise InputError(f"collapse={self.collapse} is out of range: it must be in [0, 1).")

    def part(self, processes: int = 1) -> int:
        """Samples that a process holds at a time, whole groups. Raises InputError where that cannot be."""
        part, group = self.training.part(processes), self.objective.baseline.group
        if part % group:
            raise InputError(
                f"objective.baseline.group={group} must divide the batch: got {self.training.batch_size} samples in "
                f"{self.training.accumulate * processes} part(s) of {part}. "
                f"Set objective.baseline.group to a divisor of {part}."
            )
        return part


def check_health(collapse: float) -> Callable[[int, Scalars], None]:
    """The check of every step: finite scalars, and entropy that has not collapsed."""

    def check(step: int, scalars: Scalars) -> None:
        check_finite(step, scalars)
        entropy, teacher = scalars.get("entropy"), scalars.get("teacher_entropy")
        if entropy is not None and teacher is not None and entropy < collapse * teacher:
            raise Collapse(
                f"step {step}: the student's entropy is {entropy:.4f} nats, under {collapse:g} of the teacher's "
                f"{teacher:.4f} at the same states: it has collapsed. The last checkpoint is intact. "
                "Raise objective.anchor.kl or objective.anchor.entropy, or lower training.lr; "
                "then repeat with another run_dir."
            )

    return check


@dataclass(frozen=True)
class Share:
    """A part of the batch in play: its rollouts, and the stream that they and what follows from them are drawn from."""

    episode: Episode
    stream: torch.Generator
    part: Part


@dataclass
class Distillation:
    """A distillation under way: the networks, what moves them, and ``step``, which is the whole of one update.

    Steps count from 0; the first ``objective.reward.warmup`` of them leave the student as it is. Each derives its
    randomness from its number, so that nothing else has to be kept for an exact resume.
    """

    domain: Domain
    teacher: nn.Module
    student: nn.Module
    reward: Reward
    settings: DistillSettings
    seed: int
    device: torch.device
    precision: str
    processes: Processes = field(default_factory=Processes)
    average: EMA = field(init=False)
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        training = self.settings.training
        self.settings.part(self.processes.size)
        self.average = EMA(self.student, training.ema)
        self.optimiser = adamw(self.student.parameters(), training.optimiser)

    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint must hold."""
        own = {"student": self.student, "average": self.average, "optimiser": self.optimiser}
        return {**own, **self.reward.parts()}  # type: ignore[dict-item]

    def step(self, step: int) -> dict[str, float]:
        """The reward's updates on fresh rollouts, then the student's; returns the scalars that tell health.

        The reward learns from all parts of the batch before the student learns from any. Only one part's graph is held
        at a time, so the others are played once more for the student, from the same stream.
        """
        training = self.settings.training
        learning = step >= self.settings.objective.reward.warmup
        self.student.train(learning)
        shares = [
            Share(self._play(step, part, learning and part.last, stream := self._stream(step, part)), stream, part)
            for part in self.processes.parts(training.accumulate)
        ]
        told = [self._update_reward(shares, step, learning)]
        if learning:
            told += [self._gradients(shares.pop(), step) for _ in range(training.accumulate)]
        scalars = self.processes.mean(mean_scalars(told))
        if learning:
            rate = training.optimiser.rate(step - self.settings.objective.reward.warmup, training.steps)
            average = self.processes.parts(1)[0].average
            scalars["gradient_norm"] = apply_gradients(self.optimiser, training.optimiser, rate, average)
            self.average.update(self.student)
        return scalars

    def _stream(self, step: int, part: Part) -> torch.Generator:
        return generator(self.seed, "distill", step, part.number, device=self.device)

    def _play(self, step: int, part: Part, graph: bool, stream: torch.Generator) -> Episode:
        """Rollouts of one part of the batch, with their graph where the student is to learn from them."""
        objective, size = self.settings.objective, self.settings.part(self.processes.size)
        template = group_template(self.domain, size, objective.baseline.group, self.seed, step, part.number)
        with autocast(self.device, self.precision), torch.set_grad_enabled(graph):
            return play(self.student, template.to(self.device), objective, stream)  # type: ignore[arg-type]

    def _update_reward(self, shares: Sequence[Share], step: int, learning: bool) -> dict[str, float]:
        """Every update of the reward's network that belongs to this step, on the student's new samples."""
        objective = self.settings.objective
        warmup, updates = objective.reward.warmup, objective.reward.updates
        total = warmup + self.settings.training.steps * max(updates, 1)
        first, count = (warmup + (step - warmup) * updates, updates) if learning else (step, 1)
        told: list[dict[str, float]] = []
        for index in range(first, first + count):
            rate, told = objective.reward.optimiser.rate(index, total), []
            for share in shares:
                completions = share.episode.rollout.completions.flatten(0, 1)
                alpha = share.episode.alpha.repeat(objective.rollout.branches)
                with autocast(self.device, self.precision), torch.enable_grad():
                    told.append(self.reward.update(completions, alpha, rate, index, share.stream, share.part))
        return mean_scalars(told)

    def _gradients(self, share: Share, step: int) -> dict[str, float]:
        """Add the gradients of one part of the batch to the student's."""
        episode = share.episode
        if not share.part.last:
            episode = self._play(step, share.part, True, self._stream(step, share.part))
        with autocast(self.device, self.precision):
            terms = student_terms(
                self.student,  # type: ignore[arg-type]
                self.teacher,  # type: ignore[arg-type]
                self.reward,
                episode,
                self.settings.objective,
                share.stream,
            )
        (terms.loss / share.part.turns).backward()
        return terms.scalars


def mean_scalars(told: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every scalar over those who tell it."""
    values: dict[str, list[float]] = {}
    for scalars in told:
        for name, value in scalars.items():
            values.setdefault(name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}


def distill(
    domain: Domain,
    teacher: nn.Module,
    student: nn.Module,
    reward: Reward,
    settings: DistillSettings,
    *,
    seed: int,
    keeper: Keeper,
    reporter: Reporter,
    device: torch.device | None = None,
    precision: str = "fp32",
    processes: Processes | None = None,
) -> None:
    """Train ``student`` in place (and the reward's network); it ends with its averaged weights, in eval mode.

    Args:
        processes: those that share every batch; each calls this with networks of the same weights.
    """
    device = device or torch.device("cpu")
    teacher.to(device).eval().requires_grad_(False)
    student.to(device)
    run = Distillation(
        domain, teacher, student, reward, settings, seed, device, precision, processes or Processes()
    )
    run_steps(
        run.step,
        run.parts(),
        keeper,
        reporter,
        title="distill",
        steps=settings.objective.reward.warmup + settings.training.steps,
        checkpoint_every=settings.training.checkpoint_every,
        log_every=settings.training.log_every,
        check=check_health(settings.collapse),
    )
    run.average.copy_to(student)
    student.eval()


def group_template(domain: Domain, batch: int, group: int, seed: int, step: int, part: int) -> Int[Tensor, "B L"]:
    """All-masked sequences; the samples of a group have one length, drawn from the domain's prior."""
    lengths = domain.lengths(batch // group, generator(seed, "lengths", step, part))
    return domain.template([length for length in lengths for _ in range(group)])
