"""Many proteins at once: clusters, and designs that are not alike.

    python benchmarks/proteins.py [--quick] [--out FILE]

``proteins`` and ``records``: a file read into objects, against long arrays. ``clusters of 100,000``: the posting lists
of all sequences for each representative, against those of representatives alone, the rarest words first. ``clusters of
20,000``: shared words with all n sequences counted for each representative, against the same. ``filter``: every pair
aligned, against those that shared words and the longest common subsequence leave.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from measure import Case, main
from torch import Tensor

from didi_core.storage.fasta import fasta_records
from didi_core.storage.records import unique
from didi_core.types import Sample
from didi_protein.alignment import identity
from didi_protein.clustering import greedy_clusters
from didi_protein.fasta import protein, read_fasta
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
        return leads(index, lambda words: np.flatnonzero(index.containment(words) >= threshold))

    return Case(counted, lambda: sieved(sequences, threshold), torch.equal)


def postings(sequences: list[str], threshold: float = 0.5) -> Case:
    def whole() -> Tensor:
        index = KmerIndex(sequences)
        return leads(index, lambda words: index.close_to(words, threshold))

    return Case(whole, lambda: sieved(sequences, threshold), torch.equal)


def sieved(sequences: list[str], threshold: float) -> Tensor:
    return torch.from_numpy(greedy_clusters(KmerIndex(sequences, filled=False), threshold))


def leads(index: KmerIndex, near: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Clusters from what is near to each representative among all sequences."""
    labels = np.full(len(index), -1)
    for lead in np.argsort(-index.sizes, kind="stable").tolist():
        if labels[lead] < 0:
            those = near(index.words(lead))
            labels[those[labels[those] < 0]] = lead
            labels[lead] = lead
    return torch.from_numpy(labels)


@cache
def fasta(count: int, length: int) -> Path:
    """Proteins with headers of UniRef; a length of 1: records without a header, of one letter."""
    path = Path(tempfile.mkdtemp()) / "x.fasta"
    if length == 1:
        path.write_bytes(b">\nA\n" * count)
        return path
    with path.open("w") as file:
        for i, text in enumerate(unrelated(count, length // 2, 3 * length // 2)):
            file.write(f">UniRef50_A{i} Uncharacterized protein n={i % 9} Tax=Bacteria TaxID={i} RepID=X\n{text}\n")
    return path


def read(path: Path) -> Case:
    """Records as objects with dictionaries, against arrays."""

    def objects() -> list[Sample]:
        used: dict[str, int] = {}
        return [
            Sample(protein(record.text), unique(record.id or f"seq_{i}", used), None, record.info)
            for i, record in enumerate(fasta_records(path), start=1)
        ]

    def digest(samples: Sequence[Sample]) -> Tensor:
        return torch.tensor([len(samples), sum(len(sample.id) for sample in samples[::97])])

    return Case(lambda: digest(objects()), lambda: digest(read_fasta(path).samples), torch.equal)


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


SMALL = (60, 20, 40)  # sequences, and the limits of their lengths

CASES = {
    "100,000 proteins of a FASTA file": lambda quick: read(fasta(20 if quick else 100_000, 270)),
    "1,000,000 records of one letter": lambda quick: read(fasta(20 if quick else 1_000_000, 1)),
    "clusters of 100,000 unrelated": lambda quick: postings(unrelated(*(SMALL if quick else (100_000, 100, 400)))),
    "clusters of 20,000 unrelated": lambda quick: clusters(unrelated(*(SMALL if quick else (20_000, 100, 400)))),
    "filter, 100 unrelated": lambda quick: diverse(unrelated(*((8, 20, 40) if quick else (100, 150, 350))), 0.7),
    "filter, 20 families of 5": lambda quick: diverse(families(*((3, 3, 30) if quick else (20, 5, 250))), 0.7),
}

if __name__ == "__main__":
    main(__file__, "every pair / shared words first", CASES)
