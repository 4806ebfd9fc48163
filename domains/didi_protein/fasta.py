"""FASTA in and out, plain or gzip, through Biopython; a refusal names the file, line, record and letter."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqIO.FastaIO import SimpleFastaParser
from Bio.SeqRecord import SeqRecord

from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.types import Sample

from .vocabulary import describe_letter, first_other_letter

ON_BAD = ("skip", "error")
GZIP_MAGIC = b"\x1f\x8b"
_KEY_VALUE = re.compile(r"([A-Za-z_][\w.\-]*)=(\S+)")
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")


@dataclass(frozen=True)
class Skipped:
    """A record that was left out: the line of its header (1-based), its id, and why."""

    line: int
    id: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a FASTA file held. ``renamed``: records with a repeated id (suffix ``_2``, ...) or none (``seq_1``, ...)."""

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()
    renamed: int = 0

    def summary(self, show: int = 3) -> str:
        """One sentence for a log: how many were read and skipped, with the first reasons."""
        text = f"{len(self.samples):,} sequences"
        if self.renamed:
            text += f", {self.renamed:,} renamed (id repeated or missing)"
        if self.skipped:
            first = "; ".join(f"line {s.line} {s.id!r}: {s.reason}" for s in self.skipped[:show])
            more = f"; and {len(self.skipped) - show:,} more" if len(self.skipped) > show else ""
            text += f", {len(self.skipped):,} skipped ({first}{more})"
        return text


def read_fasta(
    path: str | Path,
    *,
    min_length: int = 1,
    max_length: int | None = None,
    on_bad: str = "error",
    repeated: str = "rename",
) -> Reading:
    """Read proteins from a FASTA file, plain or gzip (told by its first bytes, not its name).

    Lower case is read as upper case. A record without a sequence, with a letter outside the 20 amino acids, or with a
    length outside ``[min_length, max_length]`` is skipped and listed, or raises, as ``on_bad`` says. ``key=value``
    words of the header become ``Sample.info`` (numbers are converted). A repeated id is kept with a suffix, and
    counted, or raises, as ``repeated`` says.

    Raises InputError: no such file, a folder, unreadable, empty, binary or truncated, text before the first ``>``,
    nothing left after skipping.
    """
    if on_bad not in ON_BAD:
        raise InputError(f"data.on_bad={on_bad!r}: choose 'skip' or 'error'.")
    path = Path(path)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    used: dict[str, int] = {}
    first: dict[str, int] = {}
    renamed = 0
    for line, title, sequence in _records(path):
        name, info = parse_header(title)
        reason = _what_is_wrong(sequence, min_length, max_length)
        if reason is not None:
            if on_bad == "error":
                fix = "Mend or remove the record, or set data.on_bad=skip to leave such records out."
                raise InputError(f"{path}, line {line}, record {name!r}: {reason}. {fix}")
            skipped.append(Skipped(line, name, reason))
            continue
        if repeated == "error" and name and first.setdefault(name, line) != line:
            raise InputError(
                f"{path}, line {line}: the id {name!r} is there already, in line {first[name]}. Give each its own id."
            )
        unique = _unique(name or f"seq_{len(samples) + 1}", used)
        renamed += unique != name
        samples.append(Sample(text=sequence.upper(), id=unique, info=info))
    if not samples:
        raise InputError(_nothing_left(path, skipped))
    return Reading(tuple(samples), tuple(skipped), renamed)


def _unique(name: str, used: dict[str, int]) -> str:
    """The name, or name_2, name_3, ... where it is taken; ``used`` remembers the last number of each."""
    unique, number = name, used.get(name, 0)
    while unique in used:
        number += 1
        unique = f"{name}_{number + 1}"
    used[name] = number
    used.setdefault(unique, 0)
    return unique


def _what_is_wrong(sequence: str, min_length: int, max_length: int | None) -> str | None:
    if not sequence:
        return "the record has no sequence"
    bad = first_other_letter(sequence)
    if bad is not None:
        return describe_letter(*bad)
    if len(sequence) < min_length:
        return f"{len(sequence)} residues are fewer than data.min_length={min_length}"
    if max_length is not None and len(sequence) > max_length:
        return f"{len(sequence)} residues are more than data.max_length={max_length}"
    return None


