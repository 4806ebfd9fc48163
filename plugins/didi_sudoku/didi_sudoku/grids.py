"""Sudoku as maths: which digits may stand together, and what completes a grid. A grid is a tuple of digits, row by
row; 0 marks an empty cell."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from didi_core.errors import InputError

BOXES = {4: (2, 2), 6: (2, 3)}  # rows and columns of a box, by the side of the grid

Grid = tuple[int, ...]


@dataclass(frozen=True)
class Rules:
    """The rules of grids with ``side`` rows: every row, column and box holds each digit once."""

    side: int = 4

    def __post_init__(self) -> None:
        if self.side not in BOXES:
            raise InputError(f"data.side={self.side}: there are grids of side {' and '.join(map(str, BOXES))}.")

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.side**2

    @cached_property
    def units(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Rows, columns and boxes: name and cells of each."""
        rows, columns = BOXES[self.side]
        by_unit: dict[str, list[int]] = {}
        for cell in range(self.cells):
            row, column = divmod(cell, self.side)
            box = row // rows * (self.side // columns) + column // columns
            for name in (f"row {row + 1}", f"column {column + 1}", f"box {box + 1}"):
                by_unit.setdefault(name, []).append(cell)
        return tuple((name, tuple(found)) for name, found in by_unit.items())

    @cached_property
    def _peers(self) -> tuple[tuple[int, ...], ...]:
        """Of each cell, the others that share a unit with it."""
        return tuple(
            tuple(sorted({peer for _, unit in self.units if cell in unit for peer in unit} - {cell}))
            for cell in range(self.cells)
        )

    def conflict(self, grid: Sequence[int]) -> str:
        """The first digit that a unit holds twice, in words; empty where there is none."""
        for name, unit in self.units:
            digits = [grid[cell] for cell in unit if grid[cell]]
            twice = next((digit for digit in digits if digits.count(digit) > 1), 0)
            if twice:
                return f"{name} holds {twice} twice"
        return ""

    def solved(self, grid: Sequence[int]) -> bool:
        """Whether the grid is full and keeps the rules."""
        if len(grid) != self.cells:
            return False
        return all(len({grid[cell] for cell in unit} - {0}) == self.side for _, unit in self.units)

    def completions(self, grid: Sequence[int], shuffle: random.Random | None = None) -> Iterator[Grid]:
        """All solved grids that hold the digits of this one, the emptiest choice first.

        Args:
            shuffle: the order in which digits are tried; without it, ascending.
        """
        if self.conflict(grid):
            return
        every = (1 << self.side) - 1
        allowed = [every] * self.cells
        for cell, digit in enumerate(grid):
            if digit:
                for peer in self._peers[cell]:
                    allowed[peer] &= ~(1 << (digit - 1))
        yield from self._search(list(grid), allowed, [c for c, digit in enumerate(grid) if not digit], shuffle)

    def _search(
        self, grid: list[int], allowed: list[int], empty: list[int], shuffle: random.Random | None
    ) -> Iterator[Grid]:
        if not empty:
            yield tuple(grid)
            return
        cell = min(empty, key=lambda c: allowed[c].bit_count())
        left = [c for c in empty if c != cell]
        digits = [d for d in range(self.side) if allowed[cell] >> d & 1]
        if shuffle is not None:
            shuffle.shuffle(digits)
        for digit in digits:
            narrowed = allowed.copy()
            for peer in self._peers[cell]:
                narrowed[peer] &= ~(1 << digit)
            grid[cell] = digit + 1
            if all(narrowed[c] for c in left):
                yield from self._search(grid, narrowed, left, shuffle)
        grid[cell] = 0

    def is_unique(self, grid: Sequence[int]) -> bool:
        """Whether exactly one solved grid holds these digits."""
        return len(list(itertools.islice(self.completions(grid), 2))) == 1

    def solution(self, grid: Sequence[int]) -> Grid:
        """The one solved grid that holds these digits.

        Raises:
            InputError: a wrong number of cells, digits that contradict each other, no solution, or more than one.
        """
        if len(grid) != self.cells:
            raise InputError(f"a puzzle of side {self.side} has {self.cells} cells; this one has {len(grid)}.")
        conflict = self.conflict(grid)
        if conflict:
            raise InputError(f"the clues contradict each other: {conflict}.")
        found = list(itertools.islice(self.completions(grid), 2))
        if not found:
            raise InputError("the clues leave no solution.")
        if len(found) > 1:
            cell = next(c for c, pair in enumerate(zip(*found, strict=True)) if pair[0] != pair[1])
            row, column = divmod(cell, self.side)
            raise InputError(
                f"the clues leave more than one solution: row {row + 1}, column {column + 1} may be {found[0][cell]} "
                f"or {found[1][cell]}. Give more clues."
            )
        return found[0]
