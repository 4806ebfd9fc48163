"""Samples as JSON lines: one object per line with ``id``, ``text`` and whatever else is known of the sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.storage.records import Record
from didi_core.storage.text_file import UNPACKED, numbered_lines
from didi_core.types import Sample

KEPT = ("id", "text", "tokens")  # keys of a row that are not the sample's info


def write_jsonl(path: str | Path, samples: Sequence[Sample]) -> None:
    """Write ``{"id": ..., "text": ..., "tokens": [...], key: value, ...}`` per sample, tokens where they are known.

    The same samples give the same bytes. The file is complete or absent. An empty id becomes ``seq_1``, ``seq_2``, ...
    Raises InputError when the disk refuses or a value is no JSON.
    """
    path = Path(path)
    try:
        write_atomic(path, "".join(_line(sample, number) + "\n" for number, sample in enumerate(samples, start=1)))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def _line(sample: Sample, number: int) -> str:
    taken = {*KEPT} & sample.info.keys()
    if taken:
        raise InputError(f"sample {number}: info has the keys {sorted(taken)}, which a row keeps for the sample itself")
    tokens = {} if sample.tokens is None else {"tokens": list(sample.tokens)}
    row = {"id": sample.id or f"seq_{number}", "text": sample.text, **tokens, **sample.info}
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample {number} ({row['id']!r}) cannot be written as JSON: {error}") from error


def jsonl_records(path: Path, column: str = "text", unpacked: int = UNPACKED) -> Iterator[Record]:
    """Rows of JSON lines as records: ``column``, ``id``, ``tokens``, and the other keys as info. Blank lines are none.

    A row that is no JSON object with a text has a ``problem``. Raises InputError for what ``numbered_lines`` refuses.
    """
    for number, line in numbered_lines(path, unpacked=unpacked):
        if line.strip():
            yield _record(line, number, column)


def _record(line: str, number: int, column: str) -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return Record(number, "", problem=f"not JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a list in a list in a list ...
        return Record(number, "", problem=f"no JSON that can be read ({error})")
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        return Record(number, "", problem=_no_text(row, line, column))
    text, name, tokens = row.pop(column), row.pop("id", ""), row.pop("tokens", None)
    if tokens is not None and not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        return Record(number, "", str(name), problem="'tokens' is not a list of whole numbers")
    return Record(number, text, str(name), row, None if tokens is None else tuple(tokens))


def _no_text(row: Any, line: str, column: str) -> str:
    if isinstance(row, dict) and column in row:
        shown = json.dumps(row[column], ensure_ascii=False)
        return f"column {column!r} is {shown[:40]}, not text"
    return f"expected an object with a string {column!r}, got {line[:40]!r}"
