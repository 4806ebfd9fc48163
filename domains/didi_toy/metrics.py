"""Metrics of toy sequences against the chain itself, without judge, reference set or error of a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from didi_core.types import Sample

from .chain import MarkovChain

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class ChainNLL:
    """Negative log-likelihood per symbol under the chain (nats): total of the samples over their number of symbols."""

    chain: MarkovChain
    encode: Encode
    name: str = "nll"
    label: str = "NLL / symbol"
    better: Literal["lower", "higher", "neither"] = "lower"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        rows = np.full((len(samples), 2), np.nan)
        by_length: dict[int, list[int]] = {}
        sequences = [self.encode(sample.text) for sample in samples]
        for i, sequence in enumerate(sequences):
            by_length.setdefault(len(sequence), []).append(i)
        for length, members in by_length.items():
            if length:
                log_p = self.chain.log_prob(torch.tensor([sequences[i] for i in members]))
                rows[members] = np.stack([-log_p.numpy(), np.full(len(members), float(length))], 1)
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 0] / means[..., 1])


@dataclass(frozen=True)
class PairDivergence:
    """KL(empirical || exact) in nats of pairs of symbols at a distance; lag 0 stands for single symbols.

    On finite samples it is biased upwards even for a perfect sampler, by about (cells - 1) / (2 * number of pairs) for
    independent pairs (``bias``). The bootstrap subtracts that from intervals (``biased``); ``aggregate`` sees only
    means and includes it.
    """

    reference: np.ndarray  # exact probabilities, [V, V]; for lag 0 [V]
    encode: Encode = field(repr=False)
    lag: int = 1
    name: str = "pair_kl"
    label: str = "pair KL"
    better: Literal["lower", "higher", "neither"] = "lower"
    minimum: int = 10
    biased: bool = True

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """Counts of each pair, [n, V * V] (or [n, V]); a sequence too short for a pair is a row of nan."""
        cells, symbols = self.reference.size, len(self.reference)
        rows = np.full((len(samples), cells), np.nan)
        for i, sample in enumerate(samples):
            x = np.asarray(self.encode(sample.text), dtype=np.int64)
            code = x if self.lag == 0 else x[: -self.lag] * symbols + x[self.lag :]
            if len(code):
                rows[i] = np.bincount(code, minlength=cells)
        return rows

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        share = means / means.sum(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(share > 0, share * np.log(share / self.reference.reshape(-1)), 0.0)
        return np.asarray(terms.sum(-1))

    def bias(self, pairs: int) -> float:
        """The expected value for a perfect sampler with that many independent pairs (Miller 1955)."""
        return float((np.count_nonzero(self.reference) - 1) / (2 * pairs))
