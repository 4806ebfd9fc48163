"""How puzzles and filled grids are written: ``1`` for a digit that was written, ``①`` for a clue."""

from __future__ import annotations

from didi_core.errors import InputError

WRITTEN, GIVEN = "123456", "①②③④⑤⑥"
BLANK = "_.0"  # an empty cell
PASSED_OVER = " |/\n\t"
_DIGIT = {letter: number for row in (WRITTEN, GIVEN) for number, letter in enumerate(row, start=1)}


def digits_of(text: str) -> list[int]:
    """The digits of a filled grid, clues and written ones alike; 0 for a cell that is still empty."""
    return [_DIGIT.get(letter, 0) for letter in text]


def read_puzzle(text: str) -> list[int]:
    """The clues of a puzzle as people write it, 0 for an empty cell. Raises InputError for another letter."""
    cells = [letter for letter in text if letter not in PASSED_OVER]
    wrong = next((letter for letter in cells if letter not in BLANK and letter not in _DIGIT), None)
    if wrong is not None:
        raise InputError(f"template={text!r}: {wrong!r} is neither a digit nor an empty cell ({', '.join(BLANK)}).")
    return [_DIGIT.get(letter, 0) for letter in cells]
