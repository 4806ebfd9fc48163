"""Rewards: estimates of log q_theta(z_t) - log q_nu(z_t) for what the student wrote, each with the network it learns
from.

``scorer`` is DiDi-Instruct's: a discriminator of student samples against reference samples. ``log_ratio`` is IDLM's:
the teacher against a second denoiser that follows the student ("fake"), which tells the ratio token by token and needs
no reference samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.diffusion.heads import expected_log_ratio, token_statistics
from didi_core.diffusion.masking import forward_mask, masked_mean
from didi_core.processes import WHOLE, Part
from didi_core.streams import generator
from didi_core.training.optimiser import OptimiserSettings, adamw, apply_gradients
from didi_core.types import Denoiser, Vocabulary


@dataclass(frozen=True)
class Corrupted:
    """Samples re-noised to the coupled time: z_t, where it is masked, and alpha_t, one row a sample."""

    x: Int[Tensor, "B L"]
    zt: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]


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


class Reference(Protocol):
    """What the scorer calls real, by batch number, so that a resumed run sees what an uninterrupted one sees."""

    def batch(self, index: int, n: int) -> Int[Tensor, "n L"]:
        """n sequences; the same for the same index."""
        ...


@dataclass(frozen=True)
class SampleReference:
    """Reference from a fixed set of sequences (the teacher's samples), drawn without replacement within a batch."""

    sequences: Int[Tensor, "S L"]
    seed: int
    pad: int | None

    def batch(self, index: int, n: int) -> Int[Tensor, "n L"]:
        order = torch.randperm(self.sequences.shape[0], generator=generator(self.seed, "reference", index))
        repeated = order.repeat(-(-n // order.numel()))[:n]
        return trim(self.sequences[repeated], self.pad)


@dataclass
class DataReference:
    """Reference from the domain's training data."""

    open: Callable[[int, int], Iterator[Tensor]]  # (batch size, first batch) -> batches
    _at: tuple[int, int] = (-1, -1)
    _batches: Iterator[Tensor] | None = None

    def batch(self, index: int, n: int) -> Int[Tensor, "n L"]:
        if self._batches is None or self._at != (index, n):
            self._batches = self.open(n, index)
        self._at = (index + 1, n)
        return next(self._batches)


def trim(tokens: Int[Tensor, "B L"], pad: int | None) -> Int[Tensor, "B M"]:
    """Columns that are padding in every row cut off."""
    if pad is None:
        return tokens
    return tokens[:, : int((tokens != pad).sum(1).max())]


class Reward(Protocol):
    """What learns from student samples and then rewards them: ``ScorerReward``, ``LogRatioReward`` or
    ``BothRewards``."""

    def update(
        self,
        samples: Int[Tensor, "B L"],
        alpha: Float[Tensor, "B"],
        rate: float,
        index: int,
        stream: torch.Generator,
        part: Part = WHOLE,
    ) -> dict[str, float]:
        """Update number ``index`` of the reward's own network, on student samples.

        It is called for each part of the batch in turn and takes its step at the last one (``part.last``), with
        gradients that ``part.average`` has made the same on all processes.
        """
        ...

    def parts(self) -> Mapping[str, object]:
        """What a checkpoint must hold: the network and its optimiser."""
        ...


class SampleReward(Protocol):
    """A reward that judges whole sequences."""

    def sample_reward(self, noised: Corrupted) -> Float[Tensor, "B"]:
        """Reward of each sequence, higher = more like the reference."""
        ...


def pad_together(first: Int[Tensor, "A L"], second: Int[Tensor, "B M"], pad: int | None) -> Int[Tensor, "C N"]:
    """Two batches under each other, the narrower one padded on the right."""
    width = max(first.shape[1], second.shape[1])
    if first.shape[1] == second.shape[1]:
        return torch.cat([first, second])
    if pad is None:
        raise ValueError("sequences of different lengths need a vocabulary with a pad token")
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[1]), value=pad) for part in (first, second)])


@dataclass
class ScorerReward:
    """The discriminator as reward (DiDi-Instruct, section 3.2): the mean logit over masked positions, clipped.

    reference: teacher samples or real data, as many rows a batch as there are student samples.
    """

    scorer: nn.Module
    reference: Reference
    settings: OptimiserSettings
    smoothing: float = 0.1
    clip: float = 8.0
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimiser = adamw(self.scorer.parameters(), self.settings)

    def update(
        self,
        samples: Tensor,
        alpha: Tensor,
        rate: float,
        index: int,
        stream: torch.Generator,
        part: Part = WHOLE,
    ) -> dict[str, float]:
        """Student samples against as many reference samples, re-noised at the same times, in one pass.

        The spectral norms are refined at the first part alone: once an update, into however many parts it is cut.
        """
        vocabulary: Vocabulary = self.scorer.vocabulary  # type: ignore[assignment]
        n = samples.shape[0]
        real = self.reference.batch(index, n * part.total)[part.number * n : (part.number + 1) * n].to(samples.device)
        both = pad_together(real, samples, vocabulary.pad)
        noised = corrupt(both, torch.cat([alpha[: real.shape[0]], alpha]), vocabulary, stream)
        labels = torch.arange(both.shape[0], device=both.device) < real.shape[0]
        self.scorer.train(part.first)
        loss, accuracy = scorer_loss(self.scorer(noised.zt), noised.masked, labels, self.smoothing)
        (loss / part.turns).backward()
        told = {"scorer_loss": float(loss.detach()), "scorer_accuracy": float(accuracy)}
        if part.last:
            told["scorer_gradient"] = apply_gradients(self.optimiser, self.settings, rate, part.average)
        return told

    @torch.no_grad()
    def sample_reward(self, noised: Corrupted) -> Tensor:
        self.scorer.eval()
        return masked_mean(self.scorer(noised.zt), noised.masked).clamp(-self.clip, self.clip)

    def parts(self) -> Mapping[str, object]:
        return {"scorer": self.scorer, "scorer_optimiser": self.optimiser}


