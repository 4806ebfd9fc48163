"""Files and folders that are complete or absent: written under a temporary name in the same folder, synced, renamed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from importlib import resources
from pathlib import Path
from typing import Any

from didi_core.errors import InputError, one_line

_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")  # how JSON writes halves of characters
PART = ".part"
_OURS = re.compile(r"\.(?P<name>.+?)(?P<number>\.[0-9a-f]{8})?\.part")  # folders of older versions have no number
AGE = 24 * 3600.0  # seconds after which a temporary file is a leftover, on a file system without locks


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file so that ``path`` has either its old or the complete new content, whenever the machine stops.

    Temporary files of an earlier writer that was killed are removed.

    Args:
        content: bytes, text (UTF-8), or a function that writes a file at the given path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _temporary(path)
    with _held(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)):  # the user's umask applies
        try:
            _remove_siblings(path)
            if callable(content):
                content(partial)
            else:
                partial.write_bytes(content.encode() if isinstance(content, str) else content)
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    sync(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None], *, replace: bool = False) -> None:
    """Make a folder with everything that ``fill`` writes into it; it is complete or absent.

    Args:
        replace: remove the folder that has the name already; otherwise it must be absent or empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _temporary(path)
    partial.mkdir()
    with _held(os.open(partial, os.O_RDONLY)):
        try:
            _remove_siblings(path)
            fill(partial)
            for one in (*partial.rglob("*"), partial):
                sync(one)
            if replace and path.exists():
                remove_folder(path)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that no incomplete folder ever has its name."""
    with _held(os.open(path, os.O_RDONLY)):
        leftover = _temporary(path)
        path.rename(leftover)
        shutil.rmtree(leftover)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of killed writers anywhere in a folder, and nothing else.

    A writer that is at work holds a lock on its own. Links are not followed.
    """
    for root, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if _OURS.fullmatch(name)]:
            _remove_leftover(Path(root, name))
        folders[:] = [name for name in folders if not _OURS.fullmatch(name)]


def is_temporary(path: Path, of: str) -> bool:
    """Whether a path is a temporary one of the file or folder that is called ``of``."""
    found = _OURS.fullmatch(path.name)
    return found is not None and found["name"] == of


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


@contextmanager
def _held(handle: int) -> Iterator[None]:
    """Lock a temporary file or folder while it is written, so that no other process takes it for a leftover."""
    try:
        with suppress(OSError):  # some network file systems have no locks, or none of folders: there its age decides
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _remove_siblings(path: Path) -> None:
    """Remove what killed writers of the same path have left."""
    for other in path.parent.glob(f".{escape(path.name)}*{PART}"):
        if is_temporary(other, path.name):
            _remove_leftover(other)


def _remove_leftover(path: Path) -> None:
    """Remove a temporary file or folder whose writer has ended."""
    folder, found = path.is_dir() and not path.is_symlink(), _OURS.fullmatch(path.name)
    if found is None or not (folder or found["number"]):
        return
    try:
        handle = os.open(path, (os.O_RDONLY if folder else os.O_RDWR) | os.O_NOFOLLOW)
    except OSError:  # its writer has just finished with it, or it is a link, which none of ours is
        return
    try:
        if _ended(handle):
            if folder:
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _ended(handle: int) -> bool:
    """Whether no process writes to a temporary file or folder any more."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - os.fstat(handle).st_mtime > AGE
    return True


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Within, this process is alone among those that name the same lock, a file that stays; the others wait.

    The turn ends with the process, so that a killed one is not waited for. Where the file cannot be made or the file
    system has no locks, nobody waits: what is written there must be written atomically all the same.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)  # for writing, without which NFS has no such lock
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


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
        raise InputError(f"{path} is damaged: {one_line(error)}. {fix}") from None
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


def check_links(folder: Path) -> None:
    """Raise InputError if a link anywhere in a folder leads out of it, where writing would change other files."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(root, name)):
                inside(folder, os.path.relpath(os.path.join(root, name), folder))


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
