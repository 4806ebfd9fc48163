"""Puzzles made at random: a solved grid, and which of its digits are given. The clues leave that one solution."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from didi_core.errors import InputError

from .grids import Grid, Rules

LISTED = 4  # up to this side there are few enough solved grids, 288, to list them
TRIES = 1000  # draws before a number of clues is given up as impossible


@dataclass(frozen=True)
class Puzzle:
    """A solved grid and, for each cell, whether its digit is given."""

    grid: Grid
    given: tuple[bool, ...]

    @property
    def clues(self) -> Grid:
        """The given digits, 0 elsewhere."""
        return tuple(digit if given else 0 for digit, given in zip(self.grid, self.given, strict=True))


@dataclass(frozen=True)
class Maker:
    """Draws puzzles of a split. A solved grid belongs to one split, so held-out puzzles have unseen solutions.

    clues: fewest and most digits that are given. validation: share of the solved grids that are held out, by their
    content; split_seed: another split.
    """

    rules: Rules
    clues: tuple[int, int]
    validation: float = 0.1
    split_seed: int = 0

    @cached_property
    def _known(self) -> dict[str, list[Grid]]:
        """All solved grids of each split, where they are few enough to list."""
        found: dict[str, list[Grid]] = {"train": [], "validation": []}
        for grid in self.rules.completions([0] * self.rules.cells):
            found[self.split_of(grid)].append(grid)
        return found

    @cached_property
    def _table(self) -> np.ndarray:
        """[grids, cells]: the same, one below the other."""
        return np.array([grid for known in self._known.values() for grid in known])

    def _is_unique(self, puzzle: Puzzle) -> bool:
        """Whether the clues leave one solution: by the table where there is one, which is ten times as fast."""
        if self.rules.side > LISTED:
            return self.rules.is_unique(puzzle.clues)
        given = np.flatnonzero(puzzle.given)
        return int((self._table[:, given] == np.array(puzzle.grid)[given]).all(1).sum()) == 1

    def split_of(self, grid: Sequence[int]) -> str:
        """The split that a solved grid belongs to."""
        digest = hashlib.blake2b(f"{self.split_seed}/{grid}".encode(), digest_size=8).digest()
        held = int.from_bytes(digest, "little") / 2**64 < self.validation
        return "validation" if held else "train"

    def grid(self, split: str, stream: random.Random) -> Grid:
        """A solved grid: each as likely as any other at side 4; by a shuffled search, hence roughly so, at side 6."""
        if self.rules.side <= LISTED:
            known = self._known[split]
            if not known:
                raise InputError(f"data.validation={self.validation} leaves no grid for {split}: give another share.")
            return stream.choice(known)
        while True:
            made = next(self.rules.completions([0] * self.rules.cells, stream))
            if self.split_of(made) == split:
                return made

    def puzzle(self, split: str, stream: random.Random, clues: tuple[int, int] | None = None) -> Puzzle:
        """A puzzle with one solution.

        As many digits of random cells are given as a draw from the range says, and more where they leave a choice.
        Raises InputError where no puzzle of so few clues is found.
        """
        low, high = clues or self.clues
        for _ in range(TRIES):
            grid, order = self.grid(split, stream), list(range(self.rules.cells))
            stream.shuffle(order)
            for count in range(stream.randint(low, high), high + 1):
                kept = {*order[:count]}
                made = Puzzle(grid, tuple(cell in kept for cell in range(self.rules.cells)))
                if self._is_unique(made):
                    return made
        raise InputError(f"no puzzle of {low} to {high} clues with one solution in {TRIES} draws: allow more clues.")
