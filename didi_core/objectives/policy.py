"""The policy-gradient objective of DiDi-Instruct and its relatives, put together from its parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.divergences import divergence
from didi_core.diffusion.heads import distinct_trunk, token_statistics
from didi_core.diffusion.laws import law
from didi_core.diffusion.masking import step_log_p
from didi_core.diffusion.schedules import schedule
from didi_core.objectives.advantage import grouped_advantage, integral_weight, policy_loss
from didi_core.objectives.rewards import BothRewards, Corrupted, LogRatioReward, Reward, SampleReward, corrupt
from didi_core.objectives.rollout import Call, Rollout, roll_out, rollout_times
from didi_core.objectives.settings import ObjectiveSettings
from didi_core.types import Denoiser


@dataclass(frozen=True)
class Episode:
    """What the student did in one batch: its rollout, and per row the coupled time's share alpha and its weight."""

    rollout: Rollout
    alpha: Float[Tensor, "B"]
    weight: Float[Tensor, "B"]


@dataclass(frozen=True)
class Terms:
    """The loss to minimise and the scalars that tell a run's health."""

    loss: Float[Tensor, ""]
    scalars: dict[str, float]


def play(
    student: Denoiser, template: Int[Tensor, "B L"], settings: ObjectiveSettings, stream: torch.Generator
) -> Episode:
    """One rollout of the student from an all-masked template. The rows of a group share their times."""
    times = schedule(settings.schedule)
    group = settings.baseline.group
    shares, tau, density = rollout_times(settings.rollout, template.shape[0] // group, times, stream)
    if not settings.reward.coupled:
        tau = torch.empty_like(tau).uniform_(settings.rollout.low, settings.rollout.high, generator=stream)
        density = torch.ones_like(tau) / (settings.rollout.high - settings.rollout.low)
    weighting = settings.weighting
    weight = integral_weight(tau, times, weighting.low, weighting.high) if weighting.omega else torch.ones_like(tau)
    if weighting.divide_by_density:
        weight = weight / density.clamp_min(1e-3)
    rollout = roll_out(
        student,
        template,
        shares.repeat_interleave(group, 0).to(template.device),
        law(settings.rollout.law),
        stream,
        settings.rollout.branches,
        settings.rollout.trained,
    )
    per_row = torch.stack([times.alpha(tau), weight]).float().repeat_interleave(group, 1).to(template.device)
    return Episode(rollout, per_row[0], per_row[1])


def advantages(
    rewards: Float[Tensor, "M B"], settings: ObjectiveSettings
) -> tuple[Float[Tensor, "B"], Float[Tensor, "M B"]]:
    """Advantage of each prefix over its group, and of each completion over its siblings (or its group, without any)."""
    rules = settings.baseline
    options = {"normalise": rules.normalise, "leave_one_out": rules.leave_one_out, "clip": rules.clip}
    prefix = grouped_advantage(rewards.mean(0), rules.group, **options)  # type: ignore[arg-type]
    if rewards.shape[0] == 1:
        return prefix, prefix[None]
    branch = grouped_advantage(rewards.T.reshape(-1), rewards.shape[0], **options)  # type: ignore[arg-type]
    return prefix, branch.view(rewards.shape[1], rewards.shape[0]).T


def student_terms(
    student: Denoiser,
    teacher: Denoiser,
    reward: Reward,
    episode: Episode,
    settings: ObjectiveSettings,
    stream: torch.Generator,
) -> Terms:
    """Policy loss with its anchor for one batch of rollouts, per free position, and the scalars that tell its
    health."""
    branches = episode.rollout.completions.shape[0]
    flat = episode.rollout.completions.flatten(0, 1)
    noised = corrupt(flat, episode.alpha.repeat(branches), student.vocabulary, stream)
    anchor = torch.zeros(3, device=flat.device)  # sums of divergence, entropy, the teacher's entropy
    log_p, counted = [], 0
    calls = episode.rollout.calls
    for i, call in enumerate(calls):
        if not call.trained:
            continue
        after = episode.rollout.completions if i == len(calls) - 1 else calls[i + 1].tokens[None]
        revealed, sums, n = _call_statistics(student, teacher, call, after, settings)
        log_p.append(revealed)
        anchor, counted = anchor + sums, counted + n
    policy, scalars = _policy(student, reward, episode, noised, log_p, settings)
    kl, spread, teacher_spread = anchor / max(counted, 1)
    loss = policy + settings.anchor.kl * kl - settings.anchor.entropy * spread
    told = {"loss": loss, "policy": policy, "kl": kl, "entropy": spread, "teacher_entropy": teacher_spread}
    return Terms(loss, scalars | {name: float(value.detach()) for name, value in told.items()})


def _policy(
    student: Denoiser,
    reward: Reward,
    episode: Episode,
    noised: Corrupted,
    log_p: Sequence[Float[Tensor, "M B"]],
    settings: ObjectiveSettings,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The policy loss of whichever reward there is, or of both added up."""
    if isinstance(reward, BothRewards):
        whole, said = _policy(student, reward.scorer_reward, episode, noised, log_p, settings)
        ratio, told = _policy(student, reward.log_ratio, episode, noised, log_p, settings)
        renamed = {"token_advantage_spread": told["advantage_spread"]}
        return whole + settings.reward.ratio_weight * ratio, said | renamed
    if isinstance(reward, LogRatioReward) and settings.reward.credit != "sample":
        return _token_policy(student, reward, episode, noised, settings)
    return _sample_policy(student, reward, episode, noised, log_p, settings)  # type: ignore[arg-type]


def _sample_policy(
    student: Denoiser,
    reward: SampleReward,
    episode: Episode,
    noised: Corrupted,
    log_p: Sequence[Float[Tensor, "M B"]],
    settings: ObjectiveSettings,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """REINFORCE with the sequence's reward: every token it revealed answers for all of it (DiDi-Instruct, equation 12).

    The log-probability of a sample is divided by its number of free positions, so that weights mean the same for
    every length.
    """
    branches, batch, _ = episode.rollout.completions.shape
    rewards = reward.sample_reward(noised).view(branches, batch)
    free = student.vocabulary.maskable(episode.rollout.completions[0]).sum(1)
    prefix, branch = advantages(rewards, settings)
    policy = torch.zeros((), device=rewards.device)
    for i, revealed in enumerate(log_p):
        advantage = branch if i == len(log_p) - 1 else prefix[None]
        policy = policy + policy_loss(revealed / free, advantage * episode.weight)
    spreads = {"reward_spread": float(rewards.std()), "advantage_spread": float(branch.std())}
    return policy, {"reward": float(rewards.mean()), **spreads}


def _call_statistics(
    student: Denoiser, teacher: Denoiser, call: Call, after: Int[Tensor, "M B L"], settings: ObjectiveSettings
) -> tuple[Float[Tensor, "M B"], Float[Tensor, "3"], int]:
    """Log-probability of what a call revealed; over those positions, the sums of divergence to the teacher, entropy and
    the teacher's entropy; and their number.

    Positions are revealed without a look at the tokens, so their mean estimates the mean over all masked positions.
    """
    rows, columns = call.where.nonzero(as_tuple=True)
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
    student: Denoiser, reward: LogRatioReward, episode: Episode, noised: Corrupted, settings: ObjectiveSettings
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Policy loss with credit per token: each token answers for the log-ratio at its own position only.

    What a token does to the ratio of the *others* is left out, which biases the gradient but removes most of its noise.
    ``expected`` is for the last call alone: tokens revealed there do not see each other, so the context z_t stays what
    it is whichever of them had been drawn. Later calls answer to the tokens of earlier ones, which would make the
    expectation wrong (measured on the exact chain: it collapses), so those are left to the anchor and to the scorer.
    """
    branches, batch, _ = episode.rollout.completions.shape
    masked = noised.masked.view(branches, batch, -1)
    expected = settings.reward.credit == "expected"
    hidden = [part.view(branches, batch, *part.shape[1:]) for part in reward.hidden(noised)] if expected else []
    drawn = None if expected else reward.token_reward(noised).view(branches, batch, -1)
    total, gain, spread, count = torch.zeros((), device=noised.x.device), 0.0, 0.0, 0
    calls = episode.rollout.calls[-1:] if expected else [call for call in episode.rollout.calls if call.trained]
    for call, m in itertools.product(calls, range(branches)):
        where = call.where & masked[m]
        rows = where.nonzero(as_tuple=True)[0]
        if drawn is None:
            value, each = reward.expected(student, call.at(where), where, hidden[0][m], hidden[1][m])
            total = total - (episode.weight[rows] * value).sum()
            spread += float(each.sum())
        else:
            each = drawn[m][where]
            log_p = token_statistics(student, call.at(where), episode.rollout.completions[m][where][:, None]).log_p
            total = total - (episode.weight[rows] * (each - each.mean()) * log_p.squeeze(1)).sum()
            gain, spread = gain + float(each.sum()), spread + float((each - each.mean()).abs().sum())
        count += rows.numel()
    scalars = {"advantage_spread": spread / max(count, 1)} | ({} if expected else {"reward": gain / max(count, 1)})
    return total / max(count, 1), scalars
