"""DNA with structure at three scales, from a seed: a promoter with two boxes, codons of uneven usage, a stop."""

from __future__ import annotations

import numpy as np

from didi_core.types import Sample

from .strands import reverse_complement

MINUS_35, MINUS_10, SPACER = "TTGACA", "TATAAT", 17  # consensus of bacterial sigma-70 promoters
CODONS = ("ATG", "GCG", "CTG", "GAA", "AAA", "GAT", "ACC", "GTG", "CGT", "AAC", "ATT", "GGC", "CAG", "TTC")
BASES = np.array(list("ACGT"))


def genes(n: int, seed: int, mutation: float = 0.02) -> list[Sample]:
    """n sequences of 61 to 79 bases on random strands; each base is replaced with probability ``mutation``."""
    random = np.random.default_rng(seed)
    usage = 1.0 / np.arange(1, len(CODONS) + 1)
    made = []
    for number in range(1, n + 1):
        middle = "".join(random.choice(BASES, size=SPACER, p=(0.35, 0.15, 0.15, 0.35)))
        leader = "".join(random.choice(BASES, size=6, p=(0.3, 0.2, 0.3, 0.2)))
        codons = random.choice(CODONS, size=random.integers(6, 13), p=usage / usage.sum())
        letters = np.array(list(f"{MINUS_35}{middle}{MINUS_10}{leader}ATG{''.join(codons)}TAA"))
        hit = random.random(len(letters)) < mutation
        letters[hit] = random.choice(BASES, size=int(hit.sum()))
        text = "".join(letters)
        made.append(Sample(reverse_complement(text) if random.random() < 0.5 else text, f"gene_{number}"))
    return made
