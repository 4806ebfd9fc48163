"""Anybody's samples: JSON lines, FASTA or plain text, read by their suffix and checked token by token.

Evaluation reads samples, not models, so a peer's output gets the same numbers as ours. Files of one label are parts of
one set: they are measured together, and the numbers are those of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from didi_core.errors import InputError
from didi_core.storage.jsonl import read_jsonl
from didi_core.types import Domain, Sample

JSONL = (".jsonl", ".ndjson")
TEXT = (".txt", ".text")
FASTA = (".fasta", ".fa", ".faa", ".fna")


@dataclass(frozen=True)
class SampleSet:
    """Samples under one label, and what a reader should know of them."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def read_sets(domain: Domain, paths: Sequence[Path], labels: Sequence[str] = ()) -> dict[str, SampleSet]:
    """Sets by label, in the order given; without labels each file's name (its path where two names are equal).

    Raises:
        InputError: labels that are not as many as the files, a file that cannot be read (with its line).
    """
    if labels and len(labels) != len(paths):
        raise InputError(
            f"labels={list(labels)} are {len(labels)} for {len(paths)} files of samples: give one label for each file, "
            "the same one for parts of one set."
        )
    names = [path.name for path in paths]
    shown = labels or (names if len(set(names)) == len(names) else [str(path) for path in paths])
    read: dict[str, list[Sample]] = {}
    for path, label in zip(paths, shown, strict=True):
        read.setdefault(label, []).extend(read_samples(domain, path))
    return {label: SampleSet(tuple(samples), _notes(label, samples)) for label, samples in read.items()}


def read_samples(domain: Domain, path: Path) -> list[Sample]:
    """Samples of a file, by suffix; the domain itself reads its own kind, and whatever has a suffix of no meaning.

    JSON lines have a string ``text`` each; plain text has one sample a line; FASTA has records. A sample that is empty
    is kept: metrics that need a token leave it out and say so.

    Raises:
        InputError: with file and line: unreadable, truncated, or of another domain or tokenizer.
    """
    kind = path.suffix.lower()
    if kind == domain.suffix:
        samples = domain.read(path)
    elif kind in JSONL:
        samples = read_jsonl(path, check=domain.encode)
    elif kind in TEXT:
        samples = list(_checked(domain, path, _plain_lines(path)))
    elif kind in FASTA:
        samples = list(_checked(domain, path, _fasta_records(path)))
    else:
        samples = domain.read(path)
    if not any(sample.text for sample in samples):
        raise InputError(f"{path}: all of its {len(samples)} samples are empty: there is nothing to measure.")
    return samples


def overlap(reference: Sequence[Sample], training: Sequence[str]) -> int:
    """How many of the reference sequences are in the training set, letter by letter."""
    known = set(training)
    return sum(sample.text in known for sample in reference)


def _notes(label: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    lengths = Counter(len(sample.text) for sample in samples)
    said = []
    if lengths[0]:
        share = f"{lengths[0]:,} of {len(samples):,}"
        said.append(f"{label}: {share} samples are empty, and left out by metrics that need tokens.")
    if len(lengths) == 1 and len(samples) > 1:
        said.append(f"{label}: all samples have {next(iter(lengths)):,} characters, so lengths say nothing of it.")
    return tuple(said)


def _checked(domain: Domain, path: Path, found: Iterator[tuple[int, str, str]]) -> Iterator[Sample]:
    """Samples whose text the domain can encode; the error names the line, and what to suspect when it is the first."""
    encode: Callable[[str], list[int]] = domain.encode
    number = 0
    for number, (line, name, text) in enumerate(found, start=1):
        try:
            encode(text)
        except InputError as error:
            hint = f" Is the file of another domain than {domain.name}?" if number == 1 else ""
            raise InputError(f"{path}, line {line}: {error}{hint}") from None
        yield Sample(text, name or f"seq_{number}")
    if not number:
        raise InputError(f"{path}: the file has no samples.")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}). Give the path of a file of samples.") from None
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            yield number, line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: byte 0x{line[error.start]:02x} is not UTF-8 text.") from None


def _plain_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Every line is a sample, an empty one too; what follows the last line break is none."""
    lines = list(_lines(path))
    while lines and not lines[-1][1]:
        lines.pop()
    for number, text in lines:
        yield number, "", text


def _fasta_records(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line of the header, first word of the header, sequence)."""
    header: tuple[int, str] | None = None
    parts: list[str] = []
    for number, line in _lines(path):
        if line.startswith(">"):
            if header is not None:
                yield *header, "".join(parts)
            header, parts = (number, (line[1:].split() or [""])[0]), []
        elif line.strip():
            if header is None:
                raise InputError(f"{path}, line {number}: a FASTA record begins with '>', got {line[:40]!r}.")
            parts.append(line.strip())
    if header is not None:
        yield *header, "".join(parts)
