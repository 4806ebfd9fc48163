"""Samples as JSON lines: one object per line with ``id``, ``text`` and the sample's other values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.storage.records import Record, no_column, text_column
from didi_core.storage.text_file import SURROGATE, numbered_lines, read_whole, undecoded_byte
from didi_core.types import Sample

_KINDS = {int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON writes a half of a character
KEPT = ("id", "text", "tokens")  # keys of a row that are not the sample's info


def write_jsonl(path: str | Path, samples: Sequence[Sample]) -> None:
    """Write ``{"id": ..., "text": ..., "tokens": [...], key: value, ...}`` per sample, with tokens if they are known.

    The same samples give the same bytes. The file is complete or absent. An empty id becomes ``seq_1``, ``seq_2``, ...
    Raises InputError if the file cannot be written, or a value is not JSON.
    """
    path = Path(path)
    try:
        write_atomic(path, "".join(_line(sample, number) + "\n" for number, sample in enumerate(samples, start=1)))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). Name another place.") from error


def _line(sample: Sample, number: int) -> str:
    taken = {*KEPT} & sample.info.keys()
    if taken:
        raise InputError(
            f"sample {number}: info has the keys {sorted(taken)}, which a row reserves for the sample. "
            "Rename them."
        )
    tokens = {} if sample.tokens is None else {"tokens": list(sample.tokens)}
    row = {"id": sample.id or f"seq_{number}", "text": sample.text, **tokens, **sample.info}
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample {number} ({row['id']!r}) cannot be written as JSON: {error}") from error


def jsonl_records(path: Path, column: str | None = None, unpacked: int | None = None) -> Iterator[Record]:
    """Rows of JSON lines, or of one list of objects, as records: text, ``id``, ``tokens``, and other keys as info.

    A row that is not a JSON object with a text has a ``problem``. Blank lines are skipped.

    Args:
        column: key of the text; by default the first of ``COLUMNS`` that a row has.

    Raises:
        InputError: ``numbered_lines`` refuses the file, or its list is not JSON.
    """
    lines = numbered_lines(path, errors="surrogateescape", unpacked=unpacked)
    listed = False
    for number, line in lines:
        if not line.strip():
            continue
        if line.lstrip().startswith("["):
            listed = True
            break
        yield _record(line, number, column)
        break
    if listed:
        lines.close()
        yield from _of_list(path, column, unpacked)
        return
    for number, line in lines:
        if line.strip():
            yield _record(line, number, column)


def _of_list(path: Path, column: str | None, unpacked: int | None) -> Iterator[Record]:
    whole = read_whole(path, unpacked=unpacked)
    try:
        rows = json.loads(whole)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno}). "
            "Repair the file."
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON that can be read ({error}). Repair the file.") from None
    doubtful = _ESCAPED.search(whole) is not None
    for number, row in enumerate(rows, start=1):
        yield _of_row(row, number, column, doubtful)  # the number of the row: its line is not known


def _record(line: str, number: int, column: str | None) -> Record:
    if undecoded := undecoded_byte(line):
        return Record(number, "", problem=undecoded)
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return Record(number, "", problem=f"not JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or lists nested too deep
        return Record(number, "", problem=f"no JSON that can be read ({error})")
    return _of_row(row, number, column, _ESCAPED.search(line) is not None)


def _of_row(row: Any, number: int, column: str | None, doubtful: bool) -> Record:
    """A row as a record; ``doubtful``: whether it may hold halves of characters."""
    if not isinstance(row, dict):
        return Record(number, "", problem=f"expected an object, got: {_shown(row)}")
    key = column or text_column(row)
    if key not in row:
        return Record(number, "", problem=no_column(column, [k for k, v in row.items() if isinstance(v, str)]))
    text, name, tokens = row.pop(key), row.pop("id", ""), row.pop("tokens", None)
    text = "" if text is None else text
    if not isinstance(text, str):
        problem = f"column {key!r} holds {_KINDS[type(text)]}, not text: {_shown(text)}"
        return Record(number, "", str(name), problem=problem)
    if not text.isascii() and SURROGATE.search(text):
        return Record(number, "", problem=f"column {key!r} holds half of a character (a lone surrogate)")
    if doubtful and SURROGATE.search(json.dumps([name, row], ensure_ascii=False)):
        return Record(number, "", problem="a value beside the text holds half of a character (a lone surrogate)")
    if tokens is not None and not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        return Record(number, "", str(name), problem="'tokens' is not a list of whole numbers")
    return Record(number, text, str(name), row, None if tokens is None else tuple(tokens))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
