"""The domain: digits that are given and digits that are written, puzzles without end, and what counts as solved."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError, unknown
from didi_core.metrics import DistinctFraction, Share, TokenEntropy
from didi_core.sequences import BUNDLED, TokenDomain
from didi_core.sequences.batches import SPLITS
from didi_core.types import Denoiser, Metric, Sample, Vocabulary

from .grids import Rules
from .notation import BLANK, GIVEN, WRITTEN, digits_of, read_puzzle
from .puzzles import Maker, Puzzle


class SudokuDomain(TokenDomain):
    """Sudoku of side 4 or 6. A sample is a filled grid in which clues differ from what was written.

    Clues have token ids of their own, the vocabulary's ``given`` ones: no forward process masks them, no sampler draws
    them.

    Args:
        side: of the grid; boxes are 2 x 2 or 2 x 3.
        min_clues, max_clues: how many digits are given.
        validation: share of the solved grids that is held out: puzzles of an evaluation have solutions that no model
            was trained on.
        split_seed: another split.
    """

    name = "sudoku"

    def __init__(
        self,
        *,
        side: int = 4,
        min_clues: int = 4,
        max_clues: int = 6,
        validation: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        self.rules = Rules(side)
        if not 1 <= min_clues <= max_clues < self.rules.cells:
            raise InputError(
                f"data.min_clues={min_clues}, data.max_clues={max_clues}: need 1 <= min <= max < {self.rules.cells}."
            )
        if not 0 < validation < 1:
            raise InputError(f"data.validation={validation} is out of range: it is a share between 0 and 1.")
        self.maker = Maker(self.rules, (min_clues, max_clues), validation, split_seed)
        self.vocabulary = Vocabulary(
            2 * side, given=tuple(range(side, 2 * side)), tokens=(*WRITTEN[:side], *GIVEN[:side])
        )

    # --- sequences

    def encode(self, text: str) -> list[int]:
        """One id a cell. Raises InputError for another letter than a digit of the side, written or given."""
        known = self.vocabulary.tokens or ()
        try:
            return [known.index(letter) for letter in text]
        except ValueError:
            at = next(i for i, letter in enumerate(text) if letter not in known)
            raise InputError(
                f"letter {text[at]!r} at position {at + 1} is no cell of side {self.rules.side}: {''.join(known)}"
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        """Digits that were written as 1, 2, ..., clues as ①, ②, ..., a mask as ``_``."""
        known = (*(self.vocabulary.tokens or ()), "_")
        outside = [token for token in tokens if not 0 <= token < len(known)]
        if outside:
            raise InputError(f"token {outside[0]} is no cell of {self.name}.")
        return "".join(known[token] for token in tokens)

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """Numbers of empty cells, of n puzzles."""
        return [self.rules.cells - sum(made.given) for made in self._draw("train", n, generator)]

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """One puzzle for each number of empty cells, always the same ones. ``templates`` draws any number of others."""
        if not len(lengths):
            raise InputError("lengths=[] is empty: give the number of empty cells.")
        rows = []
        for number, empty in enumerate(lengths):
            clues = self.rules.cells - int(empty)
            if empty < 1 or clues < 1:
                raise InputError(f"length={empty}: a puzzle has 1 to {self.rules.cells - 1} empty cells.")
            stream = random.Random(f"{number}/{empty}")
            rows.append(self._blank(self.maker.puzzle("validation", stream, (clues, clues))))
        return torch.tensor(rows)

    def templates(self, split: str, n: int, generator: torch.Generator) -> Int[Tensor, "n L"]:
        """n puzzles of a split, the mask in their empty cells."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return torch.tensor([self._blank(made) for made in self._draw(split, n, generator)])

    def read_template(self, text: str) -> list[int]:
        """A puzzle as people write it: digits, an empty cell as ``_``, ``.`` or 0; blanks and ``|`` are passed over.

        Raises InputError for a wrong number of cells, for none that is empty, for clues that contradict each other, and
        for no or several solutions.
        """
        puzzle = read_puzzle(text)
        if max(puzzle, default=0) > self.rules.side:
            raise InputError(f"template={text!r}: {max(puzzle)} is no digit of side {self.rules.side}.")
        try:
            self.rules.solution(puzzle)
        except InputError as error:
            raise InputError(f"template={text!r}: {error}") from None
        if 0 not in puzzle:
            raise InputError(f"template={text!r} has no empty cell: mark each with one of {', '.join(BLANK)}.")
        return [self.vocabulary.mask if digit == 0 else self.rules.side + digit - 1 for digit in puzzle]

    def _draw(self, split: str, n: int, generator: torch.Generator) -> list[Puzzle]:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        stream = random.Random(seed)
        return [self.maker.puzzle(split, stream) for _ in range(n)]

    def _ids(self, puzzle: Puzzle) -> list[int]:
        pairs = zip(puzzle.grid, puzzle.given, strict=True)
        return [digit - 1 + self.rules.side * given for digit, given in pairs]

    def _blank(self, puzzle: Puzzle) -> list[int]:
        return [i if i >= self.rules.side else self.vocabulary.mask for i in self._ids(puzzle)]

    # --- networks

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """The teacher that ``python -m didi_sudoku`` has trained (``bundled``), or one from a run directory."""
        if name != BUNDLED:
            return super().teacher(name)
        if not (teacher_folder() / "model").is_dir():
            raise InputError("the Sudoku teacher is not trained yet: run `python -m didi_sudoku` once.")
        return super().teacher(str(teacher_folder()))

    # --- data

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        """Fresh solved puzzles, a function of (split, seed, number of the batch) alone."""
        while True:
            drawn = self._draw(split, batch_size, self.stream(seed, "batches", split, start))
            yield torch.tensor([self._ids(made) for made in drawn])
            start += 1

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """n solved puzzles of the validation split."""
        drawn = self._draw("validation", n, self.stream(seed, "held out"))
        return [Sample(self.decode(self._ids(made)), f"held_out_{i}") for i, made in enumerate(drawn, start=1)]

    # --- evaluation

    def solved(self, text: str) -> float:
        """1 where the grid keeps the rules, else 0. Clues are in place, so a grid that does is the one solution."""
        return float(self.rules.solved(digits_of(text)))

    def metrics(self) -> list[Metric]:
        """Share of puzzles that were solved; entropy of the digits; share of different samples."""
        return [
            Share("solved", "solved", self.solved),
            TokenEntropy(_digits),
            DistinctFraction(),
        ]


def _digits(sample: Sample) -> list[int]:
    return digits_of(sample.text)


def teacher_folder() -> Path:
    """Run directory of the teacher: ``DIDI_SUDOKU_TEACHER``, else in the user's cache."""
    named = os.environ.get("DIDI_SUDOKU_TEACHER")
    return Path(named) if named else Path.home() / ".cache" / "didi_sudoku" / "teacher"
