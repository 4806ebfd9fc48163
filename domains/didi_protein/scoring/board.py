"""The designs of a run of ``score`` with their scores so far, and the table of them that is written at intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.processes import Processes
from didi_core.types import Sample

from ..design_report.designs import STRUCTURES, structure_name
from .kept import OUT_OF_MEMORY, Kept, Row, Rows, better
from .table import merged, write_table

SEQUENCE, PPPL, FOLD = "sequence", "pppl", "fold"  # kept between runs, shared by processes
CLUSTERS, OTHERS, MOTIFS, CONSISTENCY = "clusters", "structures", "motifs", "selfconsistency"
FOLDSEEK = "foldseek"
ERRORS, CIF = "pae", "cif"  # folders beside that of structures
WRITE_EVERY = 20.0  # seconds between tables while scores come in


@dataclass
class Board:
    """The designs and their scores so far; writes the table at intervals.

    kept: the journals by kind. known: rows by kind and id, of earlier runs and of this process; after ``collect``, of
    all processes.
    """

    designs: Sequence[Sample]
    folder: Path
    processes: Processes
    kept: Mapping[str, Kept]
    known: dict[str, Rows]
    computed: dict[str, Rows] = field(default_factory=dict)  # anew in every run
    _written: float = 0.0

    @classmethod
    def open(
        cls,
        designs: Sequence[Sample],
        folder: Path,
        processes: Processes,
        made_from: Callable[[], Mapping[str, tuple[str | None, str] | None]],
        say: Callable[[str], None],
    ) -> Board:
        """The board with the results of earlier runs that are still true, whichever processes they had.

        Args:
            made_from: what each kind of score is made from, beside the design: a hash, and words; None for a kind that
                is not asked for. Where the hash is None, what is kept counts. Only the first process calls it.
        """
        kept: dict[str, Kept] = {}
        known: dict[str, Rows] = {}
        if processes.first:
            for kind, source in made_from().items():
                known[kind] = {}
                if source is None:
                    continue
                of, words = source
                kept[kind] = Kept(folder, kind, {design.id: of for design in designs}, words)
                drop = (lambda name: remove_structure(folder, name)) if kind == FOLD else (lambda _: None)
                known[kind] = kept[kind].rows(say, drop)
            folded = known.get(FOLD, {})
            gone = [name for name, row in folded.items() if row["status"] == "ok" and not _there(folder, name)]
            for name in gone:
                del folded[name]
        return cls(designs, folder, processes, *processes.broadcast((kept, known)))

    def left(self, kind: str) -> list[Sample]:
        """Designs that lack a kind of score, or ran out of memory, because another attempt may succeed."""
        known = self.known[kind]
        return [d for d in self.designs if d.id not in known or known[d.id].get("status") == OUT_OF_MEMORY]

    def clear_structures(self) -> None:
        """Remove structures that were not folded here: of other settings, or of a fold that was interrupted."""
        for design in self.left(FOLD):
            remove_structure(self.folder, design.id)

    def add(self, kind: str, rows: Sequence[tuple[str, Row]]) -> None:
        """Keep rows, which are on the disk when this returns; the table is written later."""
        self.kept[kind].append(rows, self.processes.rank)
        self.known[kind].update((name, dict(row)) for name, row in rows)
        if time.monotonic() - self._written > WRITE_EVERY:
            self.write()

    def collect(self, kind: str) -> None:
        """Give every process the rows of all."""
        for rows in self.processes.gather(self.known[kind]):
            self.known[kind] = better(self.known[kind], rows)

    def rows(self) -> list[dict[str, Any]]:
        """The table, the best first."""
        computed = [self.computed.get(kind, {}) for kind in (CLUSTERS, OTHERS, MOTIFS, CONSISTENCY, FOLDSEEK)]
        return merged(self.designs, [*self.known.values(), *computed])

    def write(self) -> None:
        """scores.csv and scores.jsonl, by the first process."""
        if not self.processes.first:
            return
        write_table(self.folder, self.rows())
        self._written = time.monotonic()


def remove_structure(folder: Path, design: str) -> None:
    """Remove the files of a design's structure, where they are there."""
    for place, suffix in ((STRUCTURES, "pdb"), (ERRORS, "npz"), (CIF, "cif")):
        (folder / place / structure_name(design, suffix)).unlink(missing_ok=True)


def _there(folder: Path, design: str) -> bool:
    return (folder / STRUCTURES / structure_name(design)).is_file()
