"""Lines of a text file, plain or gzip (told by its first bytes, not by its name), one at a time, within limits.

A line ends at a line feed, a carriage return or both, and nowhere else: U+2028 and its kind are characters of a text.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from didi_core.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 1 << 28  # bytes
UNPACKED = 1 << 34  # bytes that a packed file may have unpacked: what inflates a thousandfold is a mistake or worse


def numbered_lines(path: Path, *, errors: str = "strict", unpacked: int = UNPACKED) -> Iterator[tuple[int, str]]:
    """(1-based number, text without its line end) of each line; a byte-order mark is dropped.

    Args:
        errors: what becomes of bytes that are no UTF-8: ``strict`` raises, ``surrogateescape`` keeps them as lone
            surrogates.
        unpacked: bytes that a packed file may unpack to.

    Raises:
        InputError: with file and line: no such file, a folder, unreadable, binary, damaged gzip, too much of it.
    """
    number = 0
    for raw in _raw_lines(path, unpacked):
        for part in raw.split(b"\r") if b"\r" in raw else (raw,):
            number += 1
            try:
                yield number, part.decode("utf-8", errors)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte 0x{part[error.start]:02x} is not UTF-8 text. "
                    "Convert the file, for instance with iconv -t utf-8."
                ) from None


def read_whole(path: Path, *, unpacked: int = UNPACKED) -> str:
    """A text file in one piece, line ends as they are; refused as by ``numbered_lines``."""
    try:
        with open_unpacked(path) as file:
            data = file.read(unpacked + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    if len(data) > unpacked:
        raise _too_large(path, unpacked)
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8 text.") from None


def open_unpacked(path: Path) -> IO[bytes]:
    """The file as bytes, unpacked where it is gzip. Raises InputError where there is no such file."""
    if path.is_dir():
        raise InputError(f"{path}: this is a folder. Give the path of a file in it.")
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def _raw_lines(path: Path, unpacked: int) -> Iterator[bytes]:
    number = total = 0
    try:
        with open_unpacked(path) as file:
            limited = isinstance(file, gzip.GzipFile)
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                total += len(line)
                if len(line) > LONGEST_LINE:
                    raise InputError(f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes. Is it a text file?")
                if limited and total > unpacked:
                    raise _too_large(path, unpacked)
                if b"\0" in line:
                    raise InputError(f"{path}, line {number}: binary data, not text.")
                line = line.removeprefix(BOM) if number == 1 else line
                yield line[: -2 if line.endswith(b"\r\n") else -1] if line.endswith((b"\n", b"\r")) else line
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error, number) from None


def _unreadable(path: Path, error: Exception, after: int = 0) -> InputError:
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        place = f"{path}, after line {after}" if after else f"{path}"
        return InputError(f"{place}: the gzip data is truncated or damaged ({error}). Fetch it again.")
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).")


def _too_large(path: Path, unpacked: int) -> InputError:
    return InputError(
        f"{path}: it unpacks to more than {unpacked:,} bytes. If that is right, unpack it yourself and give that file."
    )
