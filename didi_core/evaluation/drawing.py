"""Drawing the sets of samples of an evaluation: one rule for all models, timed after a warm-up, and cached."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch

from didi_core.diffusion.grids import Curve
from didi_core.domain.conditioning import own_templates
from didi_core.evaluation.cache import SampleCache
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.run import Run
from didi_core.sampling import autoregressive
from didi_core.sampling.batching import parse_length
from didi_core.sampling.generate import Generated, SamplerSettings, generate
from didi_core.sampling.sharing import Sharing
from didi_core.storage.fingerprint import json_hash
from didi_core.streams import generator
from didi_core.types import NFE


@dataclass(frozen=True)
class Drawing:
    """Draws sets of samples in the same way for every model and setting of one evaluation."""

    run: Run
    how: Measuring
    _warm: set[str] = field(default_factory=set)

    def all_seeds(self, model: Contender, settings: SamplerSettings) -> Generated:
        """The samples of every seed in one set; calls are means over it, seconds are sums."""
        made = [self._one_seed(model, settings, seed) for seed in self.how.seeds]
        share = 1 / len(made)
        nfe = sum((NFE(one.nfe.denoiser * share, one.nfe.scorer * share) for one in made), NFE())
        return Generated(
            [sample for one in made for sample in one.samples],
            nfe,
            sum(one.seconds for one in made),
            tuple(rate for one in made for rate in one.rates),
        )

    def kept(self, model: Contender, settings: SamplerSettings) -> bool:
        """Whether the samples of every seed are in the cache."""
        cache = SampleCache(self.how.cache_dir)
        files = [cache.path(self._making(model, settings, seed)) for seed in self.how.seeds]
        return all(file is not None and file.is_file() for file in files)

    def cost(self, settings: SamplerSettings) -> int:
        """Denoiser calls for all samples of all seeds, for the progress bar, because time grows with them."""
        return self.how.count(settings) * len(self.how.seeds) * self.calls(settings)

    def calls(self, settings: SamplerSettings) -> int:
        """Calls per sample: the steps; where length or model decides them, an upper estimate, the mean length."""
        if settings.calls is not None:
            return settings.calls
        lengths = parse_length(self.how.length, self.run.domain, 100, generator(0, "lengths"))
        return max(sum(lengths) // len(lengths), 1)

    def _one_seed(self, model: Contender, settings: SamplerSettings, seed: int) -> Generated:
        """One seed's samples, from the cache if they are there."""
        cache, making = SampleCache(self.how.cache_dir), self._making(model, settings, seed)
        num, calls, reporter = self.how.count(settings), self.calls(settings), self.run.reporter
        processes = self.run.processes
        kept = processes.broadcast(cache.load(making) if processes.first else None)
        if kept is not None:
            reporter.advance(by=num * calls)
            return kept
        self._warm_up(model, settings, seed)
        done = 0

        def progress(finished: int) -> None:
            nonlocal done
            reporter.advance(by=(finished - done) * calls)
            done = finished

        sharing = Sharing(processes, cache.parts(making))
        made = generate(
            self.run.domain,
            model.denoiser,
            model.scorer if settings.make().needs_scorer else None,
            settings=settings,
            num=num,
            length=self.how.length,
            seed=seed,
            batch_size=self.how.batch_size,
            entropy_at=model.entropy_at,
            progress=progress,
            sharing=sharing,
        )
        if processes.first:
            cache.save(making, made)
        sharing.forget()
        return made

    def _making(self, model: Contender, settings: SamplerSettings, seed: int) -> dict[str, object]:
        """All that decides the samples, which are cached under its hash."""
        num, curve = self.how.count(settings), model.entropy_at
        return {
            "domain": self.run.domain.name,
            "model": model.digest,
            "scorer": model.scorer_digest if settings.make().needs_scorer else "",
            "settings": settings.record(),
            "curve": _rounded(curve) if curve and settings.needs_curve else None,
            "num": num,
            "seed": seed,
            "lengths": self._lengths(num, seed),
            "batch_size": self.how.batch_size,
        }

    def _warm_up(self, model: Contender, settings: SamplerSettings, seed: int) -> None:
        """Set up allocators and kernels once per model, outside the timing."""
        if model.digest in self._warm:
            return
        size = self.how.batch_size
        num, short = min(self.how.count(settings), size), _short(settings)
        generate(
            self.run.domain, model.denoiser, settings=short, num=num, seed=seed, length=self.how.length, batch_size=size
        )
        self._warm.add(model.digest)

    def _lengths(self, num: int, seed: int) -> str:
        """Digest of the lengths or templates to come: the domain's prior, its data and its settings decide them."""
        length, domain = self.how.length, self.run.domain
        own = None if length is not None else own_templates(domain, "validation", num, generator(seed, "lengths"))
        return json_hash(own or parse_length(length, domain, num, generator(seed, "lengths")))


def _short(settings: SamplerSettings) -> SamplerSettings:
    """Settings of a warm-up: one call, unless the network has a sampler of its own."""
    return settings if settings.sampler == autoregressive.NAME else SamplerSettings(steps=1)


def _rounded(curve: Curve) -> str:
    shares = torch.linspace(0, 1, 17, dtype=torch.float64)
    return json.dumps([round(value, 9) for value in curve(shares).tolist()])
