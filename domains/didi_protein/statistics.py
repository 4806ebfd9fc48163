"""Bundled statistics of natural proteins: lengths and dipeptides of a training set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .kmers import kmer_codes


@dataclass(frozen=True)
class BundledStatistics:
    """Histogram of lengths, and counts of the 400 dipeptides [400] in the order of ``kmer_codes(k=2)``."""

    source: str
    lengths: dict[int, int]
    dipeptides: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[str], source: str) -> BundledStatistics:
        """Count them in sequences."""
        dipeptides = sum(
            (np.bincount(kmer_codes(s, 2), minlength=400) for s in sequences), np.zeros(400, dtype=np.int64)
        )
        return cls(source, dict(sorted(Counter(map(len, sequences)).items())), dipeptides)

    @classmethod
    def load(cls, path: Path) -> BundledStatistics:
        data = json.loads(path.read_text())
        return cls(data["source"], {int(k): n for k, n in data["lengths"].items()}, np.array(data["dipeptides"]))

    def save(self, path: Path) -> None:
        data = {"source": self.source, "lengths": self.lengths, "dipeptides": self.dipeptides.tolist()}
        path.write_text(json.dumps(data, separators=(",", ":")) + "\n")
