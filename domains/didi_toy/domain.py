"""The domain of the toy chain."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.config import build
from didi_core.errors import InputError
from didi_core.metrics import DistinctFraction
from didi_core.sequences import BUNDLED, AlphabetDomain
from didi_core.storage.files import packaged
from didi_core.types import Denoiser, Metric, Sample, Scorer

from .chain import MarkovChain, default_chain
from .metrics import ChainNLL, PairDivergence
from .teacher import ExactTeacher, toy_letters

EXACT = "exact"
asset = partial(packaged, __package__)


@dataclasses.dataclass(frozen=True)
class ToySettings:
    """The chain and the length of its sequences: ``32``, or ``16-32`` for lengths drawn uniformly from a range."""

    symbols: int = 20
    length: int | str = 32
    chain_seed: int = 0

    def __post_init__(self) -> None:
        toy_letters(self.symbols)
        low, high = self.range
        if not 1 <= low <= high:
            raise InputError(f"data.length={self.length!r}: need a positive length, or low-high with low <= high")

    @property
    def range(self) -> tuple[int, int]:
        text = str(self.length)
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?\s*", text)
        if match is None:
            raise InputError(f"data.length={text[:80]!r}: give a number such as 32 or a range such as 16-32")
        return int(match[1]), int(match[2] or match[1])


class ToyDomain(AlphabetDomain):
    """Sequences of a Markov chain written as letters. Data are drawn from the chain, so they are unlimited.

    The bundled teacher is a small network trained on the default chain; ``teacher("exact")`` is the chain itself.
    """

    name = "toy"
    bundled, features = asset("teacher"), asset("features.npz")
    teachers = {EXACT: "the chain itself"}
    between = " "  # as in the training of the bundled teacher

    def __init__(self, settings: ToySettings | None = None, *, chain: MarkovChain | None = None) -> None:
        self.settings = settings or ToySettings(symbols=chain.symbols if chain else 20)
        if chain is not None and chain.symbols != self.settings.symbols:
            raise InputError(f"the chain has {chain.symbols} symbols, but data.symbols={self.settings.symbols}")
        self.is_default = chain is None and (self.settings.symbols, self.settings.chain_seed) == (20, 0)
        self.chain = chain or default_chain(self.settings.symbols, self.settings.chain_seed)
        self.alphabet = toy_letters(self.settings.symbols)
        self.letter_groups = {f"block {i // 5 + 1}": self.alphabet[i : i + 5] for i in range(0, len(self.alphabet), 5)}
        super().__init__()

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """n lengths, uniformly from the domain's range."""
        low, high = self.settings.range
        drawn: list[int] = torch.randint(low, high + 1, (n,), generator=generator, device=generator.device).tolist()
        return drawn

    # --- networks

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """``bundled``, a small trained network; ``exact``, the chain's posterior; or a folder or run directory."""
        if name == EXACT:
            return ExactTeacher(self.chain).eval()
        if name == BUNDLED and not self.is_default:
            raise InputError(
                "the bundled teacher is for the default chain only (data.symbols=20, data.chain_seed=0). "
                "Set teacher to the run directory of a pretrain on this one."
            )
        return super().teacher(name)

    @property
    def bundled_student(self) -> Path | None:
        """The student of the bundled teacher; None for another chain."""
        return asset("student") if self.is_default else None

    def scorer(self, teacher: Denoiser, trainable_blocks: int = 1) -> Scorer:
        """A scorer whose trunk is a copy of the teacher's, with its last blocks and norms trainable."""
        if isinstance(teacher, ExactTeacher):
            raise InputError("the exact teacher has no network for a scorer. Set teacher=bundled.")
        return super().scorer(teacher, trainable_blocks)

    # --- data

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        """Fresh draws from the chain, which depend only on split, seed and number of the batch."""
        while True:
            yield self._draw(batch_size, self.stream(seed, "batches", split, start))
            start += 1

    def _draw(self, n: int, stream: torch.Generator) -> Int[Tensor, "n L"]:
        lengths = torch.tensor(self.lengths(n, stream))
        x = self.chain.sample(n, int(lengths.max()), stream)
        return torch.where(torch.arange(x.shape[1]) < lengths[:, None], x, self.settings.symbols)

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """n sequences of the chain from their own stream."""
        tokens = self._draw(n, self.stream(seed, "held out"))
        return [Sample(self.decode(row), f"held_out_{i}") for i, row in enumerate(tokens.tolist(), start=1)]

    # --- evaluation

    def metrics(self) -> list[Metric]:
        """Exact likelihood first, then token entropy, divergences from the chain and the share of distinct samples.

        The energy distance needs the features of the bundled teacher, so only the default chain has it.
        """
        unigram = self._pairs(0).diagonal()
        metrics: list[Metric] = [
            ChainNLL(self.chain, self.encode),
            self.entropy(),
            PairDivergence(self._pairs(1), self.encode, 1, "pair_kl", "pair KL"),
            PairDivergence(self._pairs(4), self.encode, 4, "pair_kl_4", "pair KL, lag 4"),
            PairDivergence(unigram, self.encode, 0, "unigram_kl", "unigram KL"),
            DistinctFraction(),
        ]
        return [*metrics, *self.energy] if self.is_default else metrics

    def _pairs(self, lag: int) -> np.ndarray:
        """Exact pair probabilities over the domain's lengths: a longer sequence has more pairs."""
        low, high = self.settings.range
        total = torch.zeros_like(self.chain.transition)
        for length in range(max(low, lag + 1), max(high, lag + 1) + 1):
            total += (length - lag) * self.chain.pairs(lag, length)
        return np.asarray((total / total.sum()).numpy())


def create(**data: Any) -> ToyDomain:
    """The domain from the keys of the ``data`` config group: ``symbols``, ``length``, ``chain_seed``."""
    return ToyDomain(build(ToySettings, data, "data"))
