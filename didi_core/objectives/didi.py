"""DiDi-Instruct and relatives: rollout x rewards x baseline x anchor, and a weighting in time (arXiv 2509.25035)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Int
from torch import Tensor

from didi_core.diffusion.schedules import schedule
from didi_core.domain.conditioning import draw_templates
from didi_core.errors import InputError, at_least, counted, unknown
from didi_core.objectives.base import Materials, check_entropy
from didi_core.objectives.policy import Episode, PolicySettings, draw_episode, student_terms
from didi_core.objectives.reference import Reference
from didi_core.objectives.rewards import Entry, Reward, make_rewards, read_rewards
from didi_core.objectives.rewards.base import Context, CriticSettings
from didi_core.streams import generator
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms
from didi_core.training.settings import TrainingSettings
from didi_core.types import Denoiser, Domain

REFERENCES = ("teacher", "data")


@dataclass(frozen=True, kw_only=True)
class Didi(PolicySettings):
    """One composition of the parts; ``configs/objective/didi.yaml`` and its relatives are such compositions.

    The gradient of the integral KL divergence in score-function form is

        E_{x ~ p_nu, t ~ pi, z_t ~ q(.|x)} [ omega(t) / pi(t) * R(z_t, t) * grad log p_nu(x) ]

    with the reward R = log q_nu(z_t) - log q_theta(z_t) up to sign (DiDi-Instruct, equation 12).

    reference: what the scorer calls real: the ``teacher``'s samples or ``data``.
    reference_samples, reference_steps: number of teacher samples that are made and kept, and calls for each.
    reward: the list of rewards (``didi_core.objectives.rewards``). each_reward: settings for all that have them.
    critic: how the networks of rewards learn.
    """

    reference: str = "teacher"
    reference_samples: int = 512
    reference_steps: int = 64
    reward: Any = "scorer"
    each_reward: Mapping[str, Any] = field(default_factory=dict)
    critic: CriticSettings = field(default_factory=CriticSettings)

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            raise unknown("reference", self.reference, REFERENCES, "objective.reference")
        at_least(1, "objective.", reference_samples=self.reference_samples, reference_steps=self.reference_steps)
        schedule(self.schedule)
        self.rewards  # noqa: B018  # raises for a wrong one before anything is made

    @cached_property
    def rewards(self) -> tuple[Entry, ...]:
        """The entries of ``reward``."""
        return read_rewards(self.reward, self.critic, self.each_reward)

    def resolved(self) -> dict[str, Any]:
        """The keys as they were read; rewards are a list, in whatever form they were given."""
        listed = [
            {"kind": entry.kind, "weight": entry.weight, **asdict(entry.critic), **asdict(entry.rule)}  # type: ignore[call-overload]
            for entry in self.rewards
        ]
        by_entry = ("reward", "each_reward", "critic")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in by_entry}
        return {k: asdict(v) if is_dataclass(v) else v for k, v in values.items()} | {"reward": listed}  # type: ignore[arg-type]

    def check(self, training: TrainingSettings, processes: int) -> None:
        """Raise InputError for slices that are not whole groups."""
        rows, group = training.slice_size(processes), self.baseline.group
        if rows % group:
            raise InputError(
                f"objective.baseline.group={group} must divide the batch: got {training.batch_size} samples in "
                f"{counted(training.accumulate * processes, 'slice')} of {rows}. "
                f"Set objective.baseline.group to a divisor of {rows}."
            )

    def prepare(self, materials: Materials) -> DidiObjective:
        self.check(materials.training, materials.run.processes.size)

        def reference() -> Reference:
            if self.reference == "data":
                return materials.data()
            return materials.kept_samples(self.reference_samples, self.reference_steps)

        rewards = make_rewards(self.rewards, Context(materials, self.critic, reference))
        return DidiObjective(self, materials, materials.student, materials.frozen, rewards)


@dataclass
class DidiObjective(Objective[Episode]):
    """The objective of one distillation. The networks of its rewards learn before the student does."""

    rules: Didi
    materials: Materials
    student: Denoiser
    teacher: Denoiser
    rewards: Sequence[tuple[Reward, float]]

    @cached_property
    def critics(self) -> list[tuple[Entry, Reward, Learner]]:
        """The rewards whose networks learn, each with its entry in the list and its learner."""
        listed = zip(self.rules.rewards, (reward for reward, _ in self.rewards), strict=True)
        return [(entry, reward, learner) for entry, reward in listed if (learner := reward.critic()) is not None]

    def learners(self) -> list[Learner]:
        """The networks of rewards, then the student, which starts after the longest of their warm-ups."""
        wait = max((entry.critic.warmup for entry, _, _ in self.critics), default=0)
        return [*(learner for _, _, learner in self.critics), self.materials.student_learner(wait)]

    def batch(self, slice: Slice) -> Episode:
        """The student's rollouts, with their graph where gradients are enabled."""
        run, group = self.materials.run, self.rules.baseline.group
        template = group_template(run.domain, self.materials.slice_size, group, run.seed, slice)
        return draw_episode(self.student, template.to(run.device), self.rules, slice.stream)

    def loss(self, learner: str, batch: Episode, slice: Slice) -> Terms:
        for _, reward, critic in self.critics:
            if critic.name == learner:
                return reward.critic_loss(batch.samples, batch.alpha_of_samples, slice)
        return student_terms(
            self.student,
            self.teacher,
            self.rewards,
            batch,
            self.rules,
            slice.stream,
            self.materials.run.domain.decode,
        )

    def check(self, step: int, scalars: Scalars) -> None:
        check_entropy(step, scalars, self.materials.collapse)

    def record(self) -> Mapping[str, Any]:
        return {
            "schedule": self.rules.schedule,
            "reference": self.rules.reference,
            "reward": [{"kind": entry.kind, "weight": entry.weight} for entry in self.rules.rewards],
            **self.rules.rollout.for_card(),
        }


def group_template(domain: Domain, batch: int, group: int, seed: int, slice: Slice) -> Int[Tensor, "B L"]:
    """Templates from the domain's prior, one a group: its samples share a length, and what is given."""
    drawn = draw_templates(domain, "train", batch // group, generator(seed, "lengths", slice.step, slice.number))
    return drawn.repeat_interleave(group, 0)
