"""The results of every reader of samples: a record per sample, and a summary of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from didi_core.errors import unknown
from didi_core.types import Sample

COLUMNS = ("text", "sequence")  # default names of the text's column in a row or a table
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Record(NamedTuple):
    """One sample as it stands in a file; a tuple, because there are millions of them.

    line: 1-based number of its first line. info: its other values. tokens: token ids, if the file has them.
    problem: why it cannot be read; '' if it can. With a problem, the text is meaningless.
    """

    line: int
    text: str
    id: str = ""
    info: Mapping[str, Any] = NOTHING
    tokens: tuple[int, ...] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Skipped:
    """A record that was left out: its line (1-based), its id, and why."""

    line: int
    id: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """The content of a file. ``renamed``: records with a repeated id (suffix ``_2``, ...) or none (``seq_1``, ...)."""

    samples: Sequence[Sample]
    skipped: tuple[Skipped, ...] = ()
    renamed: int = 0

    def summary(self, show: int = 3) -> str:
        """One sentence for a log: how many records were read and skipped, with the first reasons."""
        text = f"{len(self.samples):,} sequences"
        if self.renamed:
            text += f", {self.renamed:,} renamed (id repeated or missing)"
        if self.skipped:
            first = "; ".join(f"line {s.line} {s.id!r}: {s.reason}" for s in self.skipped[:show])
            more = f"; and {len(self.skipped) - show:,} more" if len(self.skipped) > show else ""
            text += f", {len(self.skipped):,} skipped ({first}{more})"
        return text


def unique(name: str, used: dict[str, int]) -> str:
    """The name, or name_2, name_3, ... if it is taken; ``used`` holds the last number of each name."""
    made, number = name, used.get(name, 0)
    while made in used:
        number += 1
        made = f"{name}_{number + 1}"
    used[name] = number
    used.setdefault(made, 0)
    return made


def text_column(names: Iterable[str]) -> str:
    """The column with the text of a row or a table: the first of ``COLUMNS`` that exists."""
    known = {*names}
    return next((name for name in COLUMNS if name in known), COLUMNS[0])


def no_column(wanted: str | None, known: Iterable[str]) -> str:
    """The problem of a row or a table without the column of the text."""
    if wanted is not None:
        return str(unknown("text column", wanted, known, "data.column")).rstrip(".")
    return f"no column {' or '.join(map(repr, COLUMNS))}: set data.column to one of: {', '.join(sorted(known))}"
