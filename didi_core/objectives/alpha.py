"""AlphaDLM: a cross-entropy that prefers one compatible group of completions (arXiv 2609.38066). No teacher, no critic.

Let s be the mean of log p(x0_l | z_t) over the masked positions of a row. The loss is (1 - exp(k s)) / k. For k -> 0 it
is the cross-entropy -s; a larger k gives up completions that a factorised network cannot write together. The loss
sharpens the student, so compare its results only at matched entropy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.masking import mean_or_zero
from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.cross_entropy import masked_nll
from didi_core.objectives.states import FromStates, State, States, StateSettings
from didi_core.training.objective import Slice, Terms


@dataclass(frozen=True, kw_only=True)
class Alpha(ObjectiveSettings):
    """E[(1 - exp(k s)) / k] over states from data (AlphaDLM).

    k: how strongly one group of completions is preferred.
    normalise: divide the weights exp(k s), which are tiny, by their mean over the slice.
    """

    k: float = 1.0
    normalise: bool = True
    schedule: str = "log_linear"
    states: StateSettings = field(default_factory=StateSettings)

    def __post_init__(self) -> None:
        if not 0 < self.k < math.inf:
            raise InputError(f"objective.k={self.k} is out of range: it must be positive (k -> 0 is cross-entropy).")

    def prepare(self, materials: Materials) -> AlphaObjective:
        return AlphaObjective(materials, States.of(self.states, materials, schedule(self.schedule)), self)


@dataclass
class AlphaObjective(FromStates):
    """One student call on corrupted sequences."""

    rules: Alpha

    def loss(self, learner: str, batch: State, slice: Slice) -> Terms:
        nll = masked_nll(self.materials.student, batch.xt, batch.x0, slice.stream)
        mean = row_means(-nll, batch.masked.nonzero()[:, 0], len(batch.x0))[batch.masked.any(1)]
        loss = alpha_loss(mean, self.rules.k, self.rules.normalise)
        return Terms(loss, {"loss": loss, "nll": mean_or_zero(nll)})

    def record(self) -> Mapping[str, Any]:
        return {"k": self.rules.k, "normalise": self.rules.normalise, "states": asdict(self.rules.states)}


def row_means(values: Float[Tensor, "N"], rows: Int[Tensor, "N"], batch: int) -> Float[Tensor, "B"]:
    """Mean of the values of each row; zero for a row that has none."""
    counts = torch.bincount(rows, minlength=batch).clamp_min(1)
    return values.new_zeros(batch).index_add(0, rows, values) / counts


def alpha_loss(mean: Float[Tensor, "B"], k: float, normalise: bool = False) -> Float[Tensor, ""]:
    """(1 - exp(k s)) / k, averaged over rows (AlphaDLM).

    Its gradient is that of -s with the weight exp(k s). ``normalise`` divides these weights by their mean over the
    rows; then only the gradient is meaningful, not the value.
    """
    if not normalise:
        return mean_or_zero(-torch.expm1(k * mean) / k)
    weight = torch.softmax(k * mean.detach(), dim=0) * len(mean)
    return -mean_or_zero(weight * mean)
