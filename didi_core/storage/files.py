"""Files and folders that are complete or absent: written under a temporary name in the same folder, synced, renamed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from glob import escape
from importlib import resources
from pathlib import Path
from typing import Any

from didi_core.errors import InputError

_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")  # how JSON writes halves of characters
PART = ".part"  # ending of temporary names, which begin with a dot


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file so that ``path`` has either its old or the complete new content, whenever the machine stops.

    Temporary files of an earlier writer that was killed are removed.

    Args:
        content: bytes, text (UTF-8), or a function that writes a file at the given path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)  # the user's umask applies
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # held while writing, so that no other process takes it for a leftover
        for other in path.parent.glob(f".{escape(path.name)}.*{PART}"):
            if other != partial:
                _remove_leftover(other)
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        os.close(handle)
    sync(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder with everything that ``fill`` writes into it; it is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PART}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        fill(partial)
        for one in (*partial.rglob("*"), partial):
            sync(one)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that no incomplete folder ever has its name."""
    leftover = path.with_name(f".{path.name}{PART}")
    shutil.rmtree(leftover, ignore_errors=True)
    path.rename(leftover)
    shutil.rmtree(leftover)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed writers from a folder whose lock the caller holds."""
    for path in [*folder.rglob(f".*{PART}")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_leftover(path: Path) -> None:
    """Remove a temporary file whose writer has ended."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # its writer has just finished with it
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:  # its writer is at work
        return
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, with keys in the given order and a final line break."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, fix: str = "Get the file again.") -> dict[str, Any]:
    """The object in a JSON file. Raises InputError, with the advice ``fix``, if it is missing, damaged or no object."""
    try:
        found = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). {fix}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}. {fix}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it holds a {type(found).__name__} instead of an object. {fix}")
    return found


def parse_json(content: bytes) -> Any:
    """A value from JSON. Raises ValueError where it is none, nested too deep, or holds halves of characters."""
    try:
        found = json.loads(content)
        if _HALVES.search(content):
            json.dumps(found, ensure_ascii=False).encode()  # a half alone is no text, and cannot be written
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return found


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder. Raises InputError where a link leads out of the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path} is a link that leads out of {folder}. Put the file itself there.")
    return path


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
