"""The protocol of a reward, and what it judges: the student's samples, re-noised to the coupled time."""

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
from didi_core.training.optimiser import OptimiserSettings
from didi_core.types import Denoiser, Vocabulary


@dataclass(frozen=True)
class Corrupted:
    """Samples re-noised to the coupled time, one row a sample.

    x: the samples. zt: z_t ~ q(. | x). masked: where z_t is masked.
    time: t of each row. group: number of its group in the slice; rows of a group are compared with each other.
    decode: token ids to text, of the domain.
    """

    x: Int[Tensor, "B L"]
    zt: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]
    time: Float[Tensor, "B"] | None = None
    group: Int[Tensor, "B"] | None = None
    decode: Callable[[Sequence[int]], str] | None = None

    @cached_property
    def texts(self) -> list[str]:
        """The samples as text, decoded once for all rewards."""
        if self.decode is None:
            raise InputError("a reward asks for text, and nothing here can decode.")
        return [self.decode(row) for row in self.x.tolist()]


def corrupt(
    x: Int[Tensor, "B L"], alpha: Float[Tensor, "B"], vocabulary: Vocabulary, stream: torch.Generator
) -> Corrupted:
    """z_t ~ q(. | x) with at least one masked position a row, so that every sample has a reward."""
    maskable = vocabulary.maskable(x)
    zt = forward_mask(x, alpha.to(x.device), maskable, vocabulary.mask, stream)
    keys = torch.rand(x.shape, generator=stream, device=stream.device).to(x.device).masked_fill(~maskable, -1)
    none = ~(zt == vocabulary.mask).any(1)
    zt[none, keys.argmax(1)[none]] = vocabulary.mask
    return Corrupted(x, zt, zt == vocabulary.mask)


class EveryToken(Protocol):
    """Scores of every token that could stand at a masked position, [B, L, V], of which only expectations are built."""

    def expected(
        self,
        student: Denoiser,
        hidden: Float[Tensor, "N D"],
        rows: Int[Tensor, "N"],
        columns: Int[Tensor, "N"],
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Expectation under the student of the score at N positions, differentiable in it, and its spread."""
        ...


Scores = Tensor | EveryToken


class Reward(Protocol):
    """What judges the student's samples. Subclass it: without ``critic`` nothing learns beside the student.

    name: in messages and scalars.
    """

    name: str

    def score(self, noised: Corrupted) -> Scores:
        """Higher is better: [B], one score a sample; [B, L], one a token (zero where z_t is not masked); or a score of
        every token. Gradients are off."""
        ...

    def critic(self) -> Learner | None:
        """The network that learns from the student's samples, before the student does."""
        return None

    def critic_loss(self, samples: Int[Tensor, "B L"], alpha: Float[Tensor, "B"], slice: Slice) -> Terms:
        """What the critic minimises on the student's samples, at the share alpha_t of visible tokens of each."""
        raise AssertionError(f"reward {self.name!r} has no critic to train")


OF_ADAMW = {"lr": "lr", "warmup": "lr_warmup", "final": "lr_final", "clip": "gradient_clip"}


@dataclass(frozen=True)
class CriticSettings:
    """How the networks of rewards learn.

    updates: per update of the student. warmup: updates before the student's first.
    lr, lr_warmup, lr_final, gradient_clip: of AdamW, as in ``training``.
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
        try:
            self.optimiser  # noqa: B018  # refuse wrong rates before anything is made
        except InputError as error:
            key, _, rest = str(error).partition("=")
            raise InputError(f"{OF_ADAMW[key]}={rest}") from None

    @property
    def optimiser(self) -> OptimiserSettings:
        return OptimiserSettings(lr=self.lr, warmup=self.lr_warmup, final=self.lr_final, clip=self.gradient_clip)

    def learner(self, name: str, network: nn.Module) -> Learner:
        return Learner(name, network, self.optimiser, updates=self.updates)


@dataclass(frozen=True)
class Context:
    """What a reward may be made of.

    critic: how its network is to learn, if it has one. reference: what the objective calls real, made when called.
    """

    materials: Materials
    critic: CriticSettings
    reference: Callable[[], Reference]


class RewardSettings(Protocol):
    """What is registered under a reward's name: a frozen dataclass whose fields are its own keys in the list."""

    def make(self, context: Context) -> Reward:
        """The reward of one run, before its first update."""
        ...
