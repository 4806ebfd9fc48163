"""Batches of a generation shared by several processes, and kept one by one, so that a stopped command goes on.

A batch belongs to its number: its lengths and its random stream follow from it. So it does not matter which process
draws a batch, how many processes there are, or whether it was drawn before a stop.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.processes import Processes
from didi_core.storage.fingerprint import json_hash
from didi_core.storage.journal import Journal
from didi_core.types import NFE


@dataclass(frozen=True)
class Drawn:
    """A finished batch: tokens of its samples without padding, mean network calls of a sample, and seconds."""

    tokens: list[list[int]]
    nfe: NFE
    seconds: float


@dataclass(frozen=True)
class Sharing:
    """Who draws which batches, and where finished ones are kept.

    folder: of journals, one for each process that ever drew; None keeps nothing. It belongs to one generation.
    """

    processes: Processes = field(default_factory=Processes)
    folder: Path | None = None
    _own: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)  # name of this process's journal

    def all_batches(
        self, count: int, draw: Callable[[int], Drawn], progress: Callable[[int], None] = lambda _: None
    ) -> list[Drawn]:
        """Batches 0 .. count-1, the same on every process; each is drawn by one of them, unless it is kept already.

        Args:
            draw: makes the batch of a number.
            progress: called with the number of batches finished, over all processes by the count of this one.
        """
        known = self.processes.broadcast(self._kept(count) if self.processes.first else {})
        left = [number for number in range(count) if number not in known]
        done, mine = len(known), dict[int, Drawn]()
        if done:
            progress(done)
        for number in self.processes.mine(left):
            mine[number] = draw(number)
            self._keep(number, mine[number])
            done = min(done + self.processes.size, count)
            progress(done)
        for found in self.processes.gather(mine):
            known |= found
        return [known[number] for number in range(count)]

    def forget(self) -> None:
        """Remove the journals, once the whole is written. Call it in every process: only the first removes."""
        if self.processes.first and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _kept(self, count: int) -> dict[int, Drawn]:
        """Batches in the journals of earlier processes."""
        if self.folder is None or not self.folder.is_dir():
            return {}
        rows = [row for path in sorted(self.folder.glob("*.jsonl")) for row in Journal(path).rows(repair=False).items()]
        found = {int(number): _read(row) for number, row in rows}
        return {number: batch for number, batch in found.items() if number < count}

    def _keep(self, number: int, batch: Drawn) -> None:
        if self.folder is not None:
            row = {
                "tokens": batch.tokens,
                "nfe": [batch.nfe.denoiser, batch.nfe.scorer],
                "seconds": batch.seconds,
            }
            Journal(self.folder / f"{self._own}.jsonl").append([(str(number), row)])


def _read(row: Mapping[str, Any]) -> Drawn:
    return Drawn(row["tokens"], NFE(*row["nfe"]), row["seconds"])


def name_of(*decisive: object) -> str:
    """Name of the folder of journals of a generation that all this decides."""
    return json_hash(decisive, default=str)[:24]
