"""The teacher's samples that objectives learn from: drawn once, by all processes, and kept."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from didi_core.domain.abilities import HasSampleCache
from didi_core.domain.conditioning import own_templates
from didi_core.evaluation.cache import SampleCache
from didi_core.progress import counting
from didi_core.run import Run
from didi_core.sampling.batching import stacked
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.sampling.sharing import Sharing
from didi_core.storage.fingerprint import model_hash
from didi_core.streams import derive_seed, generator
from didi_core.types import Denoiser

REFERENCE_BATCH = 64  # samples that are drawn at once


def teacher_samples(about: Run, teacher: Denoiser, num: int, steps: int, kept: Path | None) -> Int[Tensor, "S L"]:
    """Samples of the teacher, drawn once and kept in a folder.

    They belong to the teacher and not to the run: every seed sees the same ones, and a domain may ship those of its
    bundled teacher.
    """
    domain, processes = about.domain, about.processes
    sampler, seed, batch_size = SamplerSettings(steps=steps), derive_seed(0, "reference"), REFERENCE_BATCH
    templates = own_templates(domain, "train", num, generator(seed, "templates"))
    cache = SampleCache(kept)
    carried = SampleCache(domain.sample_cache if isinstance(domain, HasSampleCache) else None)
    making = {
        "domain": domain.name,
        "model": model_hash(teacher),
        "settings": sampler.record(),
        "num": num,
        "seed": seed,
        "batch_size": batch_size,
        **({} if templates is None else {"templates": templates}),
    }
    made = processes.broadcast((carried.load(making) or cache.load(making)) if processes.first else None)
    if made is None:
        sharing = Sharing(processes, cache.parts(making))
        bar = about.reporter
        bar.start(f"reference samples of the teacher ({steps} steps)", num)
        with about.autocast():
            made = generate(
                domain,
                teacher,
                settings=sampler,
                num=num,
                templates=templates,
                seed=seed,
                batch_size=batch_size,
                progress=counting(bar),
                sharing=sharing,
            )
        bar.stop()
        if processes.first:
            cache.save(making, made)
        sharing.forget()
    return stacked([sample.tokens or () for sample in made.samples], domain.vocabulary.pad)
