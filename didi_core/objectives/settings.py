"""What a distillation objective is told. ``configs/objective/*.yaml`` are values of ``ObjectiveSettings``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from didi_core.config import build
from didi_core.diffusion.divergences import DIVERGENCES
from didi_core.errors import InputError, unknown
from didi_core.objectives.reward_kinds import REWARDS, RewardKind
from didi_core.objectives.rollout import RolloutSettings
from didi_core.training.optimiser import OptimiserSettings, checked

CREDITS = ("sample", "token", "expected")
REFERENCES = ("teacher", "data")


@dataclass(frozen=True)
class RewardSettings:
    """Where the reward comes from.

    kind: ``scorer`` (discriminator), ``log_ratio`` (teacher minus fake denoiser), ``both`` added up, or a plugin's.
    options: settings of its own, of a kind that has any.
    credit: of the log-ratio. ``sample`` gives every token its sequence's reward, as the scorer does; ``token`` each
    token its
        own; ``expected`` replaces the drawn token by the expectation over the vocabulary.
    ratio_weight: of the log-ratio's policy loss beside the scorer's, with ``both``.
    coupled: the corruption time is the rollout's tau; otherwise an independent uniform one.
    smoothing, clip: of the scorer's labels; of the reward.
    updates: updates of the reward's network per student update. warmup: such updates before the first one.
    trainable_blocks: last blocks of the scorer that learn (its norms and head always do). Zero: all of them.
    """

    kind: str = "scorer"
    credit: str = "sample"
    coupled: bool = True
    smoothing: float = 0.1
    clip: float = 8.0
    updates: int = 1
    warmup: int = 50
    ratio_weight: float = 1.0
    trainable_blocks: int = 4
    lr: float = 1e-4
    lr_warmup: int = 10
    lr_final: float = 0.0
    gradient_clip: float = 0.5
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        kind = self.make_kind()
        if self.credit not in CREDITS:
            raise unknown("credit", self.credit, CREDITS, "objective.reward.credit")
        if not self.ratio_weight >= 0:
            raise InputError(
                f"objective.reward.ratio_weight={self.ratio_weight} is out of range: it must not be negative."
            )
        if self.credit != "sample" and not kind.per_token:
            raise InputError(
                f"objective.reward.credit={self.credit} needs a reward per token: set objective.reward.kind=log_ratio "
                f"(got kind={self.kind}), or credit=sample."
            )
        if self.updates < 0 or self.warmup < 0:
            raise InputError("objective.reward.updates and warmup must not be negative.")
        checked("objective.reward", lambda: self.optimiser)
        if not 0 <= self.smoothing < 1:
            raise InputError(f"objective.reward.smoothing={self.smoothing} is out of range: it must be in [0, 1).")

    def make_kind(self) -> RewardKind:
        """The kind with its options. Raises InputError for one that is not there or has no such option."""
        return build(REWARDS.find(self.kind, "objective.reward.kind"), self.options, "objective.reward.options")

    @property
    def optimiser(self) -> OptimiserSettings:
        return OptimiserSettings(lr=self.lr, warmup=self.lr_warmup, final=self.lr_final, clip=self.gradient_clip)


@dataclass(frozen=True)
class BaselineSettings:
    """Grouped reward normalisation: samples per group, division by the spread, leave-one-out mean, clip."""

    group: int = 4
    normalise: bool = True
    leave_one_out: bool = False
    clip: float = 3.0

    def __post_init__(self) -> None:
        if self.group < 2:
            raise InputError(f"objective.baseline.group={self.group} is out of range: a group has at least 2 samples.")
        if not self.clip > 0:
            raise InputError(f"objective.baseline.clip={self.clip} is out of range: it must be positive.")


@dataclass(frozen=True)
class AnchorSettings:
    """What holds the student: divergence to the teacher at the visited states, and an entropy bonus; per token."""

    kl: float = 0.1
    divergence: str = "reverse"
    entropy: float = 0.0

    def __post_init__(self) -> None:
        if self.divergence not in DIVERGENCES:
            raise unknown("divergence", self.divergence, DIVERGENCES, "objective.anchor.divergence")
        if not self.kl >= 0:
            raise InputError(f"objective.anchor.kl={self.kl} is out of range: it must not be negative.")


@dataclass(frozen=True)
class WeightingSettings:
    """omega(t), clipped, and division by the density of tau; each can be switched off."""

    omega: bool = True
    low: float = 0.1
    high: float = 10.0
    divide_by_density: bool = False


@dataclass(frozen=True)
class ObjectiveSettings:
    """One composition: rollout x reward x baseline x anchor, and the weighting in time.

    reference: what the scorer calls real: the ``teacher``'s samples or ``data``.
    reference_samples, reference_steps: how many teacher samples are made and kept, in how many calls each.
    """

    name: str = "didi"
    reference: str = "teacher"
    reference_samples: int = 512
    reference_steps: int = 64
    schedule: str = "log_linear"
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    anchor: AnchorSettings = field(default_factory=AnchorSettings)
    weighting: WeightingSettings = field(default_factory=WeightingSettings)

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            raise unknown("reference", self.reference, REFERENCES, "objective.reference")
        if self.reference_samples < 1 or self.reference_steps < 1:
            raise InputError("objective.reference_samples and reference_steps must be at least 1.")
