"""Hashes of weights, kept in a score folder: a repeated command need not read gigabytes to see that nothing changed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError
from didi_core.storage.files import read_json, sha256, write_json
from didi_core.storage.text_file import version

from ..design_report.designs import PARTS

SETTLED = 2 * 10**9  # ns; a file that changed later than so long ago may change again and have the same time


@dataclass(frozen=True)
class Hashes:
    """SHA-256 of files, by path, size, time of change and inode; a file of which one differs is read again."""

    path: Path

    @classmethod
    def of_folder(cls, folder: Path) -> Hashes:
        """Those of a score folder."""
        return cls(folder / PARTS / "hashes.json")

    def sha256(self, file: Path) -> str:
        """Hex digest of a file."""
        name, about, known = str(file.resolve()), version(file.stat()), self._known()
        entry = known.get(name)
        if isinstance(entry, dict) and entry.get("file") == [*about]:
            return str(entry["sha256"])
        found = sha256(file)
        *_, changed = about
        if time.time_ns() - changed > SETTLED and version(file.stat()) == about:
            write_json(self.path, {**known, name: {"file": about, "sha256": found}})
        return found

    def _known(self) -> dict[str, Any]:
        """What is kept; nothing where it is damaged, as all of it can be had again."""
        if not self.path.is_file():
            return {}
        try:
            found = read_json(self.path)
        except InputError:
            return {}
        return dict(found) if isinstance(found, dict) else {}
