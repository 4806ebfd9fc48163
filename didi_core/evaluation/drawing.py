"""Drawing the sets of samples of an evaluation: one rule for all models, timed after a warm-up, kept in a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from didi_core.evaluation.cache import SampleCache
from didi_core.progress import Reporter
from didi_core.sampling import autoregressive
from didi_core.sampling.generate import Generated, SamplerSettings, generate, parse_length
from didi_core.streams import generator
from didi_core.types import NFE, Domain

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Drawing:
    """How sets are drawn, the same for every model and setting of one evaluation."""

    domain: Domain
    counts: Callable[[SamplerSettings], int]
    seeds: tuple[int, ...]
    cache: SampleCache
    reporter: Reporter
    length: str | int | None
    batch_size: int
    _warm: set[str] = field(default_factory=set)

    def all_seeds(
        self,
        denoiser: nn.Module,
        scorer: nn.Module | None,
        settings: SamplerSettings,
        digests: tuple[str, str],
        curve: Curve | None,
    ) -> Generated:
        """The samples of every seed in one set; calls are means over it, seconds are summed."""
        parts = [self._one_seed(denoiser, scorer, settings, digests, curve, seed) for seed in self.seeds]
        share = 1 / len(parts)
        nfe = sum((NFE(p.nfe.denoiser * share, p.nfe.scorer * share) for p in parts), NFE())
        return Generated(
            [s for part in parts for s in part.samples],
            nfe,
            sum(part.seconds for part in parts),
            tuple(rate for part in parts for rate in part.rates),
        )

    def cost(self, settings: SamplerSettings) -> int:
        """Denoiser calls of all samples of all seeds, for the progress bar: what the time goes with."""
        calls = self.calls(settings)
        return self.counts(settings) * len(self.seeds) * calls

    def calls(self, settings: SamplerSettings) -> int:
        """Calls per sample: the steps; where one token is written at a time, about the mean length."""
        if settings.make().stepwise:
            return settings.steps
        lengths = parse_length(self.length, self.domain, 100, generator(0, "lengths"))
        return max(sum(lengths) // len(lengths), 1)

    def _one_seed(
        self,
        denoiser: nn.Module,
        scorer: nn.Module | None,
        settings: SamplerSettings,
        digests: tuple[str, str],
        curve: Curve | None,
        seed: int,
    ) -> Generated:
        num, calls = self.counts(settings), self.calls(settings)
        guided = settings.make().needs_scorer
        making = {
            "domain": self.domain.name,
            "model": digests[0],
            "scorer": digests[1] if guided else "",
            "settings": settings.record(),
            "curve": _rounded(curve) if settings.grid == "optimised" and curve else None,
            "num": num,
            "seed": seed,
            "lengths": self._lengths(num, seed),
            "batch_size": self.batch_size,
        }
        kept = self.cache.load(making)
        if kept is not None:
            self.reporter.advance(by=num * calls)
            return kept
        if digests[0] not in self._warm:  # allocators and kernels are set up outside the timing
            generate(
                self.domain, denoiser, settings=_short(settings), num=min(num, self.batch_size), seed=seed,
                length=self.length, batch_size=self.batch_size,
            )  # fmt: skip
            self._warm.add(digests[0])
        done = 0

        def progress(finished: int) -> None:
            nonlocal done
            self.reporter.advance(by=(finished - done) * calls)
            done = finished

        made = generate(
            self.domain, denoiser, scorer if guided else None, settings=settings, num=num, length=self.length,
            seed=seed, batch_size=self.batch_size, entropy_at=curve, progress=progress,
        )  # fmt: skip
        self.cache.save(making, made)
        return made

    def _lengths(self, num: int, seed: int) -> str:
        """Digest of the lengths to be drawn: they come from the domain's prior, which its data and settings decide."""
        lengths = parse_length(self.length, self.domain, num, generator(seed, "lengths"))
        return hashlib.sha256(json.dumps(lengths).encode()).hexdigest()


def _short(settings: SamplerSettings) -> SamplerSettings:
    """A warm-up: one call, unless the network can be sampled in its own way only."""
    return settings if settings.sampler == autoregressive.NAME else SamplerSettings(steps=1)


def _rounded(curve: Curve) -> str:
    shares = torch.linspace(0, 1, 17, dtype=torch.float64)
    return json.dumps([round(value, 9) for value in curve(shares).tolist()])
