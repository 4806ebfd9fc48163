"""Report on a user's data: how much was read, used and left out, and why. Commands that read data print it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from didi_core.errors import InputError
from didi_core.types import Domain

SHOWN = 5  # reasons, files and examples of a message
_PLACE = re.compile(r" at (position|column) \d+")


@dataclass(frozen=True)
class DataReport:
    """Counts of the records in the user's data.

    files: that were read. read: records in them. left_out: how many by reason; ``splits``: how many are used for what.
    set_aside: how many, by reason, that nothing is wrong with: repeated ones, relatives of held-out ones.
    unread: files that were passed over, with the reason. examples: the first that were left out, with their place.
    unit: what a record is called.
    """

    files: tuple[str, ...]
    read: int
    splits: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    unit: str = "sequences"

    @property
    def kept(self) -> int:
        """Records that are used."""
        return self.read - sum(self.left_out.values()) - sum(self.set_aside.values())

    def __str__(self) -> str:
        used = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        unit = self.unit.removesuffix("s") if self.read == 1 else self.unit
        lines = [f"data: {self.read:,} {unit} read from {_listed(self.files)}, {self.kept:,} used ({used})"]
        for word, counts in (("left out", self.left_out), ("set aside", self.set_aside)):
            if counts:
                lines.append(f"data: {sum(counts.values()):,} {word}: {_counted(counts)}")
        if self.examples:
            lines.append(f"data: the first left out: {'; '.join(self.examples)}")
        if self.unread:
            lines.append(f"data: not read: {_listed(self.unread)}")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """For run.json and card.json: numbers and reasons, and no text of the user's data."""
        return {
            "unit": self.unit,
            "files": len(self.files),
            "read": self.read,
            "used": self.kept,
            "splits": dict(self.splits),
            "left_out": dict(self.left_out),
            "set_aside": dict(self.set_aside),
            "unread": list(self.unread),
        }

    def check_loss(self, allowed: bool, advice: str = "") -> None:
        """Raise InputError if more than half of the records are left out, unless ``allowed``."""
        lost = sum(self.left_out.values())
        if allowed or 2 * lost <= self.read:
            return
        first = f" The first: {'; '.join(self.examples[:1])}." if self.examples else ""
        raise InputError(
            f"{_listed(self.files)}: {lost:,} of {self.read:,} {self.unit} cannot be used: {_counted(self.left_out)}."
            f"{first} {advice}If the rest is what you want, set data.allow_loss=true.".replace("  ", " ")
        )


@runtime_checkable
class ReportsData(Protocol):
    """A domain that counts the records of its data by their use."""

    def data_report(self) -> DataReport | None:
        """The counts, the data read where they were not; None where none are the user's. Raises InputError."""
        ...


def describe(domain: Domain) -> DataReport | None:
    """What became of the domain's data, which are read where they were not; None where it has none of the user's."""
    return domain.data_report() if isinstance(domain, ReportsData) else None


def kind_of(reason: str) -> str:
    """A reason without place and value, so that like ones can be counted together."""
    return _PLACE.sub("", reason.split(": ")[0])


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = "; ".join(f"{reason} ({count:,})" for reason, count in ordered[:SHOWN])
    return shown + (f"; and {len(ordered) - SHOWN} more reasons" if len(ordered) > SHOWN else "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