def _nothing_left(path: Path, skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return f"{path}: there is no record in it. A FASTA file has a line '>name' before each sequence."
    first = skipped[0]
    return (
        f"{path}: all {len(skipped):,} records were skipped, so nothing is left. "
        f"The first, line {first.line}, record {first.id!r}: {first.reason}."
    )


def _records(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line of the header, title, sequence) of each record; Biopython parses, the line numbers are noted on the way."""
    headers: list[int] = []
    with _open_text(path) as handle:
        parser = SimpleFastaParser(_checked_lines(path, handle, headers))
        for number, (title, sequence) in enumerate(parser):
            yield headers[number], title, sequence


def _checked_lines(path: Path, handle: Iterable[str], headers: list[int]) -> Iterator[str]:
    """Pass the lines on, noting where headers are; a file that is not FASTA text raises at its first wrong line."""
    number = 0
    try:
        for number, line in enumerate(handle, start=1):
            if "\0" in line:
                raise InputError(f"{path}, line {number}: binary data, not FASTA text.")
            if line.startswith(">"):
                headers.append(number)
            elif not headers and line.strip():
                shown = line.strip()[:40]
                raise InputError(
                    f"{path}, line {number}: {shown!r} stands before the first '>'. "
                    "A FASTA file has a line '>name' before each sequence."
                )
            yield line
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, after line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8 text. "
            "Is it a FASTA file? Convert it, for instance with iconv -t utf-8."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}, after line {number}: the gzip data is truncated or damaged ({error}). Fetch it again."
        ) from error


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOBase]:
    """The file as text lines (UTF-8, any line ends, a byte-order mark is dropped), unpacked where it is gzip."""
    if not path.exists():
        raise InputError(f"{path}: no such file. Give the path of a FASTA file (data.path=..., input=...).")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder. Give the path of a FASTA file in it.")
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
            if not magic:
                raise InputError(f"{path}: the file is empty.")
            raw.seek(0)
            data: Any = gzip.GzipFile(fileobj=raw) if magic == GZIP_MAGIC else raw
            with io.TextIOWrapper(data, encoding="utf-8-sig") as text:
                yield text
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise InputError(f"{path}: the gzip data is damaged ({error}). Fetch it again.") from error
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def parse_header(title: str) -> tuple[str, dict[str, Any]]:
    """The id (first word) and the ``key=value`` words of a header line without its ``>``; other words are dropped."""
    words = title.split()
    info: dict[str, Any] = {}
    for word in words[1:]:
        match = _KEY_VALUE.fullmatch(word)
        if match:
            info[match.group(1)] = _parse_value(match.group(2))
    return (words[0] if words else ""), info


def format_header(info: Iterable[tuple[str, Any]]) -> str:
    """``key=value key=value``; None is left out, spaces and ``%`` are percent-encoded, floats keep every digit."""
    words = []
    for key, value in info:
        if value is None:
            continue
        word = f"{key}={_format_value(value)}"
        if not _KEY_VALUE.fullmatch(word):
            raise InputError(
                f"cannot write {key!r}={value!r} into a FASTA header: a key is one word and a value not empty"
            )
        words.append(word)
    return " ".join(words)


def _format_value(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) or hasattr(value, "item"):  # numpy scalars too
        return repr(value.item() if hasattr(value, "item") else value)
    return quote(str(value), safe="/:,;+-_.|()[]{}<>@#$&!*'~^?\"\\`=")


def _parse_value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return unquote(text)


def write_fasta(path: str | Path, samples: Sequence[Sample]) -> None:
    """Write ``>id key=value ...`` and the sequence on one line; gzip where the name ends in ``.gz``.

    The file is complete or absent: written under a temporary name in the same folder, synced, renamed. An empty id
    becomes ``seq_1``, ``seq_2``, ... The same samples give the same bytes. Raises InputError when the disk refuses.
    """
    path = Path(path)
    text = io.StringIO()
    SeqIO.write([_record(sample, number) for number, sample in enumerate(samples, start=1)], text, "fasta-2line")
    data = text.getvalue().encode("utf-8")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def _record(sample: Sample, number: int) -> SeqRecord:
    name = sample.id or f"seq_{number}"
    if name.split() != [name]:
        raise InputError(f"the id {name!r} of sample {number} has spaces in it: a FASTA id is one word")
    if not sample.text:
        raise InputError(f"sample {number} ({name!r}) has no residues: nothing to write")
    return SeqRecord(Seq(sample.text), id=name, name="", description=format_header(sample.info.items()))
