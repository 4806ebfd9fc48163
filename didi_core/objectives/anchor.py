"""The anchor, a KL penalty: divergence from the teacher at the states that the student visits, and an entropy bonus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.divergences import divergence
from didi_core.diffusion.heads import distinct_trunk, token_statistics
from didi_core.diffusion.masking import mean_or_zero
from didi_core.errors import InputError
from didi_core.types import Denoiser


@dataclass(frozen=True)
class AnchorSettings:
    """Loss per token: kl * divergence(student, teacher) - entropy * H(student), at the visited states.

    divergence: ``forward`` KL(teacher || student), ``reverse`` KL(student || teacher), or ``jeffreys``, their sum.
    """

    kl: float = 0.1
    divergence: str = "reverse"
    entropy: float = 0.0

    def __post_init__(self) -> None:
        divergence(self.divergence, "objective.anchor.divergence")
        if not self.kl >= 0:
            raise InputError(f"objective.anchor.kl={self.kl} is out of range: it must not be negative.")


@dataclass(frozen=True)
class Anchored:
    """Means over positions (nats): divergence from the teacher, the student's entropy, the teacher's entropy."""

    kl: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    teacher_entropy: Float[Tensor, ""]

    def loss(self, settings: AnchorSettings) -> Float[Tensor, ""]:
        return settings.kl * self.kl - settings.entropy * self.entropy

    @property
    def scalars(self) -> dict[str, Tensor]:
        return {"kl": self.kl, "entropy": self.entropy, "teacher_entropy": self.teacher_entropy}


def anchored(
    student: Denoiser,
    hidden: Float[Tensor, "N D"],
    teacher: Denoiser,
    tokens: Int[Tensor, "B L"],
    where: Bool[Tensor, "B L"],
    settings: AnchorSettings,
) -> Anchored:
    """The anchor at the N positions of ``where``; ``hidden`` are the student's hidden states of ``tokens`` there."""
    rows, columns = where.nonzero(as_tuple=True)
    with torch.no_grad():
        theirs, own = distinct_trunk(teacher, tokens)
    found = token_statistics(
        student,
        hidden,
        torch.zeros_like(rows)[:, None],
        reference=teacher,
        reference_hidden=theirs[own[rows], columns],
        divergence=divergence(settings.divergence),
    )
    return Anchored(*map(mean_or_zero, (found.divergence, found.entropy, found.reference_entropy)))
