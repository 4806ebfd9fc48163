"""Distil a teacher into a few-step student: reward network first, then the student, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from didi_core.errors import InputError
from didi_core.objectives.policy import play, student_terms
from didi_core.objectives.settings import ObjectiveSettings
from didi_core.optimiser import EMA, adamw, apply_gradients
from didi_core.random import generator
from didi_core.rewards import Reward
from didi_core.training.loop import Collapse, Keeper, Reporter, Scalars, check_finite, run_steps
from didi_core.training.pretrain import autocast
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
        part = self.training.batch_size // self.training.accumulate
        group = self.objective.baseline.group
        if part % group:
            raise InputError(
                f"objective.baseline.group={group} must divide the batch: got {self.training.batch_size} samples in "
                f"{self.training.accumulate} part(s) of {part}. Set objective.baseline.group to a divisor of {part}."
            )
        if not 0 <= self.collapse < 1:
            raise InputError(f"collapse={self.collapse} is out of range: it must be in [0, 1).")


def check_health(collapse: float) -> object:
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
) -> None:
    """Train ``student`` in place (and the reward's network); it ends with its averaged weights, in eval mode."""
    device = device or torch.device("cpu")
    objective, training = settings.objective, settings.training
    teacher.to(device).eval().requires_grad_(False)
    student.to(device)
    average, optimiser = EMA(student, training.ema), adamw(student.parameters(), training.optimiser)
    warmup, part = objective.reward.warmup, training.batch_size // training.accumulate
    reward_updates = warmup + training.steps * max(objective.reward.updates, 1)

    def one_step(step: int) -> dict[str, float]:
        learning = step >= warmup
        student.train(learning)
        gathered: dict[str, float] = {}
        for i in range(training.accumulate):
            template = group_template(domain, part, objective.baseline.group, seed, step, i).to(device)
            stream = generator(seed, "distill", step, i, device=device)
            with autocast(device, precision), torch.set_grad_enabled(learning):
                episode = play(student, template, objective, stream)  # type: ignore[arg-type]
            completions, branches = episode.rollout.completions.flatten(0, 1), objective.rollout.branches
            updates = objective.reward.updates if learning else 1
            for u in range(updates if i == training.accumulate - 1 or not learning else 0):
                index = step if not learning else warmup + (step - warmup) * updates + u
                with autocast(device, precision), torch.enable_grad():
                    rate = objective.reward.optimiser.rate(index, reward_updates)
                    gathered |= reward.update(completions, episode.alpha.repeat(branches), rate, index, stream)
            if learning:
                with autocast(device, precision):
                    terms = student_terms(student, teacher, reward, episode, objective, stream)  # type: ignore[arg-type]
                (terms.loss / training.accumulate).backward()
                for name, value in terms.scalars.items():
                    gathered[name] = gathered.get(name, 0.0) + value / training.accumulate
        if learning:
            rate = training.optimiser.rate(step - warmup, training.steps)
            gathered["gradient_norm"] = apply_gradients(optimiser, training.optimiser, rate)
            average.update(student)
        return gathered

    run_steps(
        one_step,
        {"student": student, "average": average, "optimiser": optimiser, **_parts(reward)},
        keeper,
        reporter,
        title="distill",
        steps=warmup + training.steps,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
        check=check_health(settings.collapse),  # type: ignore[arg-type]
    )
    average.copy_to(student)
    student.eval()


def _parts(reward: Reward) -> Mapping:
    return reward.parts()


def group_template(domain: Domain, batch: int, group: int, seed: int, step: int, part: int) -> Int[Tensor, "B L"]:
    """All-masked sequences; the samples of a group have one length, drawn from the domain's prior."""
    lengths = domain.lengths(batch // group, generator(seed, "lengths", step, part))
    return domain.template([length for length in lengths for _ in range(group)])
