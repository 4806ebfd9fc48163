"""Samplers behind one interface: what ``sampler=`` may name, and what plugins add to.

A sampler is a frozen dataclass. Its fields are its own settings (``options`` of the commands), and ``sample`` fills one
batch of templates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.catalogue import Catalogue
from didi_core.diffusion.laws import Law
from didi_core.errors import InputError
from didi_core.sampling.ancestral import Sampled, TokenRule, ancestral, first_hitting
from didi_core.sampling.autoregressive import CausalGenerator
from didi_core.sampling.reparameterised import reparameterised
from didi_core.sampling.rgas import GuidanceSettings, rgas
from didi_core.types import Denoiser, Scorer


@dataclass(frozen=True)
class Job:
    """One batch to fill. A sampler uses what it needs of it.

    template: masks at the positions to fill; everything else is pinned and must come back as it was.
    shares: share of the free positions revealed after each of the k steps, ascending to 1. law: which ones together.
    generator: where all randomness comes from. scorer: of the distillation; None where there is none.
    progress: called after every denoiser call.
    """

    denoiser: Denoiser
    template: Int[Tensor, "B L"]
    shares: Float[Tensor, "k"]
    law: Law
    generator: torch.Generator
    rule: TokenRule = field(default_factory=TokenRule)
    scorer: Scorer | None = None
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    precision: str = "exact"
    progress: Callable[[], None] | None = None


class Sampler(Protocol):
    """A way of filling templates.

    needs_scorer: it cannot run without the scorer of a distillation, so a teacher's row is not asked for it.
    stepwise: it makes k calls by the grid; otherwise the number of calls follows from the length.
    uses_law: an unmasking law decides which positions are revealed together.
    """

    needs_scorer: ClassVar[bool]
    stepwise: ClassVar[bool]
    uses_law: ClassVar[bool]

    def sample(self, job: Job) -> Sampled:
        """Every mask of the template replaced by a token that may be generated; network calls counted."""
        ...


@dataclass(frozen=True)
class Ancestral:
    """``samplers.ancestral``: the factorised draw, by law and grid."""

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = True

    def sample(self, job: Job) -> Sampled:
        return ancestral(
            job.denoiser,
            job.template,
            shares=job.shares,
            law=job.law,
            rule=job.rule,
            precision=job.precision,
            generator=job.generator,
            progress=job.progress,
        )


@dataclass(frozen=True)
class FirstHitting:
    """``samplers.first_hitting``: one token a call, exact in law."""

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    uses_law: ClassVar[bool] = False

    def sample(self, job: Job) -> Sampled:
        return first_hitting(job.denoiser, job.template, rule=job.rule, generator=job.generator, progress=job.progress)


@dataclass(frozen=True)
class Rgas:
    """``guidance.rgas``: tilted by the scorer. Its settings are the commands' ``guidance``."""

    needs_scorer: ClassVar[bool] = True
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = True

    def sample(self, job: Job) -> Sampled:
        if job.scorer is None:
            raise InputError(
                "sampler=rgas needs the scorer of a distillation; this model has none. Use sampler=ancestral."
            )
        return rgas(
            job.denoiser,
            job.scorer,
            job.template,
            shares=job.shares,
            law=job.law,
            guidance=job.guidance,
            rule=job.rule,
            generator=job.generator,
            progress=job.progress,
        )


@dataclass(frozen=True)
class Autoregressive:
    """The sampler of a ``CausalGenerator``; no other network can be sampled with it."""

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    uses_law: ClassVar[bool] = False

    def sample(self, job: Job) -> Sampled:
        if not isinstance(job.denoiser, CausalGenerator):
            raise InputError(
                "sampler=autoregressive is for causal models: give evaluate autoregressive=<folder or hub id>, and "
                "another sampler for the denoisers."
            )
        return job.denoiser.fill(job.template, job.rule, job.generator, job.progress)


@dataclass(frozen=True)
class Dplm:
    """``reparameterised.reparameterised``: DPLM's own decoder, whose confidence decides which positions stay.

    resample: share of a sequence above which a token counts as overused and is drawn again; 1 for never.
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = False

    resample: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.resample <= 1:
            raise InputError(f"options.resample={self.resample} is out of range: it must be in (0, 1].")

    def sample(self, job: Job) -> Sampled:
        return reparameterised(
            job.denoiser,
            job.template,
            shares=job.shares,
            rule=job.rule,
            resample=self.resample,
            generator=job.generator,
            progress=job.progress,
        )


BUILT_IN: dict[str, type[Sampler]] = {
    "ancestral": Ancestral,
    "autoregressive": Autoregressive,
    "dplm": Dplm,
    "first_hitting": FirstHitting,
    "rgas": Rgas,
}
SAMPLERS: Catalogue[type[Sampler]] = Catalogue("sampler", BUILT_IN)
