"""Samples from any program: FASTA, JSON lines, tables or plain text, with one reader for each format.

Evaluation reads samples, not models, so output of other code gets the same measurements as ours. Files with the same
label form one set and are measured together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from didi_core.errors import InputError
from didi_core.storage.fasta import Kinds, fasta_records
from didi_core.storage.jsonl import jsonl_records
from didi_core.storage.records import Reading, Record, Skipped
from didi_core.storage.sample_store import SampleStore
from didi_core.storage.tables import table_records
from didi_core.storage.text_file import numbered_lines
from didi_core.types import Domain, Sample

FASTA, JSONL, TABLE, TEXT = "FASTA", "JSON lines", "CSV and TSV", "plain text"
SUFFIXES = {
    FASTA: (".fasta", ".fa", ".faa", ".fna", ".fas", ".ffn", ".mpfa"),
    JSONL: (".jsonl", ".ndjson", ".json"),
    TABLE: (".csv", ".tsv"),
    TEXT: (".txt", ".text"),
}
ON_BAD = ("skip", "error")
REPEATED = ("rename", "error")


@runtime_checkable
class ChecksText(Protocol):
    """A domain that checks and normalises the text of a file."""

    def check(self, text: str) -> str:
        """The normalised text. Raises InputError for a text that cannot be used."""
        ...


@dataclass(frozen=True)
class SampleSet:
    """Samples under one label, with notes for the reader of a report."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def format_of(path: Path) -> str | None:
    """The format by a file's name, without ``.gz``; None for an unknown suffix."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return next((kind for kind, known in SUFFIXES.items() if suffix in known), None)


def records_of(
    path: Path, kind: str | None = None, *, column: str | None = None, unpacked: int | None = None
) -> Iterator[Record]:
    """The records of a file, one after another. In plain text every line is a sample, also an empty one.

    Args:
        kind: its format; by default that of its name, or else of its first line.
        column: column of the text in JSON lines and tables; by default ``text``, or else ``sequence``.
    """
    kind = kind or format_of(path) or sniffed(path, unpacked)
    if kind == FASTA:
        return fasta_records(path, unpacked)
    if kind == JSONL:
        return jsonl_records(path, column, unpacked)
    if kind == TABLE:
        return table_records(path, column, unpacked)
    return _plain_lines(path, unpacked)


def sniffed(path: Path, unpacked: int | None = None) -> str:
    """The format of a file by its first line that is not blank: ``>`` begins FASTA, ``{`` or ``[`` JSON."""
    for _, line in numbered_lines(path, unpacked=unpacked):
        if text := line.strip():
            return {">": FASTA, "{": JSONL, "[": JSONL}.get(text[0], TEXT)
    return TEXT


def read_file(
    path: str | Path,
    check: Callable[[str], str] = str,
    *,
    on_bad: str = "error",
    repeated: str = "rename",
    empty: str = "",
    advice: str = "Repair or remove the record.",
    column: str | None = None,
    unpacked: int | None = None,
) -> Reading:
    """All samples of a file, with each text as ``check`` returns it.

    Args:
        check: normalises a text; raises InputError for one that cannot be used.
        on_bad: whether a record that cannot be read is listed (``skip``) or an ``error``.
        repeated: whether a second record of an id gets a number (``rename``), which is counted, or is an ``error``.
        empty: the reason to refuse a record without text; '' keeps such a record. advice: end of an error's message.
        column, unpacked: see ``records_of``.

    Raises:
        InputError: with file, line and record; or if no record is left.
    """
    if on_bad not in ON_BAD:
        raise InputError(f"data.on_bad={on_bad!r}: choose 'skip' or 'error'.")
    path = Path(path)
    skipped: list[Skipped] = []
    first: dict[str, int] = {}
    kind = format_of(path) or sniffed(path, unpacked)
    words = Kinds() if kind in (FASTA, TABLE) else None
    samples = SampleStore(words.typed if words else None)
    for record in records_of(path, kind, column=column, unpacked=unpacked):
        if empty and not record.text and kind == TEXT:
            continue  # a blank line of plain text
        text, problem = _checked(record, check, empty)
        if problem:
            if on_bad == "error":
                shown = f", record {record.id!r}" if record.id else ""
                raise InputError(f"{path}, line {record.line}{shown}: {problem}. {advice}")
            skipped.append(Skipped(record.line, record.id, problem))
            continue
        name = record.id
        if repeated == "error" and name and first.setdefault(name, record.line) != record.line:
            blank = " An id ends at the first blank of its line." if kind == FASTA else ""
            raise InputError(
                f"{path}, line {record.line}: the id {name!r} is there already, in line {first[name]}. "
                f"Give each its own id.{blank}"
            )
        if words:
            words.see(record.info)
        samples.add(text, name, record.tokens, record.info)
    if not samples:
        raise InputError(_nothing_left(path, skipped))
    return Reading(samples, tuple(skipped), samples.number_repeated())


def _checked(record: Record, check: Callable[[str], str], empty: str) -> tuple[str, str]:
    """The text and its problem, '' if it has none."""
    if record.problem:
        return "", record.problem
    try:
        text = check(record.text)
    except InputError as error:
        return "", str(error).rstrip(".")
    return text, "" if text else empty


def _nothing_left(path: Path, skipped: Sequence[Skipped]) -> str:
    if not skipped:
        size = path.stat().st_size
        none = f"there is no record in it. What is read: {', '.join(SUFFIXES)}."
        return f"{path}: {none if size else 'the file is empty.'}"
    first = skipped[0]
    return (
        f"{path}: all {len(skipped):,} records were skipped, so nothing is left. "
        f"The first, line {first.line}, record {first.id!r}: {first.reason}."
    )


def read_sets(domain: Domain, paths: Sequence[Path], labels: Sequence[str] = ()) -> dict[str, SampleSet]:
    """Sets by label, in the given order; without labels, by the file's name (its path where two names are equal).

    Raises:
        InputError: the numbers of labels and files differ, or a file cannot be read (with its line).
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
    """Samples of a file; the domain itself reads its own format and files with an unknown suffix.

    An empty sample is kept; metrics that need a token leave it out and report that.

    Raises:
        InputError: with file and line: unreadable, truncated, or of another domain or tokenizer.
    """

    def encodes(text: str) -> str:
        domain.encode(text)
        return text

    check = domain.check if isinstance(domain, ChecksText) else encodes
    kind = format_of(path)
    if kind is None or kind == format_of(Path(f"x{domain.suffix}")):
        samples = domain.read(path)
    else:
        advice = f"Repair or remove the record. Does the file belong to another domain than {domain.name}?"
        samples = list(read_file(path, check, advice=advice).samples)
    if not any(sample.text for sample in samples):
        raise InputError(f"{path}: all of its {len(samples)} samples are empty: there is nothing to measure.")
    return samples


def _notes(label: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    lengths = Counter(len(sample.text) for sample in samples)
    notes = []
    if lengths[0]:
        share = f"{lengths[0]:,} of {len(samples):,}"
        notes.append(f"{label}: {share} samples are empty, and left out by metrics that need tokens.")
    if len(lengths) == 1 and len(samples) > 1:
        notes.append(f"{label}: all samples have {next(iter(lengths)):,} characters, so lengths say nothing of it.")
    return tuple(notes)


def _plain_lines(path: Path, unpacked: int | None) -> Iterator[Record]:
    """Every line is a sample, also an empty one; nothing follows the last line break."""
    blank: list[int] = []
    for number, line in numbered_lines(path, unpacked=unpacked):
        if not line:
            blank.append(number)
            continue
        yield from (Record(n, "") for n in blank)
        blank.clear()
        yield Record(number, line)
