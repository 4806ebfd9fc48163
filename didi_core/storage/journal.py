"""Work so far: lines that are appended as parts are finished, and read back to go on after a stop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.storage.files import parse_json


@dataclass(frozen=True)
class Journal:
    """Lines of JSON, each with the id of what it is about."""

    path: Path

    def rows(self, repair: bool = True) -> dict[str, dict[str, Any]]:
        """All rows by id, without an incomplete last line, which ``repair`` removes from the file.

        Raises:
            InputError: a line is damaged.
        """
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if repair and len(whole) < len(content):
            os.truncate(self.path, len(whole))
        found = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = parse_json(line)
                found[str(row.pop("id"))] = row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self.path}, line {number}: damaged ({error}). Remove the line, and what it holds is made again."
                ) from None
        return found

    def append(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append rows; they are on the disk when this returns."""
        lines = [json.dumps({"id": name, **row}, ensure_ascii=False, allow_nan=False) for name, row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
