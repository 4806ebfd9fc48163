"""Proteins from FASTA files as batches of tokens: a split by similarity, and batches of similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError, unknown
from didi_core.streams import generator
from didi_core.types import Sample

from .clustering import Split, split_by_similarity
from .fasta import ON_BAD, Reading, read_fasta
from .vocabulary import CLS, EOS, PAD, residue_ids

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class ProteinData:
    """Where proteins come from and how they are split. Files are read at the first use, once.

    ``similarity`` is the 5-mer containment at which two sequences count as relatives (see ``clustering``); ``pool`` is
    the number of batches whose sequences are sorted by length together: larger means less padding and less mixing. It
    is 1
    because length tells the family: sorted batches hold one family each, and a small model then learns next to nothing.
    """

    path: str | Path | tuple[str | Path, ...]
    min_length: int = 30
    max_length: int = 300
    on_bad: str = "skip"
    validation_fraction: float = 0.05
    similarity: float = 0.5
    split_seed: int = 0
    pool: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_length <= self.max_length:
            raise InputError(
                f"data.min_length={self.min_length} and data.max_length={self.max_length}: need 1 <= min <= max."
            )
        if self.on_bad not in ON_BAD:
            raise InputError(f"data.on_bad={self.on_bad!r}: choose 'skip' or 'error'.")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"data.validation_fraction={self.validation_fraction}: need a number between 0 and 1.")
        if not 0 < self.similarity <= 1:
            raise InputError(f"data.similarity={self.similarity}: need a number above 0, at most 1.")
        if self.pool < 1:
            raise InputError(f"data.pool={self.pool}: need at least 1.")
        if not self.paths:
            raise InputError("data.path is empty: give at least one FASTA file.")

    @property
    def paths(self) -> tuple[Path, ...]:
        many = self.path if isinstance(self.path, tuple | list) else (self.path,)
        return tuple(Path(path) for path in many)

    @cached_property
    def readings(self) -> dict[Path, Reading]:
        """What each file held, with the skipped records."""
        return {
            path: read_fasta(path, min_length=self.min_length, max_length=self.max_length, on_bad=self.on_bad)
            for path in self.paths
        }

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """All sequences of all files; of identical ones only the first."""
        first: dict[str, Sample] = {}
        for reading in self.readings.values():
            for sample in reading.samples:
                first.setdefault(sample.text, sample)
        return tuple(first.values())

    @cached_property
    def split(self) -> Split:
        return split_by_similarity(
            [sample.text for sample in self.samples],
            fraction=self.validation_fraction,
            threshold=self.similarity,
            seed=self.split_seed,
        )

    def part(self, split: str) -> list[Sample]:
        """The samples of ``train`` or ``validation``."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return [self.samples[i] for i in getattr(self.split, split)]

    @cached_property
    def _tokens(self) -> dict[str, list[np.ndarray]]:
        return {split: [residue_ids(sample.text) for sample in self.part(split)] for split in SPLITS}

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless batches of exactly ``batch_size`` rows, a function of (seed, number of the batch) alone.

        Every epoch shows each sequence once, but for the last batch, which is filled up from the epoch's beginning.
        ``start`` costs one permutation, however large.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if batch_size < 1 or start < 0:
            raise InputError(f"batch_size={batch_size}, start={start}: need a positive batch size and start >= 0.")
        return self._endless(split, batch_size, seed, start)

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        sequences = self._tokens[split]
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        epoch, skip = divmod(start, -(-len(sequences) // batch_size))
        while True:
            stream = generator(seed, "protein batches", split, epoch)
            for rows in bucketed(lengths, batch_size, self.pool, stream)[skip:]:
                yield pad([sequences[i] for i in rows.tolist()])
            epoch, skip = epoch + 1, 0


def bucketed(lengths: Int[Tensor, "n"], batch_size: int, pool: int, stream: torch.Generator) -> list[Int[Tensor, "B"]]:
    """One epoch of row numbers: shuffle, sort by length in pools of ``pool`` batches, slice, shuffle the batches."""
    n = len(lengths)
    count = -(-n // batch_size)
    order = torch.randperm(n, generator=stream).repeat(-(-count * batch_size // n))[: count * batch_size]
    batches: list[Tensor] = []
    for rows in order.split(pool * batch_size):
        batches.extend(rows[torch.argsort(lengths[rows], stable=True)].split(batch_size))
    return [batches[i] for i in torch.randperm(count, generator=stream).tolist()]


def pad(sequences: Sequence[np.ndarray]) -> Int[Tensor, "B L"]:
    """``<cls> residues <eos>`` in each row, right-padded to the longest."""
    width = max(len(sequence) for sequence in sequences) + 2
    tokens = np.full((len(sequences), width), PAD, dtype=np.int64)
    tokens[:, 0] = CLS
    for row, sequence in zip(tokens, sequences, strict=True):
        row[1 : len(sequence) + 1] = sequence
        row[len(sequence) + 1] = EOS
    return torch.from_numpy(tokens)
