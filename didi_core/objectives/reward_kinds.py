"""Rewards by name: what ``objective.reward.kind`` may say, and what plugins add to.

A kind of reward is a frozen dataclass. Its fields are its own settings (``objective.reward.options``), and ``make``
puts the reward together from the materials of a run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import nn

from didi_core.catalogue import Catalogue
from didi_core.objectives.rewards import BothRewards, LogRatioReward, Reference, Reward, ScorerReward
from didi_core.training.optimiser import OptimiserSettings


@dataclass(frozen=True)
class Materials:
    """What a reward may be made of. What costs something is a function, called by those who need it.

    teacher: frozen, on the device of the run; a copy of it is a denoiser to train.
    scorer: a fresh scorer on the same device. reference: what the objective calls real.
    optimiser, smoothing, clip: the settings of ``objective.reward``.
    """

    teacher: nn.Module
    scorer: Callable[[], nn.Module]
    reference: Callable[[], Reference]
    optimiser: OptimiserSettings
    smoothing: float = 0.1
    clip: float = 8.0


class RewardKind(Protocol):
    """How a reward is made. What it makes has ``update``, ``parts`` and ``sample_reward``.

    per_token: it makes a ``LogRatioReward`` (or a descendant), the only reward that knows ``objective.reward.credit``.
    """

    per_token: ClassVar[bool]

    def make(self, materials: Materials) -> Reward:
        """The reward of one run, before its first update."""
        ...


@dataclass(frozen=True)
class ScorerKind:
    """DiDi-Instruct's discriminator of student samples against the reference."""

    per_token: ClassVar[bool] = False

    def make(self, materials: Materials) -> ScorerReward:
        return ScorerReward(
            materials.scorer(),
            materials.reference(),
            materials.optimiser,
            smoothing=materials.smoothing,
            clip=materials.clip,
        )


@dataclass(frozen=True)
class LogRatioKind:
    """IDLM's teacher against a denoiser that follows the student, which starts as the teacher's copy."""

    per_token: ClassVar[bool] = True

    def make(self, materials: Materials) -> LogRatioReward:
        fake = copy.deepcopy(materials.teacher).requires_grad_(True)
        return LogRatioReward(materials.teacher, fake, materials.optimiser, materials.clip)  # type: ignore[arg-type]


@dataclass(frozen=True)
class BothKind:
    """The two side by side."""

    per_token: ClassVar[bool] = True

    def make(self, materials: Materials) -> BothRewards:
        return BothRewards(ScorerKind().make(materials), LogRatioKind().make(materials))


BUILT_IN: dict[str, type[RewardKind]] = {"scorer": ScorerKind, "log_ratio": LogRatioKind, "both": BothKind}
REWARDS: Catalogue[type[RewardKind]] = Catalogue("reward", BUILT_IN)
