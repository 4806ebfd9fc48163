"""How much a packed file may unpack to, so that a small file does not fill the memory: gzip, and archives of torch and
NumPy."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from didi_core.errors import InputError, one_line

RATIO, SMALL = 100, 1 << 25  # limits of an unpacked file: times its packed size, or bytes, whichever is more


def unpacked_limit(path: Path) -> int:
    """Bytes that an archive may unpack to."""
    return max(RATIO * path.stat().st_size, SMALL)


@dataclass
class Allowance:
    """How much of a gzip file may be unpacked, judged by how much of it was read so far.

    A small file that unpacks to gigabytes is therefore known after ``SMALL`` bytes, and not when they are in memory.

    raw: the packed file, None for one that is not packed. most: bytes that a user allows, in place of ``ratio``.
    fixed: bytes that are allowed whatever was read, for a file that says itself what it unpacks to.
    """

    path: Path
    raw: IO[bytes] | None
    most: int | None = None
    ratio: int = RATIO
    fixed: int | None = None

    def __post_init__(self) -> None:
        packed = SMALL if self.most is None else self.most
        self._now = self.fixed if self.fixed is not None else math.inf if self.raw is None else packed

    def check(self, total: int) -> None:
        """Raise InputError where so many unpacked bytes are too many."""
        if total <= self._now:
            return
        if self.most is None and self.raw is not None:
            self._now = max(self.ratio * self.raw.tell(), SMALL)
            if total <= self._now:
                return
        raise InputError(
            f"{self.path}: it unpacks to more than {self._now:,} bytes. If that is right, unpack it yourself and give "
            "that file; where it is data, data.unpacked_limit=<bytes> allows more too."
        )


def check_archive(path: Path) -> None:
    """Raise InputError for a damaged zip archive, or one that unpacks to more than ``unpacked_limit``."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: the archive is damaged ({one_line(error)}). Fetch it again.") from None
    if size > unpacked_limit(path):
        raise InputError(
            f"{path}: its {path.stat().st_size:,} bytes unpack to {size:,}, more than {RATIO} times as many. Neither "
            "torch nor NumPy writes such a file: ask its author for another one."
        )


def read_arrays(path: Path) -> dict[str, Any]:
    """The NumPy arrays of an ``.npz`` file by name. Raises InputError where it is damaged, or unpacks to too much."""
    check_archive(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # headers of arrays are parsed as Python, and its parsers raise many kinds of errors
        raise InputError(f"{path}: its arrays are damaged ({one_line(error)}). Fetch it again.") from None
    strange = [name for name, value in found.items() if not isinstance(value, np.ndarray)]
    if strange:
        raise InputError(f"{path}: its entry {strange[0]!r} is no array. Fetch it again.")
    return found
