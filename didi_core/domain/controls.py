"""Negative controls: sets that a metric must distinguish from natural samples. Reports mark a metric that does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.domain.abilities import HasControls
from didi_core.streams import generator
from didi_core.types import Domain, Sample


def negative_controls(domain: Domain, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
    """The domain's own controls, or else ``shuffled`` (a sample's tokens in random order) and ``repeats``.

    ``repeats`` overwrites a third of each sample, at a random place, with one of its own tokens.
    """
    if isinstance(domain, HasControls):
        return domain.controls(samples, seed)
    makers = {"shuffled": _shuffled, "repeats": _repeats}
    made: dict[str, list[Sample]] = {name: [] for name in makers}
    for i, sample in enumerate(samples):
        tokens = torch.tensor(domain.encode(sample.text), dtype=torch.long)
        free = domain.vocabulary.maskable(tokens[None])[0]
        for name, make in makers.items():
            changed = tokens.clone()
            if bool(free.any()):
                changed[free] = make(tokens[free], generator(seed, "control", name, i))
            made[name].append(Sample(domain.decode(changed.tolist()), f"{name}_{i + 1}"))
    return made


def _shuffled(tokens: Int[Tensor, "L"], stream: torch.Generator) -> Int[Tensor, "L"]:
    return tokens[torch.randperm(len(tokens), generator=stream)]


def _repeats(tokens: Int[Tensor, "L"], stream: torch.Generator) -> Int[Tensor, "L"]:
    width = max(len(tokens) // 3, 1)
    start = int(torch.randint(len(tokens) - width + 1, (1,), generator=stream))
    chosen = tokens[int(torch.randint(len(tokens), (1,), generator=stream))]
    changed = tokens.clone()
    changed[start : start + width] = chosen
    return changed
