"""The common base of domains of tokens: networks, the energy distance, named streams, files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.checkpoints.importers import is_hub_id, load_denoiser_from
from didi_core.config import user_path
from didi_core.errors import InputError, unknown
from didi_core.metrics.energy import EnergyDistance, FeatureReference
from didi_core.metrics.features import TrunkFeatures
from didi_core.models.scorer import scorer_from_trunk
from didi_core.sequences.batches import check_batches
from didi_core.storage.fasta import write_fasta
from didi_core.storage.jsonl import write_jsonl
from didi_core.storage.sample_files import FASTA, format_of, read_file
from didi_core.streams import generator
from didi_core.types import Denoiser, Metric, Sample, Scorer, Vocabulary

BUNDLED = "bundled"
PLACES = ("<run directory>", "<checkpoint file or folder>", "<hub id owner/name>")


class TokenDomain(ABC):
    """Base of domains (``didi_core.types.Domain``). A subclass adds a vocabulary, ids of texts, data and metrics."""

    name: str
    suffix: str = ".jsonl"
    vocabulary: Vocabulary
    bundled: ClassVar[Path | None] = None  # folder of a teacher that ships with the package
    features: ClassVar[Path | None] = None  # file of the reference in that teacher's features
    between: ClassVar[str] = "/"  # separates name and purpose in names of streams; a change moves every random draw
    teachers: ClassVar[Mapping[str, str]] = {}  # more names of teachers, with the hub id of each

    def stream(self, seed: int, purpose: str, *more: str | int) -> torch.Generator:
        """The random stream of one purpose of the domain."""
        return generator(seed, f"{self.name}{self.between}{purpose}", *more)

    # --- sequences

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids with BOS and EOS. Raises InputError for text that cannot be represented."""

    def check(self, text: str) -> str:
        """The normalised text of a sample from a file. Raises InputError for a text that cannot be used."""
        self.encode(text)
        return text

    # --- networks

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """The package's own teacher (``bundled``), one of ``teachers``, a run directory, a checkpoint or a hub id.

        It is on the CPU and in eval mode.

        Raises:
            InputError: it is none of these, the hub cannot be reached, or the checkpoint has another vocabulary.
        """
        if name == BUNDLED:
            return load_denoiser_from(self._bundled_folder(), self.vocabulary).eval()
        known = user_path(name).exists() or is_hub_id(name)
        if not known and name not in self.teachers:
            raise unknown("teacher", name, [*([BUNDLED] if self.bundled else []), *self.teachers, *PLACES])
        if user_path(name).exists():
            return load_denoiser_from(name, self.vocabulary).eval()
        try:
            return load_denoiser_from(self.teachers.get(name, name), self.vocabulary).eval()
        except InputError as error:
            raise InputError(f"{error} teacher={BUNDLED} needs no download." if self.bundled else str(error)) from None

    def _bundled_folder(self) -> Path:
        if self.bundled is None:
            raise InputError(
                f"domain {self.name} has no bundled teacher: train one with `python -m didi_core pretrain "
                f"domain={self.name} data.path=...` and give teacher=<its run directory>."
            )
        if not self.bundled.exists():
            raise InputError(
                f"the bundled teacher is not in this installation ({self.bundled}). Give teacher=<run directory>."
            )
        return self.bundled

    def scorer(self, teacher: Denoiser, trainable_blocks: int = 4) -> Scorer:
        """A scorer whose trunk is a copy of the teacher's, with its last blocks and norms trainable."""
        return scorer_from_trunk(teacher, trainable_blocks)

    # --- data

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless batches of exactly ``batch_size`` rows, which depend only on seed and number of the batch.

        ``start`` skips so many batches, at the cost of one epoch's order. Raises InputError at once for a wrong
        request.
        """
        check_batches(split, batch_size, start)
        return self._endless(split, batch_size, seed, start)

    @abstractmethod
    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        """The batches from number ``start`` on."""

    # --- evaluation

    def feature_samples(self) -> Sequence[Sample]:
        """Natural samples for the reference of the energy distance; an empty list stands for the bundled reference."""
        return ()

    def feature_reference(self, features: TrunkFeatures) -> FeatureReference:
        """The reference of ``feature_samples``, or the bundled one."""
        samples = self.feature_samples()
        if not samples and self.features is not None:
            return FeatureReference.load(self.features)
        return FeatureReference.fit(features(samples))

    @cached_property
    def energy(self) -> list[Metric]:
        """A list with the energy distance in the bundled teacher's features; empty without a bundled teacher.

        It is cached, so that no text is read twice.
        """
        if not all(place is not None and place.exists() for place in (self.bundled, self.features)):
            return []
        features = TrunkFeatures(self.teacher(BUNDLED), self.encode)
        return [EnergyDistance(features, lambda: self.feature_reference(features))]

    # --- files

    def write(self, path: Path, samples: Sequence[Sample]) -> None:
        """FASTA with the samples' info as ``key=value`` words, or JSON lines, by ``suffix``; complete or absent."""
        if format_of(Path(f"samples{self.suffix}")) == FASTA:
            write_fasta(path, samples)
        else:
            write_jsonl(path, samples)

    def read(self, path: Path) -> list[Sample]:
        """The samples of a FASTA file, JSON lines or plain text, each text as ``check`` returns it.

        Raises InputError, with file and line, for a text that cannot be read or encoded.
        """
        advice = f"Repair or remove the record. Does the file belong to another domain than {self.name}?"
        return list(read_file(path, self.check, advice=advice).samples)
