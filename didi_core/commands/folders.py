"""Folders of configurations: those of plugins, and the user's own (``--config-dir``, ``--config-name``)."""

from __future__ import annotations

from pathlib import Path

from didi_core.config import config_folder, user_path
from didi_core.errors import InputError

_own: tuple[Path | None, str | None] = (None, None)


def use_own(folder: str | None, name: str | None) -> None:
    """Let a user's folder be searched after all others, and a file of that name stand for the command's own.

    Raises:
        InputError: the folder does not exist, or no folder has such a file.
    """
    global _own
    _own = (None, None)
    path = None if folder is None else user_path(folder).resolve()
    if path is not None and not path.is_dir():
        raise InputError(f"--config-dir {folder}: there is no such folder. Give one of configurations.")
    bare = None if name is None else name.removesuffix(".yaml")
    if bare is None:
        _own = (path, None)
        return
    places = (path,) if path is not None else config_folders()
    if not any((place / f"{bare}.yaml").is_file() for place in places):
        there = sorted({file.stem for place in places for file in place.glob("*.yaml")})
        where = f"in {path}" if path is not None else "without --config-dir"
        raise InputError(f"--config-name {name}: there is no {bare}.yaml {where}. There: {', '.join(there) or 'none'}.")
    _own = (path, bare)


def config_folders() -> tuple[Path, ...]:
    """All folders of configurations, the user's own last."""
    from didi_core.plugins import registry  # help without plugins does not wait for them

    folders = registry().config_folders
    return folders if _own[0] is None else (*folders, _own[0])


def added_folders() -> list[Path]:
    """Folders that Hydra does not know by itself."""
    return [folder for folder in config_folders() if folder != config_folder()]


def config_name(command: str) -> str:
    """Name of the file that a command's configuration starts from."""
    return _own[1] or command


def flags_again() -> list[str]:
    """The flags that say so again, for a command line."""
    folder, name = _own
    given = {"--config-dir": folder, "--config-name": name}
    return [f"{flag}={value}" for flag, value in given.items() if value is not None]
