"""What a reader of files is given, and how that is mutated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzing.mutations import Mutate, as_text


@dataclass(frozen=True)
class Case:
    """A reader of a folder.

    make: writes good files. file: the one that is mutated. mended: called after it has changed, so that what lies
    behind a check of hashes is reached too. costly: it takes more than a few milliseconds.
    """

    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    mutate: Mutate = as_text
    mended: Callable[[Path], object] = lambda folder: None
    costly: bool = False


def text(file: str, content: bytes, read: Callable[[Path], object]) -> Case:
    """A reader of one text file, by its path."""
    return Case(file, lambda folder: (folder / file).write_bytes(content), lambda folder: read(folder / file))
