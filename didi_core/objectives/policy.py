"""The policy-gradient loss of DiDi-Instruct and its relatives, composed of rollout, rewards, baseline and anchor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.divergences import divergence
from didi_core.diffusion.heads import distinct_trunk, token_log_p, token_statistics
from didi_core.diffusion.masking import step_log_p
from didi_core.diffusion.schedules import schedule
from didi_core.diffusion.walk import Call
from didi_core.errors import InputError
from didi_core.objectives.advantage import (
    BaselineSettings,
    WeightingSettings,
    grouped_advantage,
    integral_weight,
    policy_loss,
)
from didi_core.objectives.anchor import AnchorSettings
from didi_core.objectives.base import ObjectiveSettings
from didi_core.objectives.rewards.base import Corrupted, EveryToken, Reward, Scores, corrupt
from didi_core.objectives.rollout import Rollout, RolloutSettings, roll_out, rollout_times
from didi_core.training.objective import Collapse, Terms
from didi_core.types import Denoiser


@dataclass(frozen=True, kw_only=True)
class PolicySettings(ObjectiveSettings):
    """The parts of a policy gradient: rollout, baseline, anchor and weighting.

    coupled: the corruption time is the rollout's tau; otherwise it is uniform and independent.
    """

    schedule: str = "log_linear"
    coupled: bool = True
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    anchor: AnchorSettings = field(default_factory=AnchorSettings)
    weighting: WeightingSettings = field(default_factory=WeightingSettings)


@dataclass(frozen=True)
class Episode:
    """The student's rollout in one slice and, per row, the coupled time, its share alpha and its weight."""

    rollout: Rollout
    alpha: Float[Tensor, "B"]
    weight: Float[Tensor, "B"]
    time: Float[Tensor, "B"]

    @property
    def samples(self) -> Int[Tensor, "N L"]:
        """All completions, one branch after another."""
        return self.rollout.completions.flatten(0, 1)

    @property
    def alpha_of_samples(self) -> Float[Tensor, "N"]:
        return self.alpha.repeat(self.rollout.completions.shape[0])


