"""Work so far: lines that are appended as parts are finished, and read back to go on after a stop."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError, warn
from didi_core.storage.files import parse_json

HEAD = b'{"format": "didi_core.journal/1"}'  # the first line, which older files do not have
CHECK = "check"  # the last entry of every other line: a hash of the rest


def _check(row: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(row))
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Journal:
    """Lines of JSON, each with the id of what it is about and a hash."""

    path: Path

    def rows(self, repair: bool = True) -> dict[str, dict[str, Any]]:
        """All rows by id, without an incomplete last line, which ``repair`` removes from the file.

        Raises:
            InputError: a line is damaged.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:  # none yet, or another run that shares the folder has just removed it
            return {}
        whole = content[: content.rfind(b"\n") + 1]
        if repair and len(whole) < len(content):
            os.truncate(self.path, len(whole))
        lines = whole.splitlines()
        older = not lines or lines[0] != HEAD
        found = {}
        for number, line in enumerate(lines, start=1):
            if number == 1 and not older:
                continue
            try:
                row = parse_json(line)
                check = row.pop(CHECK, None)
                if check != _check(row) and not (older and check is None):
                    raise ValueError("it has changed since it was written")
                found[str(row.pop("id"))] = row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self.path}, line {number}: damaged ({error}). Remove the line, and what it holds is made again."
                ) from None
        if older and lines:
            warn(f"{self.path} is of an older version, without hashes: whether its lines have changed is not checked.")
        return found

    def append(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append rows; they are on the disk when this returns."""
        lines = []
        for name, row in rows:
            whole = {"id": name, **row}
            lines.append(json.dumps({**whole, CHECK: _check(whole)}, ensure_ascii=False, allow_nan=False))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            if not file.tell():
                file.write(f"{HEAD.decode()}\n")
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
