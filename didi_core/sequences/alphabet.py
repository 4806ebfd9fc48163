"""Domains of sequences over an alphabet: subclass ``AlphabetDomain`` and name the letters.

    class Dna(AlphabetDomain):
        name, alphabet = "dna", "ACGT"

is a complete domain: files in FASTA, JSON lines or plain lines, a split, batches, lengths, templates, a scorer, a
default quality and the negative controls. Any method can be overridden. Letters may have several characters:
``alphabet = ("C", "N", "O", "Cl", "Br")``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.checkpoints.card import has_card, model_folder, read_card
from didi_core.checkpoints.hub import on_disk
from didi_core.config import user_path
from didi_core.domain.data_report import SHOWN, DataReport, kind_of
from didi_core.errors import InputError
from didi_core.letters import Letters, UnknownLetter, letters, spelled
from didi_core.metrics.samples import DistinctFraction, KmerDivergence, TokenEntropy
from didi_core.sequences.batches import epoch_batches, padded
from didi_core.sequences.tokenizer import SpelledAsTokens
from didi_core.sequences.tokens import BUNDLED, TokenDomain
from didi_core.sequences.usable import held_out_by_content, within_limits
from didi_core.storage.records import Reading
from didi_core.storage.sample_files import ON_BAD, read_file
from didi_core.storage.sample_store import Chosen, Joined, texts_of
from didi_core.types import Denoiser, Metric, Sample, Vocabulary


class AlphabetDomain(SpelledAsTokens, TokenDomain):
    """A domain (``didi_core.types.Domain``) whose tokens are letters, with or without special tokens around them.

    Args:
        path: file or files of natural sequences. Sampling from a run needs none.
        min_length, max_length: shorter and longer sequences are left out of the data.
        on_bad: whether a record of the data that is not such a sequence is left out (``skip``) or an ``error``.
        allow_loss: whether more than half of the records may be left out.
        column: column of the sequences in JSON lines and tables; by default ``text``, or else ``sequence``.
        unpacked_limit: largest unpacked size of a packed file in bytes; by default 100 times its size, at least 32 MiB.
        validation: share of the sequences that is held out, chosen by their content. Of identical sequences only the
            first is kept.
        split_seed: seed of the split.
    """

    alphabet: str | tuple[str, ...]
    word: ClassVar[int] = 2  # length of the words whose frequencies the default quality compares
    pool: ClassVar[int] = 1  # batches whose sequences are sorted by length together: more means less padding

    def __init__(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        min_length: int = 1,
        max_length: int = 512,
        on_bad: str = "error",
        allow_loss: bool = False,
        column: str | None = None,
        unpacked_limit: int | None = None,
        validation: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if not 1 <= min_length <= max_length:
            raise InputError(f"data.min_length={min_length}, data.max_length={max_length}: need 1 <= min <= max.")
        if not 0 < validation < 1:
            raise InputError(f"data.validation={validation} is out of range: it is a share between 0 and 1.")
        if on_bad not in ON_BAD:
            raise InputError(f"data.on_bad={on_bad!r}: choose 'skip' or 'error'.")
        if path is not None and not isinstance(path, str | Path) and not path:
            raise InputError("data.path is empty: give at least one file.")
        self.paths = tuple(user_path(p) for p in ([path] if isinstance(path, str | Path) else path or ()))
        self.min_length, self.max_length = min_length, max_length
        self.on_bad, self.allow_loss = on_bad, allow_loss
        self.column, self.unpacked_limit = column, unpacked_limit
        self.validation, self.split_seed = validation, split_seed
        self.vocabulary = self.make_vocabulary()
        self._letters = letters(self.alphabet)
        spellings = self.vocabulary.tokens or ()
        self._id_of = [spellings.index(letter) for letter in self._letters.alphabet]
        self._lengths_of_teacher: dict[int, int] = {}

    def make_vocabulary(self) -> Vocabulary:
        """The vocabulary of the alphabet's letters. Override it for special tokens."""
        return alphabet_vocabulary(self.alphabet)

    # --- sequences

    def normalise(self, text: str) -> str:
        """Normalise a sequence before it is read: upper case, another spelling of a letter. By default nothing."""
        return text

    def identity(self, text: str) -> str:
        """The key of a sequence in the data: of sequences with one key only the first is kept, in one split."""
        return self.normalise(text)

    def refusal(self, position: int, letter: str) -> str:
        """The message for a letter, at a 1-based position, that is not in the alphabet."""
        return (
            f"letter {letter!r} at position {position} is not in the alphabet of {self.name}: {spelled(self.alphabet)}"
        )

    def inner_ids(self, text: str) -> list[int]:
        """One id per letter, without special tokens. Raises InputError for a letter outside the alphabet."""
        normal = self.normalise(text)
        try:
            return [self._id_of[i] for i in self._letters.ids(normal)]
        except UnknownLetter as error:
            written = text if len(text) == len(normal) else normal
            raise InputError(self.refusal(error.position, written[error.position - 1])) from None

    def length(self, text: str) -> int:
        """Letters of a sequence of the data, which is as ``check`` returned it."""
        return len(self.inner_ids(text))

    def encode(self, text: str) -> list[int]:
        """One id per letter, between BOS and EOS if there are any. Raises InputError for an unknown letter."""
        ids = self.inner_ids(text)
        front = [] if self.vocabulary.bos is None else [self.vocabulary.bos]
        return [*front, *ids, *([] if self.vocabulary.eos is None else [self.vocabulary.eos])]

    def decode(self, tokens: Sequence[int]) -> str:
        """The letters without special tokens; a mask is ``_``. Raises InputError for a token that is not a letter."""
        return "".join(self._spelling(int(token)) for token in tokens)

    def _spelling(self, token: int) -> str:
        found = self._spellings.get(token)
        if found is None:
            known = self.vocabulary.tokens or ()
            name = f" ({known[token]})" if 0 <= token < len(known) else ""
            raise InputError(f"token {token}{name} is not a letter of {self.name}.")
        return found

    @cached_property
    def _spellings(self) -> dict[int, str]:
        """Spelling of every token that may be in a sequence."""
        shown = dict(zip(self._id_of, self._letters.alphabet, strict=True))
        return {**shown, **dict.fromkeys(self.vocabulary.frame, ""), self.vocabulary.mask: "_"}

    def check(self, text: str) -> str:
        """The normalised text. Raises InputError for a letter outside the alphabet."""
        self.inner_ids(text)
        return self.normalise(text)

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """Rows with the given numbers of masks, special tokens around them, and padding on the right.

        Raises:
            InputError: there is no length, or one below 1.
        """
        if not len(lengths) or min(lengths) < 1:
            raise InputError(f"lengths={list(lengths)[:5]}: a sequence has at least one letter.")
        return padded([np.full(length, self.vocabulary.mask) for length in lengths], self.vocabulary)

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """n lengths (letters) drawn from those of ``known_lengths``."""
        known = self.known_lengths
        weights = torch.tensor(list(known.values()), dtype=torch.float64)
        drawn = torch.multinomial(weights, n, replacement=True, generator=generator)
        return torch.tensor(list(known))[drawn].tolist()

    @property
    def known_lengths(self) -> dict[int, int]:
        """Number of sequences of each length, in the training data or else by the teacher's card."""
        if not self.paths and self._lengths_of_teacher:
            return self._lengths_of_teacher
        return self._own_lengths

    @cached_property
    def _own_lengths(self) -> dict[int, int]:
        lengths, counts = np.unique(self._row_lengths["train"].numpy(), return_counts=True)
        return dict(zip(lengths.tolist(), counts.tolist(), strict=True))

    # --- networks

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """As ``TokenDomain.teacher``; without data, lengths are drawn from the teacher's card."""
        model = super().teacher(name)
        folder = self.bundled if name == BUNDLED else on_disk(name)
        if folder is not None and has_card(folder):
            known = read_card(model_folder(folder)).get("lengths") or {}
            self._lengths_of_teacher = {int(length): int(count) for length, count in known.items()}
        return model

    # --- data

    @cached_property
    def readings(self) -> dict[Path, Reading]:
        """The content of each file of ``data.path``, with the records that were skipped."""
        advice = "Repair or remove the record, or set data.on_bad=skip to leave such records out."
        return {
            path: read_file(
                path,
                self.check,
                on_bad=self.on_bad,
                empty="the record has no sequence",
                advice=advice,
                column=self.column,
                unpacked=self.unpacked_limit,
            )
            for path in self.paths
        }

    def load(self) -> Sequence[Sample]:
        """All natural sequences. Override it for sequences that do not come from files.

        Raises:
            InputError: there is no file.
        """
        if not self.paths:
            raise InputError(f"domain {self.name} has no data: set data.path to a file of sequences.")
        return Joined(reading.samples for reading in self.readings.values())

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The sequences within the length limits, each once. Raises InputError if most are left out."""
        return self._sorted_out[0]

    @cached_property
    def _sorted_out(self) -> tuple[Sequence[Sample], DataReport]:
        """The usable sequences, and the report on all records."""
        loaded = self.load()
        readings = self.__dict__.get("readings", {})  # empty if ``load`` does not read files
        skipped = [(path, one) for path, reading in readings.items() for one in reading.skipped]
        unread = Counter(kind_of(one.reason) for _, one in skipped)
        usable = within_limits(texts_of(loaded), self.length, self.identity, (self.min_length, self.max_length))
        report = DataReport(
            tuple(map(str, self.paths)) or (self.name,),
            len(loaded) + len(skipped),
            {},
            {**unread, **usable.left_out},
            {"repeated": usable.repeated} if usable.repeated else {},
            examples=tuple(f"{path}, line {one.line} {one.id!r}: {one.reason}" for path, one in skipped[:SHOWN]),
        )
        report.check_loss(self.allow_loss)
        return Chosen(loaded, usable.numbers), report

    def data_report(self) -> DataReport | None:
        """The report on the records of ``data.path``; None without it."""
        if not self.paths:
            return None
        samples, report = self._sorted_out
        splits = {split: len(members) for split, members in self.splits.items()}
        apart = len(samples) - sum(splits.values())
        aside = {**report.set_aside, **({"relatives of held-out ones": apart} if apart > 0 else {})}
        return replace(report, splits=splits, set_aside=aside)

    def divide(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Sample]]:
        """The samples of each split. The split of a sequence depends only on its content, and not on other data.

        Override it where relatives must stay together.
        """
        keys = (f"{self.split_seed}/{self.identity(text)}" for text in texts_of(samples))
        held = held_out_by_content(keys, len(samples), self.validation)
        return {"train": Chosen(samples, np.flatnonzero(~held)), "validation": Chosen(samples, np.flatnonzero(held))}

    @cached_property
    def splits(self) -> Mapping[str, Sequence[Sample]]:
        """The samples of ``train`` and ``validation``. Raises InputError if one of them is empty."""
        splits = self.divide(self.samples)
        for split, samples in splits.items():
            if not len(samples):
                where = ", ".join(map(str, self.paths)) or self.name
                raise InputError(
                    f"the {split} split of {where} is empty: {len(self.samples)} different sequences of "
                    f"{self.min_length} to {self.max_length} letters are too few, or data.validation={self.validation} "
                    "does not suit them."
                )
        return splits

    def training_set(self) -> list[str]:
        """Texts of the training split of ``data.path``; an empty list without it."""
        return list(texts_of(self.splits["train"])) if self.paths else []

    @cached_property
    def _row_lengths(self) -> dict[str, Int[Tensor, "n"]]:
        """Letters of each sequence. Their ids are made batch by batch: of a million they would take gigabytes."""
        return {
            split: torch.from_numpy(np.fromiter(map(self.length, texts_of(samples)), np.int64, len(samples)))
            for split, samples in self.splits.items()
        }

    def _row(self, sample: Sample) -> np.ndarray:
        """Ids of a sequence, without special tokens."""
        return np.array(self.inner_ids(sample.text), dtype=np.int64)

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        return self._shuffled(split, self._row_lengths[split], batch_size, seed, start)

    def _shuffled(
        self, split: str, lengths: Int[Tensor, "n"], batch_size: int, seed: int, start: int
    ) -> Iterator[Int[Tensor, "B L"]]:
        samples = self.splits[split]
        epoch, skip = divmod(start, -(-len(samples) // batch_size))
        while True:
            batches = epoch_batches(lengths, batch_size, self.pool, self.stream(seed, "batches", split, epoch))
            for number in range(skip, len(batches)):
                stream = self.stream(seed, "augment", split, epoch, number)
                rows = [self.augment(self._row(samples[i]), stream) for i in batches[number].tolist()]
                yield padded(rows, self.vocabulary)
            epoch, skip = epoch + 1, 0

    def augment(self, row: np.ndarray, stream: torch.Generator) -> np.ndarray:
        """A random variant of a sequence of a batch, such as a reverse complement. The default is the same sequence.

        Args:
            row: ids without special tokens.
        """
        del stream
        return row

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """Up to n sequences of the validation split, shuffled."""
        samples = self.splits["validation"]
        order = torch.randperm(len(samples), generator=self.stream(seed, "held out"))
        return [samples[i] for i in order[:n].tolist()]

    # --- evaluation

    def quality(self) -> Metric:
        """What students are judged by, lower is better: here words of ``word`` letters against the training data."""
        return KmerDivergence.against(texts_of(self.splits["train"]), self.alphabet, self.word, self.normalise)

    def further_metrics(self) -> list[Metric]:
        """Metrics beside quality, entropy and distinctness: here the energy distance, where a teacher is bundled."""
        return list(self.energy)

    def entropy(self) -> Metric:
        """Entropy within a sample, of its letters."""
        return TokenEntropy(lambda sample: self.inner_ids(sample.text))

    def metrics(self) -> list[Metric]:
        """Quality, entropy of the letters, share of distinct samples, then ``further_metrics``."""
        return [self.quality(), self.entropy(), DistinctFraction(), *self.further_metrics()]


def alphabet_vocabulary(alphabet: str | Sequence[str]) -> Vocabulary:
    """One token a letter and a pad token after them; the mask follows."""
    known = Letters(tuple(alphabet)).alphabet
    return Vocabulary(len(known) + 1, forbidden=(len(known),), pad=len(known), tokens=(*known, "<pad>"))
