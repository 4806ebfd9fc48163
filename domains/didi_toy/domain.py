"""The toy chain as a domain: everything that the core does not know about it."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError, unknown
from didi_core.metrics import DistinctFraction
from didi_core.metrics.energy import EnergyDistance, FeatureReference
from didi_core.metrics.features import TrunkFeatures
from didi_core.storage.jsonl import read_jsonl, write_jsonl
from didi_core.streams import generator
from didi_core.types import Denoiser, Metric, Sample, Scorer

from .chain import MarkovChain, default_chain
from .metrics import ChainNLL, PairDivergence, TokenEntropy
from .teacher import ExactTeacher, toy_vocabulary

BUNDLED, EXACT = "bundled", "exact"
SPLITS = ("train", "validation")
FEATURES = "features.npz"


def asset(name: str) -> Path:
    """Path of a file or folder that ships inside the package."""
    return Path(str(resources.files(__package__).joinpath("assets", name)))


@dataclasses.dataclass(frozen=True)
class ToySettings:
    """Which chain, and how long its sequences are: ``32``, or ``16-32`` for lengths drawn evenly from a range."""

    symbols: int = 20
    length: int | str = 32
    chain_seed: int = 0

    def __post_init__(self) -> None:
        toy_vocabulary(self.symbols)
        low, high = self.range
        if not 1 <= low <= high:
            raise InputError(f"data.length={self.length!r}: need a positive length, or low-high with low <= high")

    @property
    def range(self) -> tuple[int, int]:
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", str(self.length))
        if match is None:
            raise InputError(f"data.length={self.length!r}: give a number such as 32 or a range such as 16-32")
        return int(match[1]), int(match[2] or match[1])


class ToyDomain:
    """Sequences of a Markov chain written as letters. Data are drawn from the chain, so there is no end of them.

    The bundled teacher is a small network trained on the default chain; ``teacher("exact")`` is the chain itself.
    """

    name = "toy"
    suffix = ".jsonl"

    def __init__(self, settings: ToySettings | None = None, *, chain: MarkovChain | None = None) -> None:
        self.settings = settings or ToySettings(symbols=chain.symbols if chain else 20)
        if chain is not None and chain.symbols != self.settings.symbols:
            raise InputError(f"the chain has {chain.symbols} symbols and the settings say {self.settings.symbols}")
        self.is_default = chain is None and (self.settings.symbols, self.settings.chain_seed) == (20, 0)
        self.chain = chain or default_chain(self.settings.symbols, self.settings.chain_seed)
        self.vocabulary = toy_vocabulary(self.settings.symbols)
        self._letters = (self.vocabulary.tokens or ())[: self.settings.symbols]
        self._ids = {letter: i for i, letter in enumerate(self._letters)}

    # --- sequences

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """As many masks as asked for in each row, padding on the right."""
        if not len(lengths) or min(lengths) < 1:
            raise InputError(f"lengths={list(lengths)[:5]}: a sequence has at least one symbol")
        size = torch.tensor(list(lengths))
        inside = torch.arange(int(size.max())) < size[:, None]
        return torch.where(inside, self.vocabulary.mask, self._pad)

    @property
    def _pad(self) -> int:
        return self.settings.symbols

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """n lengths, evenly from the domain's range."""
        low, high = self.settings.range
        drawn: list[int] = torch.randint(low, high + 1, (n,), generator=generator, device=generator.device).tolist()
        return drawn

    def encode(self, text: str) -> list[int]:
        """One id per letter. Raises InputError for a letter that is not a symbol of the chain."""
        try:
            return [self._ids[letter] for letter in text]
        except KeyError as error:
            position = text.index(error.args[0]) + 1
            known = "".join(self._letters)
            raise InputError(
                f"letter {error.args[0]!r} at position {position} is not a symbol of the toy chain: {known}"
            ) from error

    def decode(self, tokens: Sequence[int]) -> str:
        """The letters, padding dropped, a mask as ``_``."""
        letters = []
        for token in map(int, tokens):
            if 0 <= token < self.settings.symbols:
                letters.append(self._letters[token])
            elif token == self.vocabulary.mask:
                letters.append("_")
            elif token != self._pad:
                raise InputError(f"token {token} is outside the toy vocabulary of {self.vocabulary.size} tokens")
        return "".join(letters)

    # --- networks

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """``bundled``: a small trained network; ``exact``: the chain's posterior; else a folder or run directory."""
        if name == EXACT:
            return ExactTeacher(self.chain).eval()
        folder = asset("teacher") if name == BUNDLED else Path(name)
        if name == BUNDLED and not self.is_default:
            raise InputError(
                "the bundled teacher knows the default chain only (data.symbols=20, data.chain_seed=0). "
                "Set teacher to the run directory of a pretrain on this one."
            )
        if not folder.exists():
            if name == BUNDLED:
                raise InputError(f"the bundled teacher is not installed ({folder}). Set teacher=<run directory>.")
            raise unknown("teacher", name, [BUNDLED, EXACT, "<run directory>", "<folder with card.json>"])
        from didi_core.checkpoints.card import load_denoiser

        return load_denoiser(folder).eval()

    def scorer(self, teacher: Denoiser, trainable_blocks: int = 1) -> Scorer:
        """A scorer whose trunk is a copy of the teacher's, the last blocks and the norms trainable."""
        if isinstance(teacher, ExactTeacher):
            raise InputError("the exact teacher is no network to make a scorer of. Set teacher=bundled.")
        from didi_core.models.scorer import scorer_from_trunk

        return scorer_from_trunk(teacher, trainable_blocks)

    # --- data

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless fresh draws from the chain, a function of (split, seed, number of the batch) alone."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if batch_size < 1 or start < 0:
            raise InputError(f"batch_size={batch_size}, start={start}: need a positive batch size and start >= 0.")
        return self._endless(split, batch_size, seed, start)

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        while True:
            yield self._draw(batch_size, generator(seed, "toy batches", split, start))
            start += 1

    def _draw(self, n: int, stream: torch.Generator) -> Int[Tensor, "n L"]:
        lengths = torch.tensor(self.lengths(n, stream))
        x = self.chain.sample(n, int(lengths.max()), stream)
        return torch.where(torch.arange(x.shape[1]) < lengths[:, None], x, self._pad)

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """n sequences of the chain from a stream of their own."""
        tokens = self._draw(n, generator(seed, "toy held out"))
        return [Sample(self.decode(row), f"held_out_{i}") for i, row in enumerate(tokens.tolist(), start=1)]

    def metrics(self) -> list[Metric]:
        """Exact likelihood first, then token entropy, divergences from the chain and the share of distinct samples.

        The energy distance needs the bundled teacher's features, so it is there for the default chain only.
        """
        unigram = self._pairs(0).diagonal()
        metrics: list[Metric] = [
            ChainNLL(self.chain, self.encode),
            TokenEntropy(self.encode),
            PairDivergence(self._pairs(1), self.encode, 1, "pair_kl", "pair KL"),
            PairDivergence(self._pairs(4), self.encode, 4, "pair_kl_4", "pair KL, lag 4"),
            PairDivergence(unigram, self.encode, 0, "unigram_kl", "unigram KL"),
            DistinctFraction(),
        ]
        return [*metrics, self._energy] if self.is_default else metrics

    @cached_property
    def _energy(self) -> EnergyDistance:
        """Features are the bundled teacher's; the reference is drawn from the chain, apart from held-out data."""
        return EnergyDistance(
            TrunkFeatures(self.teacher(BUNDLED), self.encode), lambda: FeatureReference.load(asset(FEATURES))
        )

    def _pairs(self, lag: int) -> np.ndarray:
        """Exact pair probabilities over the domain's lengths: a longer sequence has more pairs."""
        low, high = self.settings.range
        total = torch.zeros_like(self.chain.transition)
        for length in range(max(low, lag + 1), max(high, lag + 1) + 1):
            total += (length - lag) * self.chain.pairs(lag, length)
        return np.asarray((total / total.sum()).numpy())

    def write(self, path: Path, samples: Sequence[Sample]) -> None:
        """JSON lines; complete or absent."""
        write_jsonl(path, samples)

    def read(self, path: Path) -> list[Sample]:
        """Samples from JSON lines. Raises InputError with file and line for anything that is not a toy sequence."""
        return read_jsonl(path, check=self.encode)


def create(**data: Any) -> ToyDomain:
    """The domain from the keys of the ``data`` config group: ``symbols``, ``length``, ``chain_seed``."""
    known = [field.name for field in dataclasses.fields(ToySettings)]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"data.{key} is no setting of the toy domain.{hint} Known: {', '.join(known)}.")
    return ToyDomain(ToySettings(**data))
