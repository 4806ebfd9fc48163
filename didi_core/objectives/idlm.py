"""IDLM: the expected log-ratio of teacher and fake denoiser at an independent re-noising (arXiv 2602.19066).

The defaults are those of the released code: states from corrupted data, soft targets for the fake denoiser, the weight
1/t', one update of the fake denoiser for each of the student. ``rollout`` takes one call of the student's own rollouts
of 4, 8, ... calls instead, so that a few calls learn to correct each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.masking import mean_or_zero
from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError, positive
from didi_core.models.noise import has_first_blocks
from didi_core.objectives.anchor import AnchorSettings
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.by_call import OF_FIRST, ByCall, FirstSettings
from didi_core.objectives.coupled import CoupledNoise
from didi_core.objectives.few_calls import FewCalls, one_call
from didi_core.objectives.ratio import Completion, RatioObjective, Renoised, completed, drawn_nll, followed
from didi_core.objectives.rewards.base import CriticSettings, corrupt
from didi_core.objectives.states import States, StateSettings
from didi_core.training.objective import Objective, Slice
from didi_core.training.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Idlm(ObjectiveSettings):
    """The loss of ``ratio`` at z_t' ~ q(. | x) with an independent t' (IDLM).

    states: corrupted sequences to start from; not used with ``rollout``.
    rollout: start from the student's own states instead.
    coupling: how the blocks of the first call learn, for a student that has some. None: this loss alone.
    soft_targets: the fake denoiser learns from the student's distribution instead of a draw from it.
    inverse_time: the NELBO's weight: 1/t', at most ``weight_clip``, for the sum over the hidden positions, divided by
        the number of free ones. Otherwise the mean over the hidden positions counts equally at all times.
    low: smallest t'. clip: bound of the log-ratio.
    """

    schedule: str = "log_linear"
    states: StateSettings = field(default_factory=StateSettings)
    rollout: FewCalls | None = None
    soft_targets: bool = True
    inverse_time: bool = True
    weight_clip: float = 10.0
    low: float = 0.02
    clip: float = 8.0
    critic: CriticSettings = field(default_factory=lambda: CriticSettings(warmup=0))
    anchor: AnchorSettings = field(default_factory=lambda: AnchorSettings(kl=0.0))
    coupling: FirstSettings | None = None

    def __post_init__(self) -> None:
        if not 0 < self.low < 1:
            raise InputError(f"objective.low={self.low} is out of range: it must be between 0 and 1.")
        positive("objective.", clip=self.clip, weight_clip=self.weight_clip)

    def prepare(self, materials: Materials) -> Objective[Any]:
        """Raises InputError where blocks of the first call and ``coupling`` come without each other, or no data are."""
        own = has_first_blocks(materials.student)
        if own and self.coupling is not None:
            return self._by_call(self.coupling, materials)
        if own:
            raise InputError(
                "student.first_blocks=true: nothing here would train these blocks. Take objective=few_calls_coupled, "
                "where they learn from coupled noise."
            )
        if self.coupling is not None:
            raise InputError(
                "objective.coupling is how blocks of the first call learn, and this student has none. Set "
                "student.noise=2 student.noise_once=true student.first_blocks=true, or take objective=coupled, which "
                "trains all calls."
            )
        return self._made(materials, self.rollout)

    def check(self, training: TrainingSettings, processes: int) -> None:
        super().check(training, processes)
        if self.coupling is not None:
            self.coupling.training(training, processes)

    def _made(
        self, materials: Materials, rollout: FewCalls | None, name: str = "fake", begun: bool = False
    ) -> IdlmObjective:
        fake = materials.copy_of_teacher(name)
        states = None if rollout else States.of(self.states, materials, schedule(self.schedule))
        return IdlmObjective(
            materials, fake, self.critic, self.anchor, self.clip, self, states, rollout, begun, fake_name=name
        )

    def _by_call(self, coupling: FirstSettings, materials: Materials) -> ByCall:
        """The first call and the later ones apart, as far as rollouts have them.

        Raises:
            InputError: there are no rollouts, or none of more than one call.
        """
        later = tuple(calls for calls in self.rollout.calls if calls > 1) if self.rollout else ()
        if self.rollout is None or not later:
            raise InputError(
                "student.first_blocks=true: these blocks and those of later calls learn apart, so rollouts of more "
                "than one call are needed. Set objective.rollout.calls, to [1,4,8] for example."
            )
        made = self._made(materials, replace(self.rollout, calls=later), begun=True)
        own = replace(materials, training=coupling.training(materials.training, materials.run.processes.size))
        first = None
        if 1 in self.rollout.calls:  # one update of its fake denoiser is as good as two (docs/objectives.md)
            once = replace(self, critic=replace(self.critic, updates=min(self.critic.updates, 1)))
            first = once._made(own, replace(self.rollout, calls=(1,)), f"{OF_FIRST}fake")
        return ByCall(materials, coupling, CoupledNoise.of(coupling.rows, own), first, made)


@dataclass
class IdlmObjective(RatioObjective):
    """One call of the student, on corrupted data or on a state of its own rollout.

    rollout: the rollouts of ``rules``, or those of one half of the student's blocks.
    begun: whether the calls that are learnt from are never the first of a rollout.
    """

    rules: Idlm
    states: States | None
    rollout: FewCalls | None
    begun: bool = False

    def batch(self, slice: Slice) -> Completion:
        if self.states is None:
            assert self.rollout is not None, "without states there is a rollout"
            return one_call(self.materials, self.rollout, slice, self.begun)
        return completed(self.materials.student, self.states.draw(slice), slice.stream)

    def renoise(self, batch: Completion, stream: torch.Generator) -> Renoised:
        times = self.rules.low + (1 - self.rules.low) * torch.rand(len(batch.x), generator=stream, device=stream.device)
        noised = corrupt(batch.x, 1 - times, self.fake.vocabulary, stream)
        found = Renoised(noised.zt, noised.masked, torch.ones_like(times).to(batch.x.device), times.to(batch.x.device))
        if not self.rules.inverse_time:
            return found
        counted = (found.masked & batch.masked).sum(1)  # what the mean over positions divides by
        return replace(found, weight=self.rates(found) * counted / self.free(batch))

    def rates(self, noised: Renoised) -> Float[Tensor, "B"]:
        """1/t' of each row, clipped."""
        assert noised.time is not None, "re-noised at a time"
        return (1 / noised.time).clamp_max(self.rules.weight_clip)

    def free(self, batch: Completion) -> Int[Tensor, "B"]:
        """Number of tokens of each row that may be hidden."""
        return self.fake.vocabulary.written(batch.x).sum(1).clamp_min(1)

    def fake_loss(self, batch: Completion, noised: Renoised) -> Float[Tensor, ""]:
        if not self.rules.soft_targets:
            return drawn_nll(self.fake, batch, noised)
        losses, rows = followed(self.fake, self.materials.student, batch, noised)
        if not self.rules.inverse_time:
            return mean_or_zero(losses)
        return (losses * self.rates(noised)[rows]).sum() / self.free(batch).sum()

    def record(self) -> Mapping[str, Any]:
        rollout = self.rules.rollout
        return self.rules.for_card() | (rollout.for_card() if rollout else {})
