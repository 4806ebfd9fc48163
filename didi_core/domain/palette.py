"""Colours of letters by property, for the page of ``demo`` and the films of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from didi_core.domain.abilities import GroupsLetters
from didi_core.types import Domain

# Background and ink of each group: Okabe and Ito's palette, which eyes that confuse red and green tell apart.
GROUP_COLOURS = (
    ("#f0e442", "#000"),
    ("#e69f00", "#000"),
    ("#009e73", "#000"),
    ("#0072b2", "#fff"),
    ("#d55e00", "#000"),
    ("#b8bcc4", "#000"),
)


class Key(NamedTuple):
    """A group of letters in the legend of coloured sequences. colour: its number among GROUP_COLOURS."""

    colour: int
    letters: str
    name: str


def letter_groups(domain: Domain) -> Mapping[str, Sequence[str]]:
    """The letters of each group by its name; empty for a domain without groups."""
    return domain.letter_groups if isinstance(domain, GroupsLetters) else {}


def colour_of_letters(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Number of each letter's colour; further groups begin again with the first one."""
    return {letter: i % len(GROUP_COLOURS) for i, letters in enumerate(groups.values()) for letter in letters}


def legend_of(groups: Mapping[str, Sequence[str]]) -> tuple[Key, ...]:
    """What the colours mean: every group that has letters, in its order."""
    colours = colour_of_letters(groups)
    return tuple(Key(colours[own[0]], "".join(own), name) for name, own in groups.items() if own)
