"""The domain of proteins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from didi_core.config import build
from didi_core.domain.conditioning import Conditioning, Request, read_template
from didi_core.domain.scoring import Job
from didi_core.errors import InputError
from didi_core.evaluation.held_out import load_reference
from didi_core.progress import Bar
from didi_core.sequences import AlphabetDomain
from didi_core.storage.files import packaged
from didi_core.storage.sample_store import Chosen, texts_of
from didi_core.types import Metric, Sample, Vocabulary

from .conditioning import FORM, ProteinConditioning, condition
from .contig import FREE_LETTERS
from .controls import controls
from .fasta import protein
from .judge import BUNDLED, protein_judge
from .kept_split import Splitting, kept_split
from .metrics import protein_metrics
from .nearest.words import WordSearch
from .scoring.again import may_score_again
from .scoring.filtering import ProteinFilter, shortlist
from .scoring.reading import read_designs
from .scoring.running import score_designs
from .scoring.settings import ProteinScoring
from .statistics import BundledStatistics
from .teachers import DPLM
from .vocabulary import PROPERTIES, RESIDUES, VOCABULARY, residue_ids

asset = partial(packaged, __package__)
REFERENCE = "reference.npz"
FEATURE_SEQUENCES = 1000  # that the energy distance is taken from


class ProteinDomain(AlphabetDomain):
    """Proteins of the 20 amino acids, ``<cls> residues <eos>``, in ESM's 33 tokens.

    Without ``path``, lengths and reference statistics are the bundled ones, and ``batches`` raises InputError with the
    key to set.

    Args:
        path: FASTA file or files. min_length, max_length, and the others: see ``AlphabetDomain``.
        validation_fraction: share of the sequences that is held out, relatives together.
        similarity: the 5-mer containment at which two sequences count as relatives (see ``clustering``).
        resplit: whether a large file that has changed since its split was kept is split again; otherwise it is refused.
        judge: whose perplexity is the quality, see ``judge``; None for the bundled one.
    """

    name, alphabet, suffix = "protein", RESIDUES, ".fasta"
    bundled, features = asset("teacher"), asset("features.npz")
    teachers = DPLM
    between = " "  # as in the training of the bundled teacher
    # Lengths identify families: with a larger pool every batch would hold one family, and a small model would learn
    # almost nothing.
    pool = 1
    free_letters = FREE_LETTERS
    form, letter_groups = FORM, PROPERTIES
    bundled_student = asset("student")
    sample_cache = asset("samples")  # of the bundled teacher: the scorer's reference in a default run

    def __init__(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        min_length: int = 30,
        max_length: int = 300,
        on_bad: str = "skip",
        allow_loss: bool = False,
        column: str | None = None,
        unpacked_limit: int | None = None,
        validation_fraction: float = 0.05,
        similarity: float = 0.5,
        split_seed: int = 0,
        resplit: bool = False,
        judge: str | None = None,
    ) -> None:
        if not 0 < validation_fraction < 1:
            raise InputError(f"data.validation_fraction={validation_fraction}: need a number between 0 and 1.")
        if not 0 < similarity <= 1:
            raise InputError(f"data.similarity={similarity}: need a number above 0, at most 1.")
        self.similarity, self.resplit, self.judge = similarity, resplit, judge or BUNDLED
        super().__init__(
            path,
            min_length=min_length,
            max_length=max_length,
            on_bad=on_bad,
            allow_loss=allow_loss,
            column=column,
            unpacked_limit=unpacked_limit,
            validation=validation_fraction,
            split_seed=split_seed,
        )

    def make_vocabulary(self) -> Vocabulary:
        """ESM's."""
        return VOCABULARY

    # --- sequences

    def normalise(self, text: str) -> str:
        """Upper case; the same object where it is so already."""
        return text.upper() if text.isascii() and not text.isupper() else text

    def check(self, text: str) -> str:
        """The residues of a record, in upper case and without a final ``*``."""
        return protein(text)

    def inner_ids(self, text: str) -> list[int]:
        """Ids of the residues, without ``<cls>`` and ``<eos>``; any letter but the 20 amino acids raises InputError."""
        return residue_ids(text).tolist()

    def length(self, text: str) -> int:
        """Residues, one a letter."""
        return len(text)

    def condition(self, wishes: Mapping[str, Any], request: Request) -> Conditioning:
        """Templates and bias for the keys of ``configs/conditioning/protein.yaml``."""
        return condition(build(ProteinConditioning, wishes), request, partial(read_template, self), Bar().message)

    @property
    def known_lengths(self) -> dict[int, int]:
        """Lengths of the training data, or else of the bundled statistics, within the limits."""
        return super().known_lengths if self.paths else self._bundled_lengths

    @cached_property
    def _bundled_lengths(self) -> dict[int, int]:
        histogram = self._statistics.lengths
        kept = {length: n for length, n in sorted(histogram.items()) if self.min_length <= length <= self.max_length}
        if not kept:
            raise InputError(
                f"no bundled length lies in [{self.min_length}, {self.max_length}]: "
                f"they go from {min(histogram)} to {max(histogram)}. Give length=... or data.path=..."
            )
        return kept

    @cached_property
    def _statistics(self) -> BundledStatistics:
        return BundledStatistics.load(asset("statistics.json"))

    # --- data

    def load(self) -> Sequence[Sample]:
        """The proteins of the files. No natural sequence is bundled."""
        if not self.paths:
            raise InputError("no proteins without data: set data.path to a FASTA file.")
        return super().load()

    def divide(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Sample]]:
        """Relatives stay in one split; relatives of held-out proteins that cannot do so are in neither."""
        selection = {name: getattr(self, name) for name in ("min_length", "max_length", "on_bad", "column")}
        selection["files"] = [path.name for path in self.paths]
        split = kept_split(
            texts_of(samples),
            self.paths[0],
            Bar(),
            Splitting(self.validation, self.similarity, self.split_seed, selection, self.resplit),
        )
        return {name: Chosen(samples, getattr(split, name)) for name in ("train", "validation")}

    # --- single designs

    def read_designs(self, files: Sequence[Path], labels: Sequence[str]) -> list[Sample]:
        """The designs of FASTA files, with unique ids; ``data.on_bad`` decides on records that are not proteins."""
        return read_designs(files, labels, self.on_bad, Bar().message)

    shares_scoring = True

    def score(self, designs: Sequence[Sample], wishes: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
        """Rows of scores for the keys of ``configs/scoring/protein.yaml``."""
        return score_designs(designs, build(ProteinScoring, wishes), job)

    def may_score_again(self, folder: Path, before: Mapping[str, Any], wishes: Mapping[str, Any]) -> bool:
        """All keys may differ but those of structures that were folded here."""
        return may_score_again(folder, before, wishes)

    def shortlist(self, folder: Path, wishes: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
        """The designs that pass, for the keys of ``configs/filtering/protein.yaml``."""
        return shortlist(folder, build(ProteinFilter, wishes), job)

    # --- evaluation

    def metrics(self, judge: Metric | None = None) -> list[Metric]:
        """Quality (``judge``, or perplexity under ``data.judge``), entropy, then the others.

        References come from the training split of ``path``. Without it, the dipeptide table is the bundled one, and
        there are no metrics of nearest neighbours, because no natural sequence is bundled.
        """
        reference = self.training_set() if self.paths else self._statistics.dipeptides
        chosen = judge or self._judge
        return [*protein_metrics(reference, judge=chosen, neighbours=self._neighbours), *self.energy]

    def feature_samples(self) -> Sequence[Sample]:
        """Up to ``FEATURE_SEQUENCES`` training sequences; an empty list without ``path``."""
        texts = self.training_set()
        order = torch.randperm(len(texts), generator=self.stream(0, "features"))[:FEATURE_SEQUENCES].tolist()
        return [Sample(texts[i]) for i in order]

    @cached_property
    def _judge(self) -> Metric | None:
        """Perplexity under the autoregressive judge, cached so that no sequence is scored twice."""
        if self.judge == BUNDLED and not asset("judge").exists():
            return None
        return protein_judge(self.judge, self.encode)

    def reference_statistics(self) -> dict[str, dict[str, np.ndarray]] | None:
        """Statistics of held-out proteins and their controls under the bundled metrics; None with ``path``.

        Perplexities are the bundled judge's, so they are left out where another one judges.
        """
        if self.paths:
            return None
        found = load_reference(asset(REFERENCE))
        if self._judge is None or self.judge == BUNDLED:
            return found
        return {name: {key: x for key, x in row.items() if key != self._judge.name} for name, row in found.items()}

    @cached_property
    def _neighbours(self) -> WordSearch | None:
        """The search for neighbours, cached so that rows of one evaluation share its index and alignments."""
        return WordSearch(tuple(self.training_set())) if self.paths else None

    def controls(self, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
        """The negative controls ``shuffled``, ``random`` and ``repeats`` of the samples."""
        return controls(samples, seed)


def create(**data: Any) -> ProteinDomain:
    """The domain from the keys of the ``data`` config group: ``path`` (one file or several) and its settings."""
    return build(ProteinDomain, data, "data")
