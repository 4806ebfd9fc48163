"""Scores so far: a file per kind of score with a line per design, appended at once and read back to continue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError


@dataclass(frozen=True)
class Journal:
    """Lines of JSON, each with the id of a design."""

    path: Path

    def rows(self) -> dict[str, dict[str, Any]]:
        """All rows by id. An incomplete last line is removed from the file."""
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        found = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                found[row.pop("id")] = row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self.path}, line {number}: damaged ({error}). Remove the line to score its design again."
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
