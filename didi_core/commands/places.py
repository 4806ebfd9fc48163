"""Relative paths in a run's settings, read from another working directory than that of its command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from didi_core.config import user_path

FILES = ("path", "prompts")  # keys of ``data`` that name files, which a model's card does not keep
KEPT = ("tokenizer", "judge")  # those that may name a file or folder, and that it keeps
NAMES = ("bundled", "pydoc")  # never paths


def placed(value: Any, folder: Path) -> Any:
    """A path, or each of a list, as it is from ``folder``. What does not exist there stays: a name, or a hub id."""
    if isinstance(value, list | tuple):
        return [placed(one, folder) for one in value]
    if not isinstance(value, str) or not value or value in NAMES:
        return value
    path = folder / user_path(value)
    return str(path) if path.exists() else value


def with_places(values: Mapping[str, Any], keys: Iterable[str], folder: Path) -> dict[str, Any]:
    """The values, with those of the keys as paths from ``folder``."""
    return {**values, **{key: placed(values[key], folder) for key in keys if key in values}}


def placed_config(record: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a run's record, with paths from the working directory of its command, if it is known."""
    config, folder = dict(record["config"]), record.get("working_directory")
    if not isinstance(folder, str):
        return config
    found = with_places(config, ("teacher", "cache"), Path(folder))
    data = found.get("data")
    return {**found, "data": with_places(data, (*FILES, *KEPT), Path(folder))} if isinstance(data, Mapping) else found
