"""The protocol of a reward, and what it scores: the student's samples, re-noised to the coupled time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from didi_core.diffusion.masking import forward_mask
from didi_core.errors import InputError
from didi_core.objectives.base import Materials
from didi_core.objectives.reference import Reference
from didi_core.training.objective import Learner, Slice, Terms
from didi_core.training.optimiser import RateSettings
from didi_core.types import Denoiser, Vocabulary


@dataclass(frozen=True)
class Corrupted:
    """Samples re-noised to the coupled time, one row per sample.

    x: the samples. zt: z_t ~ q(. | x). masked: where z_t is masked.
    time: t of each row. group: index of its group in the slice; rows of a group are compared with each other.
    decode: the domain's function from token ids to text.
    """

    x: Int[Tensor, "B L"]
    zt: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]
    time: Float[Tensor, "B"] | None = None
    group: Int[Tensor, "B"] | None = None
    decode: Callable[[Sequence[int]], str] | None = None

    @cached_property
    def texts(self) -> list[str]:
        """The samples as text, decoded once for all rewards. Raises InputError without a decoder."""
        if self.decode is None:
            raise InputError("a reward asks for text, but no decoder was given.")
        return [self.decode(row) for row in self.x.tolist()]


def corrupt(
    x: Int[Tensor, "B L"], alpha: Float[Tensor, "B"], vocabulary: Vocabulary, stream: torch.Generator
) -> Corrupted:
    """z_t ~ q(. | x), with at least one masked position per row, so that every sample gets a reward.

    Where x itself has masks they stay, and ``masked`` does not count them; a row of nothing else hides nothing.
    """
    free = vocabulary.written(x)
    zt = forward_mask(x, alpha.to(x.device), free, vocabulary.mask, stream)
    keys = torch.rand(x.shape, generator=stream, device=stream.device).to(x.device).masked_fill(~free, -1)
    hidden = free & (zt == vocabulary.mask)
    one, none = keys.argmax(1, keepdim=True), ~hidden.any(1, keepdim=True)
    hidden = hidden.scatter(1, one, (none & free.gather(1, one)) | hidden.gather(1, one))
    return Corrupted(x, x.masked_fill(hidden, vocabulary.mask), hidden)


class EveryToken(Protocol):
    """Scores [B, L, V] of every token that could stand at a masked position; only expectations of them are computed."""

    def expected(
        self,
        student: Denoiser,
        hidden: Float[Tensor, "N D"],
        rows: Int[Tensor, "N"],
        columns: Int[Tensor, "N"],
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Expected score at N positions under the student.

        Returns:
            the expectation, differentiable with respect to the student, and the standard deviation.
        """
        ...


Scores = Tensor | EveryToken


class Reward(Protocol):
    """Scores the student's samples. Subclass it; without ``critic``, nothing learns beside the student.

    name: its name in messages and scalars.
    """

    name: str

    def score(self, noised: Corrupted) -> Scores:
        """Scores, where higher is better. Gradients are off.

        Returns:
            [B], one score per sample; [B, L], one per token (zero where z_t is not masked); or an ``EveryToken``.
        """
        ...

    def critic(self) -> Learner | None:
        """The network that learns from the student's samples before the student does; None if there is none."""
        return None

    def critic_loss(self, samples: Int[Tensor, "B L"], alpha: Float[Tensor, "B"], slice: Slice) -> Terms:
        """The critic's loss on the student's samples, each re-noised to its own share alpha_t of visible tokens."""
        raise AssertionError(f"reward {self.name!r} has no critic to train")


@dataclass(frozen=True)
class CriticSettings(RateSettings):
    """How the networks of rewards learn.

    updates: number per update of the student. warmup: updates before the student's first.
    lr, lr_warmup, lr_final, gradient_clip: settings of AdamW, as in ``training``.
    """

    updates: int = 1
    warmup: int = 50
    lr: float = 1e-4
    lr_warmup: int = 10
    lr_final: float = 0.0
    gradient_clip: float = 0.5

    def __post_init__(self) -> None:
        for key in ("updates", "warmup"):
            if getattr(self, key) < 0:
                raise InputError(f"{key}={getattr(self, key)} is out of range: it must not be negative.")
        super().__post_init__()

    def learner(self, name: str, network: nn.Module) -> Learner:
        return Learner(name, network, self.optimiser, updates=self.updates)


@dataclass(frozen=True)
class Context:
    """The inputs of a reward.

    critic: how its network learns, if it has one. reference: returns what the objective calls real, made on demand.
    """

    materials: Materials
    critic: CriticSettings
    reference: Callable[[], Reference]


class RewardSettings(Protocol):
    """Settings registered under a reward's name: a frozen dataclass whose fields are its keys in the list."""

    def make(self, context: Context) -> Reward:
        """The reward of one run, made before its first update."""
        ...
