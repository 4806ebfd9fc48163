"""Proteins as a domain: everything that the core does not know about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib import resources
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.checkpoints.judge import load_judge
from didi_core.config import build
from didi_core.domain.conditioning import Conditioning, Request, read_template
from didi_core.domain.scoring import Job
from didi_core.errors import InputError, unknown
from didi_core.evaluation.held_out import load_reference
from didi_core.metrics.energy import EnergyDistance, FeatureReference
from didi_core.metrics.features import TrunkFeatures
from didi_core.metrics.judge import JudgePerplexity
from didi_core.progress import Bar
from didi_core.streams import generator
from didi_core.types import Denoiser, Metric, Sample, Scorer

from . import vocabulary
from .conditioning import ProteinConditioning, condition
from .contig import FREE_LETTERS
from .controls import controls
from .data import SPLITS, ProteinData
from .fasta import read_fasta, write_fasta
from .metrics import protein_metrics
from .metrics.neighbours import Neighbours
from .scoring.filtering import ProteinFilter, shortlist
from .scoring.reading import read_designs
from .scoring.running import score_designs
from .scoring.settings import ProteinScoring
from .statistics import BundledStatistics
from .teachers import BUNDLED, load_teacher

FEATURES, REFERENCE = "features.npz", "reference.npz"
FEATURE_SEQUENCES = 1000  # that the energy distance is taken from


def asset(name: str) -> Path:
    """Path of a file or folder that ships inside the package."""
    return Path(str(resources.files(__package__).joinpath("assets", name)))


class ProteinDomain:
    """Proteins of the 20 amino acids, ``<cls> residues <eos>``, in ESM's 33 tokens.

    Without ``data_path`` the lengths, reference statistics and held-out sequences are the bundled ones, and ``batches``
    raises, naming the key to set. ``judge`` is a metric (perplexity under a model that is not the teacher); where it is
    given it is the quality, else dipeptide divergence is.
    """

    name = "protein"
    vocabulary = vocabulary.VOCABULARY
    suffix = ".fasta"
    free_letters = FREE_LETTERS
    sample_cache = asset("samples")  # of the bundled teacher: the scorer's reference in a default run

    def __init__(
        self,
        data_path: str | Path | Sequence[str | Path] | None = None,
        *,
        min_length: int = 30,
        max_length: int = 300,
        on_bad: str = "skip",
        validation_fraction: float = 0.05,
        similarity: float = 0.5,
        split_seed: int = 0,
        judge: Metric | None = None,
    ) -> None:
        self.min_length, self.max_length = min_length, max_length
        self.judge, self.on_bad = judge, on_bad
        self.data = None if data_path is None else ProteinData(
            path=data_path if isinstance(data_path, str | Path) else tuple(data_path),
            min_length=min_length,
            max_length=max_length,
            on_bad=on_bad,
            validation_fraction=validation_fraction,
            similarity=similarity,
            split_seed=split_seed,
        )  # fmt: skip

    # --- sequences

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """``<cls>``, as many masks as asked for, ``<eos>``, padding on the right."""
        bad = [length for length in lengths if length < 1]
        if bad or not len(lengths):
            raise InputError(f"lengths={list(lengths)[:5]}: a protein has at least one residue.")
        tokens = torch.full((len(lengths), max(lengths) + 2), vocabulary.PAD, dtype=torch.long)
        tokens[:, 0] = vocabulary.CLS
        for row, length in zip(tokens, lengths, strict=True):
            row[1 : length + 1] = vocabulary.MASK
            row[length + 1] = vocabulary.EOS
        return tokens

    def encode(self, text: str) -> list[int]:
        """``[<cls>, residues..., <eos>]``; any letter but the 20 amino acids (either case) raises InputError."""
        return vocabulary.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The residues as letters, specials dropped, a mask as ``_``."""
        return vocabulary.decode(tokens)

    def condition(self, wishes: Mapping[str, Any], request: Request) -> Conditioning:
        """Templates and bias for the keys of ``configs/conditioning/protein.yaml``."""
        return condition(build(ProteinConditioning, wishes), request, partial(read_template, self))

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """n lengths drawn from those of the training data (``data_path``), else of the bundled teacher's."""
        values, weights = self._length_prior
        drawn = torch.multinomial(weights, n, replacement=True, generator=generator)
        return values[drawn].tolist()

    @cached_property
    def _length_prior(self) -> tuple[Tensor, Tensor]:
        if self.data is None:
            histogram = BundledStatistics.load(asset("statistics.json")).lengths
            kept = {length: n for length, n in histogram.items() if self.min_length <= length <= self.max_length}
            if not kept:
                raise InputError(
                    f"no bundled length lies in [{self.min_length}, {self.max_length}]: "
                    f"they go from {min(histogram)} to {max(histogram)}. Give length=... or data.path=..."
                )
            values, counts = torch.tensor(sorted(kept)), torch.tensor([kept[length] for length in sorted(kept)])
        else:
            lengths = torch.tensor([len(sample.text) for sample in self.data.part("train")])
            values, counts = torch.unique(lengths, return_counts=True)
        return values, counts.double()

    # --- networks

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """The bundled teacher, DPLM by name, a run directory, a checkpoint or a hub id; see ``load_teacher``."""
        return load_teacher(name, asset("teacher"))

    def scorer(self, teacher: Denoiser, trainable_blocks: int = 4) -> Scorer:
        """A scorer whose trunk is a copy of the teacher's, the last blocks and the norms trainable."""
        from didi_core.models.scorer import scorer_from_trunk

        return scorer_from_trunk(teacher, trainable_blocks)

    # --- data

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless batches of similar lengths from ``data_path``; see ``ProteinData.batches``."""
        if self.data is None:
            raise InputError("no data to train on: set data.path to a FASTA file of proteins.")
        return self.data.batches(split, batch_size, seed, start)

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """Up to n sequences of the validation split of ``data_path``, shuffled. No natural sequence is bundled."""
        if self.data is None:
            raise InputError("no held-out proteins without data: set data.path to a FASTA file.")
        samples = self.data.part(SPLITS[1])
        order = torch.randperm(len(samples), generator=generator(seed, "protein held out"))
        return [samples[i] for i in order[:n].tolist()]

    def write(self, path: Path, samples: Sequence[Sample]) -> None:
        """FASTA with the samples' info as ``key=value`` words; complete or absent."""
        write_fasta(path, samples)

    def read(self, path: Path) -> list[Sample]:
        """Strictly: a record that is not a protein of the 20 amino acids raises InputError with its line."""
        return list(read_fasta(path, on_bad="error").samples)

    # --- single designs

    def read_designs(self, files: Sequence[Path], labels: Sequence[str]) -> list[Sample]:
        """The designs of FASTA files, ids unique; records that are no proteins as ``data.on_bad`` says."""
        return read_designs(files, labels, self.on_bad, Bar().message)

    def score(self, designs: Sequence[Sample], wishes: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
        """Rows of scores for the keys of ``configs/scoring/protein.yaml``."""
        return score_designs(designs, build(ProteinScoring, wishes), job)

    def shortlist(self, folder: Path, wishes: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
        """The designs that pass, for the keys of ``configs/filtering/protein.yaml``."""
        return shortlist(folder, build(ProteinFilter, wishes), job)

    # --- evaluation

    def metrics(self, judge: Metric | None = None) -> list[Metric]:
        """Quality (``judge``, else the constructor's, else the bundled one's perplexity), entropy, then the rest.

        References: the training split of ``data_path``. Without it, the bundled dipeptide table, and for nearest
        neighbours the nothing: no natural sequence is bundled, so those metrics are left out.
        """
        reference: Sequence[str] | np.ndarray
        if self.data is None:
            reference = BundledStatistics.load(asset("statistics.json")).dipeptides
        else:
            reference = self.training_set()
        chosen = judge or self.judge or self._bundled_judge
        return [*protein_metrics(reference, judge=chosen, neighbours=self._neighbours), *self._energy]

    def training_set(self) -> list[str]:
        """Sequences of the training split of ``data_path``; none without it."""
        return [] if self.data is None else [sample.text for sample in self.data.part(SPLITS[0])]

    @cached_property
    def _energy(self) -> list[Metric]:
        """Energy distance in the bundled teacher's features, from the training split or from the bundled reference."""
        if not asset("teacher").exists() or (self.data is None and not asset(FEATURES).exists()):
            return []
        features = TrunkFeatures(self.teacher(BUNDLED), self.encode)
        return [EnergyDistance(features, lambda: self.feature_reference(features))]

    def feature_reference(self, features: TrunkFeatures) -> FeatureReference:
        """Of up to ``FEATURE_SEQUENCES`` training sequences, or the bundled one."""
        texts = self.training_set()
        if not texts:
            return FeatureReference.load(asset(FEATURES))
        order = torch.randperm(len(texts), generator=generator(0, "protein features"))[:FEATURE_SEQUENCES].tolist()
        return FeatureReference.fit(features([Sample(texts[i]) for i in order]))

    @cached_property
    def _bundled_judge(self) -> Metric | None:
        """Perplexity under the bundled autoregressive judge; kept, so that no sequence is scored twice."""
        if not asset("judge").exists():
            return None
        return JudgePerplexity(load_judge(asset("judge")), self.encode)

    def reference_statistics(self) -> dict[str, dict[str, np.ndarray]] | None:
        """Statistics of held-out proteins and their controls under the bundled metrics; None with ``data_path``."""
        if self.data is not None:
            return None
        return load_reference(asset(REFERENCE))

    @cached_property
    def _neighbours(self) -> Neighbours | None:
        """Kept, so that rows of one evaluation share the index and the alignments already made."""
        if self.data is not None:
            return Neighbours(tuple(sample.text for sample in self.data.part("train")))
        return None

    def controls(self, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
        """The negative controls ``shuffled``, ``random`` and ``repeats`` of the samples."""
        return controls(samples, seed)


def create(**data: Any) -> ProteinDomain:
    """The domain from the keys of the ``data`` config group: ``path`` (one file or several) and its settings."""
    known = ["path", *(name for name in signature(ProteinDomain).parameters if name not in ("data_path", "judge"))]
    for key in data:
        if key not in known:
            raise unknown("setting", f"data.{key}", [f"data.{name}" for name in known], "protein domain")
    return ProteinDomain(data.pop("path", None), **data)
