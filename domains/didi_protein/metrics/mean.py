"""The simplest metric: the mean over samples of one number per sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from didi_core.types import Sample

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Mean:
    """Mean of ``of(sequence)`` over samples; an empty sequence and a nan are undefined, hence left out."""

    name: str
    label: str
    of: Callable[[str], float]
    better: Better = "neither"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 1]: the number of each sample."""
        return np.array([[self.of(s.text) if s.text else np.nan] for s in samples], dtype=np.float64).reshape(-1, 1)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return means[..., 0]
