"""D-MMD, moment matching for discrete diffusion (arXiv 2603.20155): the log-ratio at a state shortly after z_t.

The times t and s < t lie close together. z_t comes from data, the student completes it to x, and z_s is drawn from the
bridge q(z_s | z_t, x): a masked position is revealed with probability (alpha_s - alpha_t) / (1 - alpha_t), which is
(t - s) / t on the log-linear schedule. A divergence also pulls the fake denoiser towards the teacher, which stabilises
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from didi_core.diffusion.divergences import forward_kl
from didi_core.diffusion.heads import token_statistics
from didi_core.diffusion.masking import mean_or_zero, reveal_probability
from didi_core.diffusion.schedules import schedule
from didi_core.errors import at_least, positive
from didi_core.objectives.anchor import AnchorSettings
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.ratio import Completion, RatioObjective, Renoised, completed
from didi_core.objectives.rewards.base import CriticSettings
from didi_core.objectives.states import States, StateSettings
from didi_core.training.objective import Slice


@dataclass(frozen=True, kw_only=True)
class Dmmd(ObjectiveSettings):
    """The loss of ``ratio`` at z_s ~ q(z_s | z_t, x) (D-MMD).

    calls: number k of calls that the student is trained for: t - s is uniform in (0, 1/k).
    pull: weight of the fake denoiser's divergence from the teacher. clip: bound of the log-ratio.
    """

    calls: int = 8
    pull: float = 1.0
    clip: float = 8.0
    schedule: str = "log_linear"
    states: StateSettings = field(default_factory=StateSettings)
    critic: CriticSettings = field(default_factory=lambda: CriticSettings(warmup=0))
    anchor: AnchorSettings = field(default_factory=lambda: AnchorSettings(kl=0.0))

    def __post_init__(self) -> None:
        at_least(1, "objective.", calls=self.calls)
        at_least(0, "objective.", pull=self.pull)
        positive("objective.", clip=self.clip)

    def prepare(self, materials: Materials) -> DmmdObjective:
        fake = materials.copy_of_teacher("fake")
        states = States.of(self.states, materials, schedule(self.schedule))
        return DmmdObjective(materials, fake, self.critic, self.anchor, self.clip, self, states)


@dataclass
class DmmdObjective(RatioObjective):
    """One call of the student on corrupted data, scored one step later."""

    rules: Dmmd
    states: States

    def batch(self, slice: Slice) -> Completion:
        return completed(self.materials.student, self.states.draw(slice), slice.stream)

    def renoise(self, batch: Completion, stream: torch.Generator) -> Renoised:
        assert batch.time is not None, "states from data have times"
        span = torch.rand(len(batch.x), generator=stream, device=stream.device).to(batch.x.device) / self.rules.calls
        alphas = map(self.states.schedule.alpha, (batch.time, (batch.time - span).clamp_min(0)))
        revealed = reveal_probability(*alphas)[:, None]
        keys = torch.rand(batch.x.shape, generator=stream, device=stream.device).to(batch.x.device)
        hidden = batch.masked & (keys >= revealed)
        last = keys.masked_fill(~batch.masked, -1).argmax(1, keepdim=True)  # one mask stays where there was any
        hidden = hidden.scatter(1, last, True) & batch.masked
        return Renoised(batch.x.masked_fill(hidden, self.fake.vocabulary.mask), hidden, torch.ones_like(batch.time))

    def fake_loss(self, batch: Completion, noised: Renoised) -> Float[Tensor, ""]:
        teacher, where = self.materials.frozen, noised.masked
        with torch.no_grad():
            theirs = teacher.trunk(noised.zt)[where]
        found = token_statistics(
            self.fake,
            self.fake.trunk(noised.zt)[where],
            batch.x[where][:, None],
            reference=teacher,
            reference_hidden=theirs,
            divergence=forward_kl,
        )
        return mean_or_zero(self.rules.pull * found.divergence - found.log_p.squeeze(1))

    def record(self) -> Mapping[str, Any]:
        return self.rules.for_card()
