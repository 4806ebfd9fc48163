"""Domains of sequences over an alphabet: subclass ``AlphabetDomain``, say which letters, and the rest is there.

    class Dna(AlphabetDomain):
        name, alphabet = "dna", "ACGT"

is a whole domain: files in FASTA, JSON lines or plain lines, a split, batches, lengths, templates, a scorer, a default
quality and the negative controls. Every method may be replaced by a better one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from didi_core.checkpoints.card import load_denoiser, model_folder, read_card
from didi_core.errors import InputError, unknown
from didi_core.metrics.samples import DistinctFraction, KmerDivergence, Mean, letter_entropy
from didi_core.models.scorer import scorer_from_trunk
from didi_core.storage.files import write_atomic
from didi_core.storage.jsonl import read_jsonl, write_jsonl
from didi_core.streams import generator
from didi_core.types import Metric, Sample, Vocabulary

SPLITS = ("train", "validation")
BUNDLED = "bundled"
FASTA = (".fasta", ".fa", ".fna", ".faa")


class AlphabetDomain:
    """A domain (``didi_core.types.Domain``) whose tokens are letters.

    Args:
        path: file or files of natural sequences. Sampling from a run needs none.
        min_length, max_length: shorter and longer sequences are left out of the data.
        validation: share of the sequences that is held out, chosen by their content; of identical ones only the first
            is kept.
        split_seed: another split.
    """

    name: ClassVar[str]
    alphabet: ClassVar[str]
    suffix: str = ".jsonl"
    word: ClassVar[int] = 2  # letters of the words whose frequencies the default quality compares
    bundled: ClassVar[Path | None] = None  # folder of a teacher that ships with the package
    pool: ClassVar[int] = 1  # batches whose sequences are sorted by length together: more means less padding

    def __init__(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        min_length: int = 1,
        max_length: int = 512,
        validation: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if not 1 <= min_length <= max_length:
            raise InputError(f"data.min_length={min_length}, data.max_length={max_length}: need 1 <= min <= max.")
        if not 0 < validation < 1:
            raise InputError(f"data.validation={validation} is out of range: it is a share between 0 and 1.")
        self.paths = tuple(Path(p) for p in ([path] if isinstance(path, str | Path) else path or ()))
        self.min_length, self.max_length = min_length, max_length
        self.validation, self.split_seed = validation, split_seed
        self.vocabulary = alphabet_vocabulary(self.alphabet)
        self._ids = {letter: i for i, letter in enumerate(self.alphabet)}
        self._lengths_of_teacher: dict[int, int] = {}

    # --- sequences

    def normalise(self, text: str) -> str:
        """What is done to every sequence before it is read: upper case, another spelling of a letter. Here nothing."""
        return text

    def identity(self, text: str) -> str:
        """What two sequences share that count as one in the data: they are kept once, in one split."""
        return self.normalise(text)

    def encode(self, text: str) -> list[int]:
        """One id per letter. Raises InputError for a letter outside the alphabet."""
        text = self.normalise(text)
        try:
            return [self._ids[letter] for letter in text]
        except KeyError as error:
            at = text.index(error.args[0]) + 1
            raise InputError(
                f"letter {error.args[0]!r} at position {at} is not in the alphabet of {self.name}: {self.alphabet}"
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The letters, padding dropped, a mask as ``_``."""
        letters = []
        for token in map(int, tokens):
            if not 0 <= token <= self.vocabulary.mask:
                raise InputError(f"token {token} is none of the {self.vocabulary.size} of {self.name}.")
            letters.append((*self.alphabet, "", "_")[token])
        return "".join(letters)

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """As many masks as asked for in each row, padding on the right."""
        if not len(lengths) or min(lengths) < 1:
            raise InputError(f"lengths={list(lengths)[:5]}: a sequence has at least one letter.")
        size = torch.tensor(list(lengths))
        inside = torch.arange(int(size.max())) < size[:, None]
        return torch.where(inside, self.vocabulary.mask, len(self.alphabet))

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """n lengths drawn from those of the training data; without data, from those that the teacher's card tells."""
        known = self._lengths_of_teacher
        if self.paths or not known:
            lengths = [len(row) for row in self._tokens["train"]]
            known = {length: lengths.count(length) for length in sorted({*lengths})}
        weights = torch.tensor(list(known.values()), dtype=torch.float64)
        drawn = torch.multinomial(weights, n, replacement=True, generator=generator)
        return torch.tensor(list(known))[drawn].tolist()

    # --- networks

    def teacher(self, name: str = BUNDLED) -> nn.Module:
        """The package's own teacher (``bundled``), or one from a run directory or a folder with card.json."""
        folder = self.bundled if name == BUNDLED else Path(name)
        if folder is None:
            raise InputError(
                f"domain {self.name} has no bundled teacher: train one with `python -m didi_core pretrain "
                f"domain={self.name} data.path=...` and give teacher=<its run directory>."
            )
        if not folder.exists():
            raise unknown("teacher", name, [*([BUNDLED] if self.bundled else []), "<run directory>"])
        model = load_denoiser(folder)
        known = read_card(model_folder(folder)).get("lengths", {})
        self._lengths_of_teacher = {int(length): int(count) for length, count in known.items()}
        return model

    def scorer(self, teacher: nn.Module, trainable_blocks: int = 4) -> nn.Module:
        """A scorer whose trunk is a copy of the teacher's, the last blocks and the norms trainable."""
        return scorer_from_trunk(teacher, trainable_blocks)

    # --- data

    def load(self) -> list[Sample]:
        """All natural sequences. Replace it where they come from somewhere else than files."""
        if not self.paths:
            raise InputError(f"domain {self.name} has no data: set data.path to a file of sequences.")
        return [sample for path in self.paths for sample in self.read(path)]

    @cached_property
    def parts(self) -> dict[str, list[Sample]]:
        """The samples of each split, within the lengths asked for, each one once."""
        first: dict[str, Sample] = {}
        for sample in self.load():
            if self.min_length <= len(self.encode(sample.text)) <= self.max_length:
                first.setdefault(self.identity(sample.text), sample)
        parts: dict[str, list[Sample]] = {split: [] for split in SPLITS}
        for text, sample in first.items():
            digest = hashlib.blake2b(f"{self.split_seed}/{text}".encode(), digest_size=8).digest()
            held = int.from_bytes(digest, "little") / 2**64 < self.validation
            parts["validation" if held else "train"].append(sample)
        for split, samples in parts.items():
            if not samples:
                where = ", ".join(map(str, self.paths)) or self.name
                raise InputError(
                    f"the {split} split of {where} is empty: {len(first)} different sequences of {self.min_length} to "
                    f"{self.max_length} letters are too few, or data.validation={self.validation} does not suit them."
                )
        return parts

    @cached_property
    def _tokens(self) -> dict[str, list[np.ndarray]]:
        return {
            split: [np.array(self.encode(sample.text), dtype=np.int64) for sample in samples]
            for split, samples in self.parts.items()
        }

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless batches of exactly ``batch_size`` rows, a function of (seed, number of the batch) alone.

        An epoch shows each sequence once; its last batch is filled up from the epoch's beginning.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if batch_size < 1 or start < 0:
            raise InputError(f"batch_size={batch_size}, start={start}: need a positive batch size and start >= 0.")
        return self._endless(split, batch_size, seed, start)

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        rows = self._tokens[split]
        lengths = torch.tensor([len(row) for row in rows])
        epoch, skip = divmod(start, -(-len(rows) // batch_size))
        while True:
            order = generator(seed, self.name, "batches", split, epoch)
            batches = epoch_batches(lengths, batch_size, self.pool, order)
            for number in range(skip, len(batches)):
                stream = generator(seed, self.name, "augment", split, epoch, number)
                batch = [torch.from_numpy(self.augment(rows[i], stream)) for i in batches[number].tolist()]
                yield nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=len(self.alphabet))
            epoch, skip = epoch + 1, 0

    def augment(self, row: np.ndarray, stream: torch.Generator) -> np.ndarray:
        """A sequence of a batch as another of the same kind, at random (a reverse complement). Here the same."""
        del stream
        return row

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """Up to n sequences of the validation split, shuffled."""
        samples = self.parts["validation"]
        order = torch.randperm(len(samples), generator=generator(seed, self.name, "held out"))
        return [samples[i] for i in order[:n].tolist()]

    # --- evaluation

    def quality(self) -> Metric:
        """What students are judged by, lower is better: here words of ``word`` letters against the training data."""
        return KmerDivergence.against((s.text for s in self.parts["train"]), self.alphabet, self.word, self.normalise)

    def further_metrics(self) -> list[Metric]:
        """Metrics beside quality, entropy and distinctness."""
        return []

    def metrics(self) -> list[Metric]:
        """Quality, entropy of the letters, share of distinct samples, then ``further_metrics``."""
        return [self.quality(), Mean("entropy", "entropy", letter_entropy), DistinctFraction(), *self.further_metrics()]

    # --- files

    def write(self, path: Path, samples: Sequence[Sample]) -> None:
        """JSON lines, or FASTA with the samples' info as ``key=value`` words, by ``suffix``; complete or absent."""
        if self.suffix not in FASTA:
            write_jsonl(path, samples)
            return
        records = []
        for number, sample in enumerate(samples, start=1):
            words = [sample.id or f"seq_{number}", *(f"{key}={value}" for key, value in sample.info.items())]
            records.append(f">{' '.join(words)}\n{sample.text}\n")
        write_atomic(path, "".join(records))

    def read(self, path: Path) -> list[Sample]:
        """Samples of a file: JSON lines (``.jsonl``), FASTA (``.fasta``, ``.fa``, ``.fna``, ``.faa``), else one a line.
        A FASTA or text file may be packed (``.gz``).

        Raises InputError with file and place for whatever is not in the alphabet.
        """
        path = Path(path)
        kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if kind == ".jsonl" and path.suffix != ".gz":
            return read_jsonl(path, check=self.encode)
        samples = [Sample(text, name) for name, text in (fasta_records(path) if kind in FASTA else text_lines(path))]
        for number, sample in enumerate(samples, start=1):
            try:
                self.encode(sample.text)
            except InputError as error:
                what = f"record {number} ({sample.id})" if kind in FASTA else sample.id.replace("_", " ")
                raise InputError(f"{path}, {what}: {error}") from None
        if not samples:
            raise InputError(f"{path}: the file has no sequences.")
        return samples


def alphabet_vocabulary(alphabet: str) -> Vocabulary:
    """One token a letter and a pad token after them; the mask follows."""
    if len({*alphabet}) != len(alphabet) or len(alphabet) < 2 or "_" in alphabet or alphabet.split() != [alphabet]:
        raise InputError(f"alphabet={alphabet!r}: give at least two different letters, no '_' and no white space.")
    return Vocabulary(len(alphabet) + 1, forbidden=(len(alphabet),), pad=len(alphabet), tokens=(*alphabet, "<pad>"))


def epoch_batches(lengths: Int[Tensor, "n"], size: int, pool: int, stream: torch.Generator) -> list[Int[Tensor, "B"]]:
    """One epoch of row numbers: shuffle, sort by length in pools of ``pool`` batches, slice, shuffle the batches."""
    n = len(lengths)
    count = -(-n // size)
    order = torch.randperm(n, generator=stream).repeat(-(-count * size // n))[: count * size]
    batches: list[Tensor] = []
    for rows in order.split(pool * size):
        batches.extend(rows[torch.argsort(lengths[rows], stable=True)].split(size))
    return [batches[i] for i in torch.randperm(count, generator=stream).tolist()]


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """``line_<n>`` and text of each line that is not empty."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            yield f"line_{number}", line.strip()


def fasta_records(path: Path) -> Iterator[tuple[str, str]]:
    """Id and sequence of each FASTA record."""
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    content = _text(path)
    if not content.lstrip().startswith(">"):
        raise InputError(f"{path} is no FASTA file: its first line does not begin with '>'.")
    for title, sequence in SimpleFastaParser(io.StringIO(content)):
        yield (title.split() or [""])[0], sequence


def _text(path: Path) -> str:
    """A file's text, unpacked where its name ends in ``.gz``."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8 text.") from None
