"""Things by name that plugins may add to: the built-in ones are there from the start, the rest joins when plugins
load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from didi_core.errors import InputError, unknown

T = TypeVar("T")


class Catalogue(dict[str, T]):
    """Named things of one kind. Asking for one that is not there tells which are, and which plugins failed to load.

    Args:
        kind: what one of them is called in messages: "sampler", "unmasking law".
    """

    def __init__(self, kind: str, things: Mapping[str, T]) -> None:
        super().__init__(things)
        self.kind = kind
        self.refused: dict[str, str] = {}  # name -> why nobody may use it
        self.notes: tuple[str, ...] = ()  # sentences on plugins that may have brought what is missing

    def find(self, name: str, where: str = "") -> T:
        """The thing of that name.

        Args:
            where: dotted key that named it, for the message.
        """
        if name in self.refused:
            raise InputError(self.refused[name])
        if name not in self:
            error = unknown(self.kind, name, self, where)
            raise InputError(" ".join([str(error), *self.notes]))
        return self[name]

    def join(self, things: Mapping[str, T], refused: Mapping[str, str], notes: Iterable[str]) -> None:
        """Add what plugins offer, and remember what is said of names that are not there."""
        self.update(things)
        self.refused, self.notes = dict(refused), tuple(notes)
