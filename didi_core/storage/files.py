"""Files that are complete or absent: written under a temporary name in the same folder, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file so that ``path`` is either what it was or the whole new content, whenever the machine stops.

    Args:
        content: bytes, text (UTF-8), or a function that writes the file at the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(partial)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted-as-given keys and a final line break, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged(package: str, name: str) -> Path:
    """Path of a file or folder of ``assets``, which ships inside a package."""
    return Path(str(resources.files(package).joinpath("assets", name)))
