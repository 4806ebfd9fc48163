"""The legend of coloured letters, which the page of ``demo`` and the films of reports share."""

from __future__ import annotations

import pytest

from didi_core.domain.palette import GROUP_COLOURS, colour_of_letters, legend_of
from didi_core.errors import counted, plural


def test_a_legend_has_the_colours_of_the_letters() -> None:
    groups = {f"group {i}": [chr(65 + 2 * i), chr(66 + 2 * i)] for i in range(len(GROUP_COLOURS) + 2)}
    colours = colour_of_letters(groups)
    legend = legend_of(groups)
    assert [key.name for key in legend] == [*groups]
    assert all(colours[letter] == key.colour for key in legend for letter in key.letters)
    assert legend[-1].colour == 1, "further groups begin again with the first colour"


def test_a_group_without_letters_is_not_in_a_legend() -> None:
    assert legend_of({}) == ()
    assert [key.name for key in legend_of({"none": (), "some": ("A",)})] == ["some"]


@pytest.mark.parametrize(("number", "word"), [(0, "calls"), (1, "call"), (1.0, "call"), (1.5, "calls"), (2, "calls")])
def test_a_noun_has_its_plural_but_for_one(number: float, word: str) -> None:
    assert plural("call", number) == word


def test_numbers_are_counted_with_their_noun() -> None:
    assert [counted(n, "design") for n in (0, 1, 2000)] == ["0 designs", "1 design", "2,000 designs"]