@dataclass
class LogRatioReward:
    """Teacher minus fake: log p_theta(x_l | z_t) - log p_fake(x_l | z_t) at the masked positions (IDLM, arXiv
    2602.19066).

    ``fake`` is a denoiser trained on the student's samples by the same masked cross-entropy as the teacher on data, so
    the difference tells which tokens the student writes too often in that context.
    """

    teacher: Denoiser
    fake: nn.Module
    settings: OptimiserSettings
    clip: float = 8.0
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimiser = adamw(self.fake.parameters(), self.settings)

    def update(
        self,
        samples: Tensor,
        alpha: Tensor,
        rate: float,
        index: int,
        stream: torch.Generator,
        part: Part = WHOLE,
    ) -> dict[str, float]:
        """One masked cross-entropy step of the fake denoiser on student samples."""
        del index  # no reference samples are needed
        fake: Denoiser = self.fake  # type: ignore[assignment]
        noised = corrupt(samples, alpha, fake.vocabulary, stream)
        self.fake.train()
        hidden = fake.trunk(noised.zt)[noised.masked]
        loss = -token_statistics(fake, hidden, samples[noised.masked][:, None]).log_p.mean()
        (loss / part.turns).backward()
        told = {"fake_loss": float(loss.detach())}
        if part.last:
            told["fake_gradient"] = apply_gradients(self.optimiser, self.settings, rate, part.average)
        return told

    @torch.no_grad()
    def sample_reward(self, noised: Corrupted) -> Tensor:
        return self.token_reward(noised).sum(1) / noised.masked.sum(1)

    @torch.no_grad()
    def token_reward(self, noised: Corrupted) -> Float[Tensor, "B L"]:
        """The clipped log-ratio of each token that z_t hides, zero elsewhere."""
        self.fake.eval()
        tokens = noised.x[noised.masked][:, None]
        ratio = torch.zeros(noised.x.shape, device=noised.x.device)
        teacher_log_p = token_statistics(self.teacher, self.teacher.trunk(noised.zt)[noised.masked], tokens).log_p
        fake: Denoiser = self.fake  # type: ignore[assignment]
        fake_log_p = token_statistics(fake, fake.trunk(noised.zt)[noised.masked], tokens).log_p
        return ratio.masked_scatter(noised.masked, (teacher_log_p - fake_log_p).clamp(-self.clip, self.clip).squeeze(1))

    def parts(self) -> Mapping[str, object]:
        return {"fake": self.fake, "fake_optimiser": self.optimiser}

    def expected(
        self,
        student: Denoiser,
        hidden: Float[Tensor, "N D"],
        where: Bool[Tensor, "B L"],
        teacher_hidden: Float[Tensor, "B L E"],
        fake_hidden: Float[Tensor, "B L F"],
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Expected reward of the student's token at each position of ``where``, differentiable in the student."""
        fake: Denoiser = self.fake  # type: ignore[assignment]
        return expected_log_ratio(
            student, hidden, self.teacher, teacher_hidden[where], fake, fake_hidden[where], self.clip
        )

    @torch.no_grad()
    def hidden(self, noised: Corrupted) -> tuple[Float[Tensor, "B L E"], Float[Tensor, "B L F"]]:
        """Trunk states of teacher and fake at z_t."""
        self.fake.eval()
        return self.teacher.trunk(noised.zt), self.fake.trunk(noised.zt)  # type: ignore[operator]


@dataclass
class BothRewards:
    """Scorer and log-ratio side by side: each learns from the same student samples."""

    scorer_reward: ScorerReward
    log_ratio: LogRatioReward

    def update(
        self,
        samples: Tensor,
        alpha: Tensor,
        rate: float,
        index: int,
        stream: torch.Generator,
        part: Part = WHOLE,
    ) -> dict[str, float]:
        """One update of the scorer, then one of the fake denoiser."""
        told = self.scorer_reward.update(samples, alpha, rate, index, stream, part)
        return told | self.log_ratio.update(samples, alpha, rate, index, stream, part)

    def parts(self) -> Mapping[str, object]:
        return {**self.scorer_reward.parts(), **self.log_ratio.parts()}


def scorer_loss(
    logits: Float[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    real: Bool[Tensor, "B"],
    smoothing: float = 0.1,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Binary cross-entropy at masked positions, reference against student, each sequence counting the same.

    Returns:
        the loss, and the accuracy of the sequence-level call (sign of the mean logit), detached.
    """
    target = torch.where(real, 1 - smoothing / 2, smoothing / 2).to(logits.dtype)[:, None].expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    correct = ((masked_mean(logits.detach(), masked) > 0) == real).float().mean()
    return masked_mean(each, masked).mean(), correct
