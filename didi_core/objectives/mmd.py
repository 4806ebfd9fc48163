"""MDLM-MMD: match the student's completions to data in the features of the frozen teacher (arXiv 2610.06648).

One student call on corrupted data gives G candidates of b samples each. The reward of a candidate is a kernel
two-sample statistic: attraction between the features of its tokens and those of the true sequence, minus repulsion
among its own samples, which keeps them varied. The baseline of the policy gradient is the mean of the other candidates.
There is no anchor, no critic and no entropy bonus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.heads import draw_tokens, token_statistics
from didi_core.diffusion.masking import mean_or_zero
from didi_core.diffusion.noise import noisy_trunk
from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.states import FromStates, State, States, StateSettings
from didi_core.streams import generator
from didi_core.training.objective import Slice, Terms
from didi_core.types import LayeredDenoiser


@dataclass(frozen=True, kw_only=True)
class Mmd(ObjectiveSettings):
    """REINFORCE with the reward of ``reward`` below and a leave-one-out baseline over candidates (MDLM-MMD).

    candidates, samples: G candidates of b samples each, for every state.

    layers: blocks of the teacher, counted from 1, whose output states are the features; the rewards of layers add up.
    kernel: c in k(a, b) = exp(-c |a - b|^2). 0: for each layer, one over the median squared distance of the teacher's
        features on reference sequences (the paper uses 2e-5 and gives no rule).
    positions: largest number of masked positions of a row, chosen at random, in the statistic; 0 for all.
    block: number of positions of a block; every block gets a reward of its own (for long texts). 0 for whole rows.
    """

    candidates: int = 4
    samples: int = 2
    layers: tuple[int, ...] = (2,)
    kernel: float = 0.0
    positions: int = 64
    block: int = 0
    schedule: str = "log_linear"
    states: StateSettings = field(default_factory=StateSettings)

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise InputError(
                f"objective.candidates={self.candidates} is out of range: each is compared with the others, so it must "
                "be at least 2."
            )
        if self.samples < 2:
            raise InputError(f"objective.samples={self.samples} is out of range: repulsion needs at least 2 samples.")
        if not self.layers or min(self.layers) < 1 or len(set(self.layers)) < len(self.layers):
            raise InputError(
                f"objective.layers={list(self.layers)} is out of range: name one block or more once, counted from 1."
            )
        if not 0 <= self.kernel < float("inf"):
            raise InputError(
                f"objective.kernel={self.kernel} is out of range: it must be positive, or 0 for the median rule."
            )
        for name in ("positions", "block"):
            if (value := getattr(self, name)) < 0 or value == 1:
                raise InputError(f"objective.{name}={value} is out of range: it must be 0 or at least 2.")

    def prepare(self, materials: Materials) -> MmdObjective:
        teacher = materials.frozen
        if not isinstance(teacher, LayeredDenoiser):
            raise InputError(
                f"objective=mmd reads the blocks of the teacher, and a {type(teacher).__name__} has none. Choose "
                "another objective."
            )
        if max(self.layers) > teacher.depth:
            raise InputError(
                f"objective.layers={list(self.layers)}: the teacher has {teacher.depth} blocks. Choose 1 to "
                f"{teacher.depth}."
            )
        return MmdObjective(materials, States.of(self.states, materials, schedule(self.schedule)), self, teacher)


@dataclass
class MmdObjective(FromStates):
    """One student call on corrupted sequences; its G b completions are scored in the teacher's features."""

    rules: Mmd
    teacher: LayeredDenoiser

    @cached_property
    def kernels(self) -> list[float]:
        """The kernel constant c of each layer."""
        if self.rules.kernel:
            return [self.rules.kernel] * len(self.rules.layers)
        run = self.materials.run
        x0 = self.states.source.batch(0, self.materials.training.batch_size)[:16].to(run.device)
        real = run.domain.vocabulary.maskable(x0)
        stream = generator(run.seed, "median")
        return [1 / median_distance(layer[real], stream) for layer in self.features(x0)]

    def features(self, tokens: Int[Tensor, "B L"]) -> list[Float[Tensor, "B L D"]]:
        """The teacher's states after each of the layers, in fp32."""
        with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
            return [layer.float() for layer in self.teacher.after_blocks(tokens, self.rules.layers)]

    def loss(self, learner: str, batch: State, slice: Slice) -> Terms:
        rules, student = self.rules, self.materials.student
        hidden = noisy_trunk(student, batch.xt, slice.stream)[batch.masked]
        many = rules.candidates * rules.samples
        with torch.no_grad():
            drawn = torch.stack([draw_tokens(student, hidden, slice.stream) for _ in range(many)], dim=1)
        units = Units.of(batch.masked, rules.block, rules.positions, slice.stream)
        rewards = self.rewards(batch, drawn, units)
        advantage = rewards - (rewards.sum(0) - rewards) / (rules.candidates - 1)
        log_p = token_statistics(student, hidden, drawn).log_p.view(-1, rules.candidates, rules.samples).sum(2)
        unit = units.of_position[batch.masked]
        known = unit >= 0
        weight = advantage.T[unit[known]]
        loss = -(weight * log_p[known]).sum() / max(int(known.sum()) * many, 1)
        spread = advantage.std() if len(units.rows) else mean_or_zero(advantage)
        scalars = {"loss": loss, "reward": mean_or_zero(rewards), "advantage_spread": spread}
        return Terms(loss, scalars)

    def rewards(self, batch: State, drawn: Int[Tensor, "N M"], units: Units) -> Float[Tensor, "G U"]:
        """Reward of each candidate in each unit, summed over the layers."""
        rules = self.rules
        many = [batch.xt.masked_scatter(batch.masked, column) for column in drawn.T]
        real = self.features(batch.x0)
        total = torch.zeros(rules.candidates, len(units.rows), device=batch.xt.device)
        made = [[units.take(layer) for layer in self.features(sample)] for sample in many]
        for i, c in enumerate(self.kernels):
            target = units.take(real[i])
            for g in range(rules.candidates):
                own = [made[g * rules.samples + s][i] for s in range(rules.samples)]
                total[g] += reward(target, torch.stack(own), units.valid, c)
        return total

    def record(self) -> Mapping[str, Any]:
        return {"kernel": self.kernels, **{k: v for k, v in self.rules.for_card().items() if k != "kernel"}}


