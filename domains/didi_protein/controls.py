"""Negative controls: sets that a good metric must distinguish from natural proteins, shown beside every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from didi_core.streams import derive_seed
from didi_core.types import Sample

from .vocabulary import RESIDUES


def controls(samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
    """Three degraded copies of the samples, of the same lengths.

    ``shuffled``: the residues of each in random order (right composition, no order). ``random``: residues drawn
    uniformly. ``repeats``: a third of the sequence, at a random place, overwritten by one residue (a typical failure of
    protein language models).
    """
    makers = {"shuffled": _shuffled, "random": _uniform, "repeats": _repeats}
    return {
        name: [
            Sample(
                text=make(sample.text, np.random.default_rng(derive_seed(seed, "control", name, i))),
                id=f"{name}_{i + 1}",
            )
            for i, sample in enumerate(samples)
        ]
        for name, make in makers.items()
    }


def _shuffled(sequence: str, random: np.random.Generator) -> str:
    return "".join(random.permutation(list(sequence)))


def _uniform(sequence: str, random: np.random.Generator) -> str:
    return "".join(random.choice(list(RESIDUES), size=len(sequence)))


def _repeats(sequence: str, random: np.random.Generator) -> str:
    width = len(sequence) // 3
    start = int(random.integers(len(sequence) - width + 1))
    return sequence[:start] + RESIDUES[int(random.integers(20))] * width + sequence[start + width :]
