"""FASTA in and out, plain or gzip. ``key=value`` words of a header are kept as what is known of a sample."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.storage.records import Record
from didi_core.storage.text_file import UNPACKED, numbered_lines
from didi_core.types import Sample

_KEY = re.compile(r"[A-Za-z_][\w.\-]*")
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")


def fasta_records(path: Path, unpacked: int = UNPACKED) -> Iterator[Record]:
    """Records of a FASTA file: id (first word of the header), header words as info, sequence without white space at
    line ends. Raises InputError for text before the first ``>`` and whatever ``numbered_lines`` refuses."""
    header: tuple[int, str] | None = None
    parts: list[str] = []
    for number, line in numbered_lines(path, unpacked=unpacked):
        if line.startswith(">"):
            if header is not None:
                yield _record(*header, parts)
            header, parts = (number, line[1:]), []
        elif text := line.strip():
            if header is None:
                raise InputError(
                    f"{path}, line {number}: {text[:40]!r} stands before the first '>'. "
                    "A FASTA file has a line '>name' before each sequence."
                )
            parts.append(text)
    if header is not None:
        yield _record(*header, parts)


def _record(line: int, title: str, parts: Sequence[str]) -> Record:
    name, info = parse_header(title)
    return Record(line, "".join(parts).replace(" ", ""), name, info)


def parse_header(title: str) -> tuple[str, dict[str, Any]]:
    """The id (first word) and the ``key=value`` words of a header line without its ``>``; other words are dropped."""
    words = title.split()
    info: dict[str, Any] = {}
    for word in words[1:]:
        key, sign, value = word.partition("=")
        if sign and value and _KEY.fullmatch(key):
            info[key] = _parse_value(value)
    return (words[0] if words else ""), info


def format_header(info: Iterable[tuple[str, Any]]) -> str:
    """``key=value key=value``; None is left out, spaces and ``%`` are percent-encoded, floats keep every digit."""
    words = []
    for key, value in info:
        if value is None:
            continue
        written = _format_value(value)
        if not _KEY.fullmatch(key) or not written:
            raise InputError(
                f"cannot write {key!r}={value!r} into a FASTA header: a key is one word and a value not empty"
            )
        words.append(f"{key}={written}")
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

    The file is complete or absent. An empty id becomes ``seq_1``, ``seq_2``, ... The same samples give the same bytes.
    Raises InputError when the disk refuses, or for what a header cannot hold.
    """
    path = Path(path)
    data = "".join(_written(sample, number) for number, sample in enumerate(samples, start=1)).encode("utf-8")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def _written(sample: Sample, number: int) -> str:
    name = sample.id or f"seq_{number}"
    if name.split() != [name]:
        raise InputError(f"the id {name!r} of sample {number} has spaces in it: a FASTA id is one word")
    if not sample.text:
        raise InputError(f"sample {number} ({name!r}) has no letters: nothing to write")
    return f">{' '.join(filter(None, (name, format_header(sample.info.items()))))}\n{sample.text}\n"
