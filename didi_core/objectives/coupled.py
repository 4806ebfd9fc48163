"""Coupled noise: a student's first call learns whole sequences, told apart by the noise that each is given.

The tokens of one call are independent, so a student without noise can only write a mixture of all kinds of sequences
from an empty one. Here every sequence x of a fixed set has a noise vector z of its own (``coupling``), and the loss is

    - E[ mean_l log p(x_l | all masked, z(x)) ]     in a share ``empty`` of the rows,
      E[ mean_l KL(p_teacher || p)(. | x_t, z) ]    in the others, with x_t ~ q(. | x) and a fresh z,

so that the first call writes one kind of sequence, whichever its noise chooses, and every other call stays the
teacher's. Both parts cover all that the teacher writes. It needs no rollouts and no second network. A student whose
first call has blocks of its own (``didi_core.models.noise``) needs no other rows: its later calls do not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.divergences import forward_kl
from didi_core.diffusion.heads import token_log_p, token_statistics
from didi_core.diffusion.masking import forward_mask, mean_or_zero
from didi_core.diffusion.noise import fresh_noise
from didi_core.diffusion.schedules import Schedule, antithetic_times, schedule
from didi_core.errors import InputError, at_least
from didi_core.objectives.alpha import row_means
from didi_core.objectives.base import Materials, ObjectiveSettings, check_entropy
from didi_core.objectives.coupling import coupled, mean_features
from didi_core.objectives.reference import SampleReference, trim
from didi_core.objectives.states import StateSettings, fixed_set
from didi_core.streams import generator
from didi_core.training.objective import Learner, Objective, Scalars, Slice, Terms
from didi_core.types import NoisyDenoiser


@dataclass(frozen=True)
class CouplingSettings:
    """The keys of ``objective.coupling``.

    empty: share of the rows that begin all masked, with the noise of their sequence. 1 where the first call has blocks
        of its own.
    group: sequences of about one length among which noise is shared out.
    schedule: of the other rows.
    states: the sequences, and the times of the other rows. With ``source=data`` they are the first ``samples`` of it.
    """

    empty: float = 0.5
    group: int = 64
    schedule: str = "log_linear"
    states: StateSettings = field(default_factory=lambda: StateSettings(source="teacher", samples=1024))

    def __post_init__(self) -> None:
        if not 0 < self.empty <= 1:
            raise InputError(f"objective.coupling.empty={self.empty} is out of range: above 0 and at most 1.")
        at_least(2, "objective.coupling.", group=self.group)
        schedule(self.schedule)


@dataclass(frozen=True)
class CoupledRows:
    """Rows of a slice: sequences x0, their states x_t with noise z, and which rows are all masked and coupled."""

    x0: Int[Tensor, "B L"]
    xt: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]
    noise: Float[Tensor, "B Z"]
    empty: Bool[Tensor, "B"]


@dataclass
class CoupledNoise:
    """Sequences that have noise of their own, and the loss by which a student learns from them."""

    rules: CouplingSettings
    materials: Materials
    source: SampleReference
    schedule: Schedule

    @classmethod
    def of(cls, rules: CouplingSettings, materials: Materials) -> CoupledNoise:
        """Raises InputError for a student that reads no noise, and where there is no data."""
        student = materials.student
        if not (isinstance(student, NoisyDenoiser) and student.noise_size):
            raise InputError(
                "coupled noise needs a student that reads noise: set student.noise, for example student.noise=2."
            )
        return cls(rules, materials, fixed_set(rules.states, materials), schedule(rules.schedule))

    @cached_property
    def vectors(self) -> Float[Tensor, "S Z"]:
        """The noise vector of each sequence. They follow from the teacher, the sequences and the seed of the run."""
        run, sequences = self.materials.run, self.source.sequences
        with torch.no_grad():
            features = mean_features(self.materials.frozen, sequences.to(run.device), self.materials.slice_size)
        drawn = self._fresh(sequences, generator(run.seed, "coupling"))
        sizes = run.domain.vocabulary.maskable(sequences).sum(1)
        made = coupled(features, sizes, self.rules.group, drawn) if run.processes.first else None
        found = run.processes.broadcast(made)
        assert found is not None, "the first process has made it"
        return found.to(run.device)

    def _fresh(self, tokens: Int[Tensor, "B L"], stream: torch.Generator) -> Float[Tensor, "B Z"]:
        """Noise that belongs to no sequence."""
        drawn = fresh_noise(self.materials.student, tokens, stream)
        assert drawn is not None, "checked when this was made"
        return drawn

    def draw(self, slice: Slice) -> CoupledRows:
        """The rows of one slice. Sequences and times are drawn for the whole batch and then cut."""
        run, size = self.materials.run, self.materials.training.batch_size
        vocabulary, states = run.domain.vocabulary, self.rules.states
        chosen = slice.of(self.source.indices(slice.step, size))
        unit = slice.of(antithetic_times(size, generator(run.seed, "states", slice.step))).to(run.device)
        empty = unit >= 1 - self.rules.empty
        time = states.low + (states.high - states.low) * unit / max(1 - self.rules.empty, 1e-9)
        alpha = self.schedule.alpha(time.clamp_max(1)).masked_fill(empty, 0.0)
        x0 = trim(self.source.sequences[chosen], vocabulary.pad).to(run.device)
        xt = forward_mask(x0, alpha, vocabulary.maskable(x0), vocabulary.mask, slice.stream)
        noise = torch.where(empty[:, None], self.vectors[chosen.to(run.device)], self._fresh(x0, slice.stream))
        return CoupledRows(x0, xt, xt == vocabulary.mask, noise, empty)

    def loss(self, batch: CoupledRows) -> Terms:
        """Cross-entropy with coupled noise where all is masked, and divergence from the teacher elsewhere."""
        student, teacher = self.materials.student, self.materials.frozen
        assert isinstance(student, NoisyDenoiser), "checked when this was made"
        hidden = student.trunk(batch.xt, batch.noise)
        first, later = (batch.masked & rows[:, None] for rows in (batch.empty, ~batch.empty))
        nll = -token_log_p(student, hidden[first], batch.x0[first])
        if self.rules.empty == 1:
            loss = row_means(nll, first.nonzero()[:, 0], len(batch.x0)).mean()
            return Terms(loss, {"loss": loss, "nll": mean_or_zero(nll)})
        # Processes that share a sharded teacher call it together: one without such rows asks for others.
        asked = batch.empty if batch.empty.all() else ~batch.empty
        with torch.no_grad():
            wanted = teacher.trunk(batch.xt[asked])[later[asked]]
        found = token_statistics(
            student,
            hidden[later],
            batch.x0[later][:, None],
            reference=teacher,
            reference_hidden=wanted,
            divergence=forward_kl,
        )
        rows = torch.cat([where.nonzero()[:, 0] for where in (first, later)])
        loss = row_means(torch.cat([nll, found.divergence]), rows, len(batch.x0)).mean()
        measured = {"nll": nll, "kl": found.divergence, "entropy": found.entropy}
        measured["teacher_entropy"] = found.reference_entropy
        return Terms(loss, {"loss": loss} | {name: mean_or_zero(value) for name, value in measured.items()})


@dataclass(frozen=True, kw_only=True)
class Coupled(ObjectiveSettings):
    """The loss of coupled noise, and nothing else."""

    coupling: CouplingSettings = field(default_factory=CouplingSettings)

    def prepare(self, materials: Materials) -> CoupledObjective:
        return CoupledObjective(materials, CoupledNoise.of(self.coupling, materials))


@dataclass
class CoupledObjective(Objective[CoupledRows]):
    """The student alone learns."""

    materials: Materials
    noise: CoupledNoise

    def learners(self) -> list[Learner]:
        return [self.materials.student_learner()]

    def batch(self, slice: Slice) -> CoupledRows:
        return self.noise.draw(slice)

    def loss(self, learner: str, batch: CoupledRows, slice: Slice) -> Terms:
        return self.noise.loss(batch)

    def check(self, step: int, scalars: Scalars) -> None:
        check_entropy(step, scalars, self.materials.collapse)

    def record(self) -> Mapping[str, Any]:
        return {"coupling": asdict(self.noise.rules)}