def draw_episode(
    student: Denoiser, template: Int[Tensor, "B L"], settings: PolicySettings, stream: torch.Generator
) -> Episode:
    """One rollout of the student from an all-masked template. The rows of a group share their times."""
    times = schedule(settings.schedule)
    group = settings.baseline.group
    shares, tau, density = rollout_times(settings.rollout, template.shape[0] // group, times, stream)
    if not settings.coupled:
        tau = torch.empty_like(tau, device=stream.device)
        tau = tau.uniform_(settings.rollout.low, settings.rollout.high, generator=stream).cpu()
        density = torch.ones_like(tau) / (settings.rollout.high - settings.rollout.low)
    weighting = settings.weighting
    weight = integral_weight(tau, times, weighting.low, weighting.high) if weighting.omega else torch.ones_like(tau)
    if weighting.divide_by_density:
        weight = weight / density.clamp_min(1e-3)
    rollout = roll_out(
        student,
        template,
        shares.repeat_interleave(group, 0).to(template.device),
        settings.rollout.make_law(),
        stream,
        settings.rollout.branches,
        settings.rollout.trained,
    )
    per_row = torch.stack([times.alpha(tau), weight, tau]).float().repeat_interleave(group, 1).to(template.device)
    return Episode(rollout, *per_row)


def advantages(
    rewards: Float[Tensor, "M B"], settings: PolicySettings
) -> tuple[Float[Tensor, "B"], Float[Tensor, "M B"]]:
    """Advantages of one slice.

    Returns:
        the advantage of each prefix over its group, and of each completion over its siblings (over its group, where it
        has none).
    """
    rules = settings.baseline
    over_group = partial(
        grouped_advantage, normalise=rules.normalise, leave_one_out=rules.leave_one_out, clip=rules.clip
    )
    prefix = over_group(rewards.mean(0), rules.group)
    if rewards.shape[0] == 1:
        return prefix, prefix[None]
    branch = over_group(rewards.T.reshape(-1), rewards.shape[0])
    return prefix, branch.view(rewards.shape[1], rewards.shape[0]).T


def student_terms(
    student: Denoiser,
    teacher: Denoiser,
    rewards: Sequence[tuple[Reward, float]],
    episode: Episode,
    settings: PolicySettings,
    stream: torch.Generator,
    decode: Callable[[Sequence[int]], str] | None = None,
) -> Terms:
    """Policy loss and anchor of one slice of rollouts, per free position, and the scalars that show its health."""
    noised = judged(student, episode, settings, stream, decode)
    anchor = torch.zeros(3, device=noised.x.device)  # sums of divergence, entropy, the teacher's entropy
    log_p, counted = [], 0
    calls = episode.rollout.calls
    for i, call in enumerate(calls):
        if not call.trained:
            continue
        after = episode.rollout.completions if i == len(calls) - 1 else calls[i + 1].tokens[None]
        revealed, sums, n = _call_statistics(student, teacher, call, after, settings)
        log_p.append(revealed)
        anchor, counted = anchor + sums, counted + n
    policy, scalars = torch.zeros((), device=noised.x.device), dict[str, Tensor]()
    names = [reward.name for reward, _ in rewards]
    for i, (reward, weight) in enumerate(rewards):
        scores = checked_scores(reward, noised)
        loss, shown = _policy(student, scores, episode, noised, log_p, settings)
        policy = policy + weight * loss
        label = reward.name if names.count(reward.name) == 1 else f"{reward.name}_{i + 1}"
        scalars |= {name if i == 0 else f"{label}_{name}": value for name, value in shown.items()}
    kl, spread, teacher_spread = anchor / max(counted, 1)
    loss = policy + settings.anchor.kl * kl - settings.anchor.entropy * spread
    terms = {"loss": loss, "policy": policy, "kl": kl, "entropy": spread, "teacher_entropy": teacher_spread}
    return Terms(loss, scalars | terms)


def judged(
    student: Denoiser,
    episode: Episode,
    settings: PolicySettings,
    stream: torch.Generator,
    decode: Callable[[Sequence[int]], str] | None = None,
) -> Corrupted:
    """The samples of an episode, re-noised, with everything that a reward may read."""
    branches, batch, _ = episode.rollout.completions.shape
    noised = corrupt(episode.samples, episode.alpha_of_samples, student.vocabulary, stream)
    group = torch.arange(batch, device=noised.x.device) // settings.baseline.group
    return replace(noised, time=episode.time.repeat(branches), group=group.repeat(branches), decode=decode)


def checked_scores(reward: Reward, noised: Corrupted) -> Scores:
    """The scores of a reward, checked.

    Raises:
        InputError: the shape is neither one score per sample nor one per token.
        Collapse: a score is not finite.
    """
    with torch.no_grad():
        scores = reward.score(noised)
    if isinstance(scores, Tensor) and scores.shape not in (noised.x.shape[:1], noised.x.shape):
        b, length = noised.x.shape
        raise InputError(
            f"reward {reward.name!r} returned scores of shape {tuple(scores.shape)} for {b} samples of {length} "
            f"tokens: it must return ({b},), one per sample, or ({b}, {length}), one per token."
        )
    if isinstance(scores, Tensor) and not math.isfinite(float(scores.sum())):
        raise Collapse(
            f"reward {reward.name!r} returned a score that is not finite. The last checkpoint is intact. If it learns, "
            "lower its lr; then repeat with another run_dir."
        )
    return scores


def _policy(
    student: Denoiser,
    scores: Scores,
    episode: Episode,
    noised: Corrupted,
    log_p: Sequence[Float[Tensor, "M B"]],
    settings: PolicySettings,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The policy loss of one reward, which scores samples, their tokens, or every token of the vocabulary."""
    if not isinstance(scores, Tensor):
        return _expected_policy(student, scores, episode, noised)
    if scores.ndim == 2:
        return _token_policy(student, scores, episode, noised)
    return _sample_policy(student, scores, episode, log_p, settings)


def _sample_policy(
    student: Denoiser,
    scores: Float[Tensor, "N"],
    episode: Episode,
    log_p: Sequence[Float[Tensor, "M B"]],
    settings: PolicySettings,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """REINFORCE with the reward of the sequence: every token gets the same credit (DiDi-Instruct, equation 12).

    The log-probability of a sample is divided by its number of free positions, so that weights mean the same at every
    length.
    """
    branches, batch, _ = episode.rollout.completions.shape
    rewards = scores.view(branches, batch)
    free = student.vocabulary.maskable(episode.rollout.completions[0]).sum(1)
    prefix, branch = advantages(rewards, settings)
    policy = torch.zeros((), device=rewards.device)
    for i, revealed in enumerate(log_p):
        advantage = branch if i == len(log_p) - 1 else prefix[None]
        policy = policy + policy_loss(revealed / free, advantage * episode.weight)
    shown = {"reward": rewards.mean(), "reward_spread": rewards.std(), "advantage_spread": branch.std()}
    return policy, shown


def _call_statistics(
    student: Denoiser, teacher: Denoiser, call: Call, after: Int[Tensor, "M B L"], settings: PolicySettings
) -> tuple[Float[Tensor, "M B"], Float[Tensor, "3"], int]:
    """Statistics of one call at the positions that it revealed.

    The choice of positions does not depend on the tokens, so their mean estimates the mean over all masked positions.

    Returns:
        log-probability of the revealed tokens, per completion and row; sums over these positions of divergence from the
        teacher, entropy, and the teacher's entropy; and the number of positions.
    """
    rows, columns = call.places
    with torch.no_grad():
        hidden, own = distinct_trunk(teacher, call.tokens)
    statistics = token_statistics(
        student,
        call.hidden[call.own[rows], columns],
        after[:, rows, columns].T,
        reference=teacher,
        reference_hidden=hidden[own[rows], columns],
        divergence=divergence(settings.anchor.divergence),
    )
    batch = call.tokens.shape[0]
    log_p = torch.stack([step_log_p(column, rows, batch) for column in statistics.log_p.T])
    sums = [statistics.divergence.sum(), statistics.entropy.sum(), statistics.reference_entropy.sum()]
    return log_p, torch.stack(sums), rows.numel()


def _token_policy(
    student: Denoiser, scores: Float[Tensor, "N L"], episode: Episode, noised: Corrupted
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Policy loss with credit per token: each token gets only the score at its own position.

    The effect of a token on the scores of the *others* is left out, which biases the gradient but removes most of its
    noise.
    """
    branches, batch, _ = episode.rollout.completions.shape
    masked, drawn = noised.masked.view(branches, batch, -1), scores.view(branches, batch, -1)
    total, count = torch.zeros((), device=noised.x.device), 0
    gain = spread = torch.zeros((), dtype=torch.float64, device=noised.x.device)
    calls = [call for call in episode.rollout.calls if call.trained]
    for call, m in itertools.product(calls, range(branches)):
        where = call.where & masked[m]
        rows = where.nonzero(as_tuple=True)[0]
        each = drawn[m][where]
        log_p = token_log_p(student, call.at(where), episode.rollout.completions[m][where])
        total = total - (episode.weight[rows] * (each - each.mean()) * log_p).sum()
        gain, spread = gain + each.sum(), spread + (each - each.mean()).abs().sum()
        count += rows.numel()
    shown = {"advantage_spread": spread / max(count, 1), "reward": gain / max(count, 1)}
    return total / max(count, 1), shown


def _expected_policy(
    student: Denoiser, scores: EveryToken, episode: Episode, noised: Corrupted
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Policy loss with every token of the vocabulary, weighted by its probability, in place of the drawn token.

    It covers the last call only. Tokens revealed there do not see each other, so the context z_t would be the same
    whichever of them had been drawn. Earlier tokens do change what later calls write, so the expectation would be wrong
    there (on the exact chain it collapses); the anchor and the other rewards train the earlier calls.
    """
    branches, batch, _ = episode.rollout.completions.shape
    masked = noised.masked.view(branches, batch, -1)
    total, count, call = torch.zeros((), device=noised.x.device), 0, episode.rollout.calls[-1]
    spread = torch.zeros((), dtype=torch.float64, device=noised.x.device)
    for m in range(branches):
        where = call.where & masked[m]
        rows, columns = where.nonzero(as_tuple=True)
        value, each = scores.expected(student, call.at(where), rows + m * batch, columns)
        total = total - (episode.weight[rows] * value).sum()
        spread = spread + each.sum()
        count += rows.numel()
    return total / max(count, 1), {"advantage_spread": spread / max(count, 1)}