@dataclass(frozen=True)
class Units:
    """The groups of masked positions that get a reward: rows or blocks of rows with at least two masked positions.

    rows: the row of each unit. columns, valid: up to P of its masked positions; entries that are not valid are padding.
    of_position: the unit of every position, -1 for none.
    """

    rows: Int[Tensor, "U"]
    columns: Int[Tensor, "U P"]
    valid: Bool[Tensor, "U P"]
    of_position: Int[Tensor, "B L"]

    @classmethod
    def of(cls, masked: Bool[Tensor, "B L"], block: int, positions: int, stream: torch.Generator) -> Units:
        batch, length = masked.shape
        width = min(block, length) if block else length
        blocks = -(-length // width)
        padded = torch.nn.functional.pad(masked, (0, blocks * width - length)).view(batch * blocks, width)
        keys = torch.rand(padded.shape, generator=stream, device=stream.device).to(masked.device)
        most = min(positions or width, width)
        chosen = keys.masked_fill(~padded, -1).topk(most, dim=1)
        enough = padded.sum(1) >= 2
        rows = torch.arange(batch, device=masked.device).repeat_interleave(blocks)[enough]
        start = (torch.arange(blocks, device=masked.device) * width).repeat(batch)[enough]
        columns = (chosen.indices[enough] + start[:, None]).clamp_max(length - 1)
        number = torch.full((batch * blocks,), -1, device=masked.device)
        number[enough] = torch.arange(len(rows), device=masked.device)
        place = torch.arange(length, device=masked.device) // width
        return cls(rows, columns, chosen.values[enough] >= 0, number.view(batch, blocks)[:, place])

    def take(self, values: Float[Tensor, "B L D"]) -> Float[Tensor, "U P D"]:
        """The values at the positions of every unit."""
        return values[self.rows[:, None], self.columns]


def reward(
    real: Float[Tensor, "U P D"], made: Float[Tensor, "b U P D"], valid: Bool[Tensor, "U P"], c: float
) -> Float[Tensor, "U"]:
    """Attraction to the real features minus repulsion among the samples (MDLM-MMD), over the n valid positions.

    2 / (b n^2) sum_bij k(real_i, made_bj)  -  1 / (b (b - 1) n (n - 1)) sum_{b != b', i != j} k(made_bi, made_b'j)
    """
    samples, n = len(made), valid.sum(1)
    pairs = (valid[:, :, None] & valid[:, None]).float()
    apart = pairs * ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    attraction = sum((kernel(real, one, c) * pairs).sum((1, 2)) for one in made)
    repulsion = sum(
        (kernel(made[s], made[t], c) * apart).sum((1, 2)) for s in range(samples) for t in range(samples) if s != t
    )
    return 2 * attraction / (samples * n * n) - repulsion / (samples * (samples - 1) * n * (n - 1))


def kernel(a: Float[Tensor, "U P D"], b: Float[Tensor, "U Q D"], c: float) -> Float[Tensor, "U P Q"]:
    """exp(-c |a_i - b_j|^2)."""
    return torch.exp(-c * torch.cdist(a, b).square())


def median_distance(features: Float[Tensor, "N D"], stream: torch.Generator, most: int = 1024) -> float:
    """Median squared distance between different rows; at most ``most`` rows are compared.

    Raises:
        InputError: the features are equal at all positions.
    """
    chosen = features[torch.randperm(len(features), generator=stream)[:most].to(features.device)]
    distances = torch.pdist(chosen).square()
    if not distances.numel() or float(distances.median()) <= 0:
        raise InputError("the teacher's features are equal at all positions: set objective.kernel or objective.layers.")
    return float(distances.median())
