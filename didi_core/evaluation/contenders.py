"""What an evaluation compares: models with the settings of their samples, and the rules that hold for all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import nn

from didi_core.diffusion.grids import Curve
from didi_core.errors import InputError
from didi_core.evaluation.intervals import RESAMPLES
from didi_core.sampling.batching import Length
from didi_core.sampling.generate import SamplerSettings
from didi_core.storage.fingerprint import model_hash
from didi_core.types import Sample, Scorer


@dataclass(frozen=True, eq=False)
class Contender:
    """A model of an evaluation.

    plan: settings of its sets of samples; settings that differ only in temperature form a frontier.
    scorer: for samplers that need one. entropy_at: its NLL curve, for grids that need one.
    """

    denoiser: nn.Module
    plan: Sequence[SamplerSettings]
    scorer: Scorer | None = None
    entropy_at: Curve | None = None

    @cached_property
    def digest(self) -> str:
        """Hash of the denoiser, under which results are cached."""
        return model_hash(self.denoiser)

    @cached_property
    def scorer_digest(self) -> str:
        """Hash of the scorer; empty without one."""
        return model_hash(self.scorer)


@dataclass(frozen=True)
class Measuring:
    """How sets are drawn and measured, the same for every model of one evaluation.

    num: samples of each set and seed. num_at: other numbers of samples at some numbers of steps.
    seeds: their samples are pooled in one row.
    reference: natural samples that replace the domain's held-out ones.
    cache_dir: folder for samples and costly statistics (``<run>/evaluation``), which are then reused.
    """

    num: int
    num_at: Mapping[int, int] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    length: Length | None = None
    batch_size: int = 64
    reference: Sequence[Sample] = ()
    resamples: int = RESAMPLES
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds=[] is empty: give at least one seed.")

    def count(self, settings: SamplerSettings) -> int:
        """Number of samples of a set, for each seed."""
        return self.num_at.get(settings.calls or 0, self.num)
