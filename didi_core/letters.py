"""Letters of an alphabet and their ids. A letter may have several characters; the longest match is read first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from didi_core.errors import InputError


class UnknownLetter(InputError):
    """A character at which no letter begins. ``position`` is 1-based."""

    def __init__(self, position: int, letter: str, alphabet: Sequence[str]) -> None:
        self.position, self.letter = position, letter
        super().__init__(f"letter {letter!r} at position {position} is not in the alphabet {spelled(alphabet)}")


@dataclass(frozen=True)
class Letters:
    """An alphabet in which every text can be read in one way only: no letters in a row look like other letters.

    Raises:
        InputError: the alphabet has fewer than two letters, a letter twice, an empty letter, white space or ``_``; or a
            text could be read in two ways (``C``, ``l`` and ``Cl``).
    """

    alphabet: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {*self.alphabet}
        if len(known) != len(self.alphabet) or len(known) < 2 or any("_" in a or a.split() != [a] for a in known):
            raise InputError(
                f"alphabet={spelled(self.alphabet)!r}: give at least two different letters, no '_' and no white space."
            )
        for short, long in ((a, b) for a in known for b in known if a != b and b.startswith(a)):
            if _begins_text(long[len(short) :], known):
                raise InputError(
                    f"alphabet={spelled(self.alphabet)!r}: {short!r} and what may follow it look like {long!r}, so a "
                    "text could not be read back. Choose other letters."
                )

    @property
    def single(self) -> bool:
        """Whether every letter is one character."""
        return all(len(letter) == 1 for letter in self.alphabet)

    @cached_property
    def index(self) -> dict[str, int]:
        """Index of each letter in the alphabet."""
        return {letter: i for i, letter in enumerate(self.alphabet)}

    @cached_property
    def _longest(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.alphabet, key=len, reverse=True))))

    def ids(self, text: str) -> list[int]:
        """Index in the alphabet of each letter of a text, longest match first. Raises UnknownLetter."""
        if self.single:
            try:
                return list(map(self.index.__getitem__, text))
            except KeyError as error:
                raise UnknownLetter(text.index(error.args[0]) + 1, error.args[0], self.alphabet) from None
        found, at = [], 0
        while at < len(text):
            match = self._longest.match(text, at)
            if match is None:
                raise UnknownLetter(at + 1, text[at], self.alphabet)
            found.append(self.index[match.group()])
            at = match.end()
        return found


@lru_cache(maxsize=64)
def letters(alphabet: Sequence[str]) -> Letters:
    """``Letters`` of a text (one letter per character) or of a tuple of letters, cached."""
    return Letters(tuple(alphabet))


def spelled(alphabet: Sequence[str]) -> str:
    """An alphabet for a message: ``ACGT``, or ``C Cl Br``."""
    return ("" if all(len(letter) == 1 for letter in alphabet) else " ").join(alphabet)


def _begins_text(rest: str, known: set[str]) -> bool:
    """Whether some text of letters begins with ``rest``."""
    return any(
        letter.startswith(rest) or (rest.startswith(letter) and _begins_text(rest[len(letter) :], known))
        for letter in known
    )
