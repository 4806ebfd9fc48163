"""Files and folders that are complete or absent: written under a temporary name beside, synced, renamed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from glob import escape
from importlib import resources
from pathlib import Path
from typing import Any

from didi_core.errors import InputError

PART = ".part"  # ending of temporary names, which begin with a dot


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file so that ``path`` is either what it was or the whole new content, whenever the machine stops.

    What an earlier writer of the same file left when it was killed is removed.

    Args:
        content: bytes, text (UTF-8), or a function that writes the file at the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)  # less what the user's umask takes away
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # while it lives, so that nobody takes it for a leftover
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
    """Make a folder that is there with all that ``fill`` writes into it, or not at all."""
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
    """Remove a folder so that it is never there in part under its own name."""
    leftover = path.with_name(f".{path.name}{PART}")
    shutil.rmtree(leftover, ignore_errors=True)
    path.rename(leftover)
    shutil.rmtree(leftover)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder of which the caller holds the lock."""
    for path in [*folder.rglob(f".*{PART}")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_leftover(path: Path) -> None:
    """Remove a temporary file whose writer is gone."""
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
    """Write JSON with sorted-as-given keys and a final line break, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, fix: str = "Get the file anew.") -> dict[str, Any]:
    """The object in a JSON file. Raises InputError: missing, unreadable, cut short, or no object; ``fix`` ends it."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). {fix}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested beyond measure
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}. {fix}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: an object was expected, and a {type(found).__name__} is there. {fix}")
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
