"""Mutated inputs for readers and parsers: each is read, or refused with an InputError, in time and in little memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
import signal
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Any

import numpy as np

from didi_core.errors import InputError

PATIENCE = 20  # seconds after which an input counts as a hang; they take milliseconds
MEMORY = 3 << 30  # bytes that one input may reserve
HURTS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b"\xe2\x80\xa8", b">", b"{", b"[", b'"', b"'", b",", b";",
    b"\t", b"=", b"-", b"/", b":", b"_", b"[[", b"]]", b"*", b"nan", b"inf", b"1e999", b"9" * 5000, b"1" * 300 + b"x",
    b"[" * 2000, b'{"a":' * 500, b"-1", b"0", b"null", b"true", b"\\ud800", b"MKV", b"T=0.1, sample=1", b"a=b ",
    b"data_", b"loop_\n", b"_atom_site.id\n", b"ATOM  ", b"HETATM", b"MODEL        1\n", b"ENDMDL\n", b"A1-9999999999",
    b"$", b"#", b"\x1f\x8b", "é".encode(), "٣".encode(), "²".encode(), b" " * 100,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, 1e300, float("nan"), float("inf"), 10**9, 10**30, -(2**63), "", "x",
    "nan", "1", "../x", "/", "\0", "\ud800", "a" * 300, [], [[]], [None], [1, "a"], {}, {"a": 1}, {"": {}},
]  # fmt: skip
Mutate = Callable[[np.random.Generator, bytes], bytes]


class Hung(BaseException):
    """An input that is not done with in time; no handler of exceptions takes it for one of its own."""


@contextmanager
def limited() -> Iterator[None]:
    """Within, time and memory are limited, and nothing is printed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_reserved() + MEMORY, hard))
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reserved() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


# --- mutations


def as_bytes(random: np.random.Generator, data: bytes) -> bytes:
    """A few changes anywhere."""
    for _ in range(int(random.integers(1, 6))):
        start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
        piece, kind = data[start : min(end, start + 40)], random.integers(6)
        if kind == 0 and data:
            at = int(random.integers(len(data)))
            data = data[:at] + bytes([int(random.integers(256))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:start] + data[start + len(piece) :]
        elif kind == 2:
            data = data[:start] + piece * int(random.integers(2, 4)) + data[start:]
        elif kind in (3, 4):
            data = data[:start] + HURTS[int(random.integers(len(HURTS)))] + data[start:]
        else:
            data = data[:end] if random.random() < 0.3 else data
    return data


def as_text(random: np.random.Generator, data: bytes) -> bytes:
    """``as_bytes``, seldom packed, seldom cut after packing."""
    data = as_bytes(random, data)
    if random.random() < 0.1:
        data = gzip.compress(data, mtime=0)
        data = data[: int(random.integers(len(data)))] if random.random() < 0.5 else data
    return data


def as_json(random: np.random.Generator, data: bytes) -> bytes:
    """Values of JSON, or of one of several lines of JSON, replaced, removed and doubled; sometimes other bytes."""
    if random.random() < 0.2:
        return as_bytes(random, data)
    whole = _loaded(data)
    lines = [whole] if whole is not None else [json.loads(line) for line in data.splitlines()]
    for _ in range(int(random.integers(1, 4))):
        number = int(random.integers(len(lines)))
        lines[number] = _changed(random, lines[number])
    return b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _changed(random: np.random.Generator, tree: Any) -> Any:
    """A tree with one change at a random depth."""
    if not isinstance(tree, dict | list) or not tree or random.random() < 0.1:
        return VALUES[int(random.integers(len(VALUES)))]
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[int(random.integers(len(keys)))]
    made: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    kind = random.random()
    if kind < 0.1:
        del made[key]
    elif kind < 0.2 and isinstance(made, dict):
        made[f"{key}x"] = made.pop(key)
    elif kind < 0.2:
        made.insert(key, made[key])
    else:
        made[key] = _changed(random, made[key])
    return made


def as_safetensors(random: np.random.Generator, data: bytes) -> bytes:
    """The header changed as JSON, its length mended; sometimes other bytes."""
    if random.random() < 0.3:
        return as_bytes(random, data)
    size = struct.unpack("<Q", data[:8])[0]
    header = as_json(random, data[8 : 8 + size]).rstrip()
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def as_archive(random: np.random.Generator, data: bytes) -> bytes:
    """One member of a zip archive changed, the archive packed again; sometimes other bytes."""
    if random.random() < 0.2:
        return as_bytes(random, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    kind = random.random()
    at = int(random.integers(len(members))) if kind < 0.5 else 0  # the first is the pickle of a torch file
    name, content = members[at]
    members[at] = name, as_bytes(random, content)
    if kind > 0.95:
        del members[at]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if random.random() < 0.1 else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return made.getvalue()


# --- trials


def tried(
    name: str, make: Callable[[np.random.Generator], Callable[[], object]], count: int, seed: int, first: int = 0
) -> Counter[str]:
    """How inputs ended: read, refused, hung, or with another exception: the case, the number of the input, its name."""
    ends: Counter[str] = Counter()
    for number in range(first, first + count):
        go = make(np.random.default_rng((seed, number)))
        try:
            with limited():
                go()
            ends["read"] += 1
        except InputError:
            ends["refused"] += 1
        except Hung:
            ends[f"{name}, input {number}: hung"] += 1
        except Exception as error:
            ends[f"{name}, input {number}: {type(error).__name__}: {str(error)[:60]}"] += 1
    return ends
