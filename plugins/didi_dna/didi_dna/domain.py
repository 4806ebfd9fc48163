"""The domain: an alphabet, two strands, and the source of the data."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from didi_core.errors import InputError
from didi_core.sequences import BUNDLED, AlphabetDomain
from didi_core.types import Metric, Sample

from .metrics import SpectrumDistance, gc_content, promoter_share
from .strands import reverse_complement
from .synthetic import genes

SYNTHETIC = 4000  # sequences that are generated without data.path


class DnaDomain(AlphabetDomain):
    """DNA of either strand: a sequence and its reverse complement are the same molecule."""

    name, alphabet, suffix, word = "dna", "ACGT", ".fasta", 4

    def normalise(self, text: str) -> str:
        """Upper case, and RNA's U as T."""
        return text.upper().replace("U", "T")

    def identity(self, text: str) -> str:
        """The strand that comes first in the alphabet, so that both strands land in one split."""
        text = self.normalise(text)
        self.encode(text)
        return min(text, reverse_complement(text))

    def augment(self, row: np.ndarray, stream: torch.Generator) -> np.ndarray:
        """The other strand with probability 1/2. With ids in the order ACGT, the complement of i is 3 - i."""
        other = bool(torch.rand((), generator=stream) < 0.5)
        return np.ascontiguousarray(3 - row[::-1]) if other else row

    def load(self) -> list[Sample]:
        """The sequences of ``data.path``, or synthetic genes."""
        return super().load() if self.paths else genes(SYNTHETIC, seed=0)

    def teacher(self, name: str = BUNDLED) -> nn.Module:
        """The teacher trained by ``python -m didi_dna`` (``bundled``), or one from a run directory."""
        if name != BUNDLED:
            return super().teacher(name)
        if not (teacher_folder() / "model").is_dir():
            raise InputError("the DNA teacher is not trained yet: run `python -m didi_dna` once (a minute, no data).")
        return super().teacher(str(teacher_folder()))

    def quality(self) -> Metric:
        """Distance of the 4-mer spectrum from that of the training data, with both strands counted."""
        texts = [self.normalise(sample.text) for sample in self.splits["train"]]
        both = chain(texts, map(reverse_complement, texts))
        return SpectrumDistance.against(both, self.alphabet, self.word, self.normalise)

    def further_metrics(self) -> list[Metric]:
        return [gc_content(), promoter_share()]


def teacher_folder() -> Path:
    """Run directory of the teacher: ``DIDI_DNA_TEACHER``, or a folder in the user's cache."""
    named = os.environ.get("DIDI_DNA_TEACHER")
    return Path(named) if named else Path.home() / ".cache" / "didi_dna" / "teacher"
