"""Results that ``score`` keeps between runs, each with a hash of what it was made from.

A repeated command goes on from them. What was made from other structures, weights, programs or known proteins than are
there now, whose names may be the same, is made again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.checkpoints.hub import WEIGHTS
from didi_core.errors import counted
from didi_core.storage.files import sha256
from didi_core.storage.journal import Journal

from ..design_report.designs import PARTS
from .hashes import Hashes

OUT_OF_MEMORY = "oom"  # a status; another attempt may succeed
OF = "of"  # the hash of what a kept row was made from
CONTENT = re.compile(r"[0-9a-f]{64}")  # the name of a file of weights in the hub's cache, its SHA-256
Row = Mapping[str, Any]
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Kept:
    """The journals of one kind of result, one of each process.

    stamps: of what a design's result is made from, by design; None where that cannot be known here, and any counts.
    made_from: the same in words, for the user.
    """

    folder: Path
    kind: str
    stamps: Mapping[str, str | None]
    made_from: str

    def rows(self, say: Callable[[str], None], drop: Callable[[str], None] = lambda _: None) -> Rows:
        """The rows that are still true, of the designs that have a stamp; those of others are counted aloud.

        Args:
            drop: called with every design whose row is no longer true, to remove what was written with it.
        """
        found: Rows = {}
        stale: set[str] = set()
        for path in journals(self.folder, self.kind):
            fresh: Rows = {}
            for name, row in Journal(path).rows().items():
                of = row.pop(OF, "")
                if name in self.stamps:
                    if self.stamps[name] in (None, of):
                        fresh[name] = row
                    else:
                        stale.add(name)
            found = better(found, fresh)
        for name in sorted(stale - found.keys()):
            drop(name)
        if lost := len(stale - found.keys()):
            said = "is" if lost == 1 else "are"
            say(f"{self.kind}: {counted(lost, 'result')} came from another {self.made_from}, and {said} made again")
        return found

    def append(self, rows: Iterable[tuple[str, Row]], rank: int = 0) -> None:
        """Keep rows; they are on the disk when this returns."""
        name = f"{self.kind}.{rank}.jsonl" if rank else f"{self.kind}.jsonl"
        Journal(self.folder / PARTS / name).append([(one, {OF: self.stamps[one], **row}) for one, row in rows])


def journals(folder: Path, kind: str) -> list[Path]:
    """Where the results of a kind are kept: of the first process, and of each other one that wrote any."""
    return [folder / PARTS / f"{kind}.jsonl", *sorted((folder / PARTS).glob(f"{kind}.*.jsonl"))]


def better(rows: Mapping[str, dict[str, Any]], others: Mapping[str, dict[str, Any]]) -> Rows:
    """The rows of both; one that ran out of memory yields to another of the same design."""
    fine = {name: row for name, row in others.items() if name not in rows or row.get("status") != OUT_OF_MEMORY}
    return {**rows, **fine}


def stamp(*parts: str) -> str:
    """A hash of texts, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()


def weights_stamp(folder: Path | None, hashes: Hashes | None = None) -> str:
    """A hash of a model's folder: its weights and JSON files, by content; '' without one.

    Times do not count, so that weights may be copied to another machine. Files in the hub's cache are named by a hash
    of their content, and are not read; of others ``hashes`` knows those that have not changed.
    """
    if folder is None:
        return ""
    weights = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    read = sha256 if hashes is None else hashes.sha256
    content = {path: path.resolve().name for path in [*sorted(folder.glob("*.json")), *weights]}
    return stamp(*(f"{p.name} {name if CONTENT.fullmatch(name) else read(p)}" for p, name in content.items()))


def program_stamp(words: Sequence[str]) -> str:
    """A hash of a command: its words, its program, and the files that it names, by content."""
    files = [Path(found)] if (found := shutil.which(words[0])) else []
    files += [Path(word) for word in words[1:] if Path(word).is_file()]
    return stamp(*words, *map(sha256, files))
