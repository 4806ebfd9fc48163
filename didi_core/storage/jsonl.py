"""Samples as JSON lines: one object per line with ``id``, ``text`` and whatever else is known of the sample."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
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


def read_jsonl(path: str | Path, check: Callable[[str], Any] | None = None) -> list[Sample]:
    """Read what ``write_jsonl`` wrote; only ``text`` is required. ``check(text)`` may raise InputError.

    Raises InputError with file and line for a missing, empty or binary file, a line that is no JSON object, a bad text.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}). Give the path of a JSON-lines file.") from error
    samples = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            samples.append(_parse(line, f"{path}, line {number}", check))
    if not samples:
        raise InputError(f"{path}: the file has no samples. A JSON-lines file has one object with a 'text' per line.")
    return samples


def _parse(line: bytes, where: str, check: Callable[[str], Any] | None) -> Sample:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte 0x{line[error.start]:02x} is not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno}).") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        shown = line[:40].decode("utf-8", "replace")
        raise InputError(f"{where}: expected an object with a string 'text', got {shown!r}.")
    text, name, tokens = row.pop("text"), row.pop("id", ""), row.pop("tokens", None)
    if tokens is not None and not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        raise InputError(f"{where}: 'tokens' is not a list of whole numbers.")
    if check is not None:
        try:
            check(text)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return Sample(text=text, id=str(name), tokens=None if tokens is None else tuple(tokens), info=row)
