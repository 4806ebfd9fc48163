"""Lines of a text file, plain or gzip (recognised by its first bytes, not its name), one at a time, within limits.

A line ends at a line feed, a carriage return or both, and nowhere else: U+2028 and the like are ordinary characters.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import zlib
from codecs import getincrementaldecoder
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from didi_core.errors import InputError
from didi_core.storage.unpacked import RATIO, Allowance

GZIP_MAGIC = b"\x1f\x8b"
_UNDECODED = re.compile("[\udc80-\udcff]")
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which no file in UTF-8 can hold
BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 1 << 28  # bytes
PIECE = 1 << 22  # bytes
BLOCK = 1 << 18  # bytes of lines that are split together


def numbered_lines(path: Path, *, errors: str = "strict", unpacked: int | None = None) -> Generator[tuple[int, str]]:
    """(1-based number, text without its line end) of each line; a byte-order mark is dropped.

    Args:
        errors: how to treat bytes that are not UTF-8: ``strict`` raises, ``surrogateescape`` keeps them as lone
            surrogates.
        unpacked: largest unpacked size of a gzip file in bytes; by default ``RATIO`` times its size, see ``Allowance``.

    Raises:
        InputError: with file and line: no such file, a folder, unreadable, binary, damaged gzip, or too large.
    """
    number = 0
    for block in _blocks(path, unpacked):
        try:
            for line in block.decode("utf-8", errors).split("\n"):
                number += 1
                yield number, line
        except UnicodeDecodeError as error:
            for line in block[: error.start].decode("utf-8").split("\n")[:-1]:
                number += 1
                yield number, line
            raise _not_utf8(path, number + 1, block[error.start]) from None


def text_pieces(
    path: Path, *, errors: str = "strict", unpacked: int | None = None, size: int = PIECE, ratio: int = RATIO
) -> Generator[str]:
    """A text file in consecutive pieces of about ``size`` bytes, cut anywhere, line ends as they are.

    Arguments and errors are those of ``numbered_lines``; ``ratio``: times its packed size that it may unpack to.
    """
    decoder, lines = getincrementaldecoder("utf-8")(errors), 0
    for raw in _raw_pieces(path, unpacked, size, ratio):
        try:
            yield decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:  # bytes that the decoder kept from the last piece contain no line end
            line = lines + error.object.count(b"\n", 0, error.start) + 1
            raise _not_utf8(path, line, error.object[error.start]) from None
        lines += raw.count(b"\n")


def read_whole(path: Path, *, unpacked: int | None = None) -> str:
    """A text file in one piece, line ends as they are. Arguments and errors are those of ``numbered_lines``."""
    return "".join(text_pieces(path, unpacked=unpacked))


def _blocks(path: Path, unpacked: int | None) -> Iterator[bytes]:
    """Some consecutive lines at a time, with ``\\n`` between them and none at the end; without a byte-order mark."""
    number = total = held = 0  # lines and bytes read; bytes of a line that is not complete
    begun: list[bytes] = []  # pieces of that line
    try:
        with opened(path, unpacked) as (file, allowed):
            while piece := file.read1(BLOCK):  # one call of the system: of a damaged packed file all that is before it
                total += len(piece)
                allowed.check(total)
                piece = piece.removeprefix(BOM) if total == len(piece) else piece
                binary = piece.find(b"\0")
                whole, end, rest = (piece if binary < 0 else piece[:binary]).rpartition(b"\n")
                if end:
                    block = _one_line_end(b"".join([*begun, whole]))
                    yield block
                    number += block.count(b"\n") + 1
                    begun, held = [], 0
                if binary >= 0:
                    raise InputError(
                        f"{path}, line {number + 1}: binary data, not text. "
                        "Give a text file, plain or gzip."
                    )
                begun.append(rest)
                held += len(rest)
                if held > LONGEST_LINE:
                    place = f"{path}, line {number + 1}"
                    raise InputError(f"{place}: longer than {LONGEST_LINE:,} bytes. Is it a text file?")
            if last := b"".join(begun):
                yield _one_line_end(last)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error, number) from None


def _one_line_end(block: bytes) -> bytes:
    """The lines with ``\\n`` between them; of the last one's own end a carriage return may be left."""
    if b"\r" not in block:
        return block
    return block.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _raw_pieces(path: Path, unpacked: int | None, size: int, ratio: int) -> Iterator[bytes]:
    """Bytes of the file, unpacked and without a byte-order mark; the last piece is empty."""
    total, raw = 0, b" "
    try:
        with opened(path, unpacked, ratio) as (file, allowed):
            while raw:
                raw = file.read(size)
                allowed.check(total + len(raw))
                yield raw if total else raw.removeprefix(BOM)
                total += len(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


@contextmanager
def opened(path: Path, unpacked: int | None, ratio: int = RATIO) -> Iterator[tuple[BufferedIOBase, Allowance]]:
    """Open a file for reading. Raises InputError where there is none, and at the end if it was written to, or replaced,
    meanwhile.

    Yields:
        the file, unpacked, and what it may unpack to.
    """
    if path.is_dir():
        raise InputError(f"{path}: this is a folder. Give the path of a file in it.")
    if not path.exists():
        raise InputError(f"{path}: no such file. Give the path of one.")
    with path.open("rb") as raw:
        before = os.fstat(raw.fileno())
        if raw.peek(2)[:2] == GZIP_MAGIC:
            with gzip.GzipFile(fileobj=raw) as file:
                yield file, Allowance(path, raw, unpacked, ratio)
        else:
            yield raw, Allowance(path, None)
        after = path.stat()
    if stat.S_ISREG(before.st_mode) and version(before) != version(after):
        raise InputError(f"{path} changed while it was read. Wait until it is complete, then repeat the command.")


def version(found: os.stat_result) -> tuple[int, int, int]:
    """What differs where a file's content does, without reading it: inode, size, and time of change in ns."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(path: Path, error: Exception, after: int = 0) -> InputError:
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        place = f"{path}, after line {after}" if after else f"{path}"
        return InputError(f"{place}: the gzip data is truncated or damaged ({error}). Fetch it again.")
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).")


def _not_utf8(path: Path, line: int, byte: int) -> InputError:
    return InputError(
        f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8 text. Convert the file, for instance with iconv -t utf-8."
    )


def undecoded_byte(text: str) -> str:
    """The problem of a text read with ``surrogateescape``; '' if all its bytes were UTF-8."""
    found = None if text.isascii() else _UNDECODED.search(text)
    return f"byte 0x{ord(found.group()) - 0xDC00:02x} is not UTF-8 text" if found else ""
