"""Many proteins at once: clusters, and designs that are not alike.

    python benchmarks/proteins.py [--quick] [--out FILE]

``clusters``: shared words with all n sequences counted for each representative, against the posting lists of its words
alone. ``filter``: every pair aligned, against those that shared words and the longest common subsequence leave.
"""

from __future__ import annotations

import numpy as np
import torch
from measure import Case, main
from torch import Tensor

from didi_protein.alignment import identity
from didi_protein.clustering import greedy_clusters
from didi_protein.kmers import KmerIndex
from didi_protein.scoring.filtering import Relatives
from didi_protein.vocabulary import RESIDUES

LETTERS = np.frombuffer(RESIDUES.encode(), dtype=np.uint8)


def unrelated(count: int, low: int, high: int) -> list[str]:
    random = np.random.default_rng(0)
    lengths = random.integers(low, high, count).tolist()
    return [random.choice(LETTERS, length).tobytes().decode() for length in lengths]


def families(count: int, members: int, length: int) -> list[str]:
    """Members differ from their parent at one residue in five."""
    random = np.random.default_rng(1)
    made = []
    for parent in random.choice(LETTERS, (count, length)):
        for _ in range(members):
            made.append(
                np.where(random.random(length) < 0.2, random.choice(LETTERS, length), parent).tobytes().decode()
            )
    return [made[i] for i in random.permutation(len(made))]


def clusters(sequences: list[str], threshold: float = 0.5) -> Case:
    index = KmerIndex(sequences)

    def counted() -> Tensor:
        labels = np.full(len(index), -1)
        for lead in np.argsort(-index.sizes, kind="stable").tolist():
            if labels[lead] < 0:
                near = index.containment(index.words(lead)) >= threshold
                labels[near & (labels < 0)] = lead
                labels[lead] = lead
        return torch.from_numpy(labels)

    return Case(counted, lambda: torch.from_numpy(greedy_clusters(index, threshold)), torch.equal)


def diverse(sequences: list[str], limit: float) -> Case:
    """Which sequences have an earlier one among the chosen that is alike."""

    def aligned() -> Tensor:
        chosen: list[int] = []
        for i, sequence in enumerate(sequences):
            if not any(identity(sequences[j], sequence) > limit for j in chosen):
                chosen.append(i)
        return torch.tensor(chosen)

    def sieved() -> Tensor:
        relatives, chosen = Relatives(sequences, limit), np.zeros(len(sequences), dtype=bool)
        for i in range(len(sequences)):
            chosen[i] = relatives.first(i, chosen) is None
        return torch.from_numpy(np.flatnonzero(chosen))

    return Case(aligned, sieved, torch.equal)


CASES = {
    "clusters of 20,000 unrelated": lambda quick: clusters(unrelated(*((60, 20, 40) if quick else (20_000, 100, 400)))),
    "filter, 100 unrelated": lambda quick: diverse(unrelated(*((8, 20, 40) if quick else (100, 150, 350))), 0.7),
    "filter, 20 families of 5": lambda quick: diverse(families(*((3, 3, 30) if quick else (20, 5, 250))), 0.7),
}

if __name__ == "__main__":
    main(__file__, "every pair / shared words first", CASES)
