"""The groups of a command's configuration, and their choices: files of the core, each for some of the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from didi_core.config import config_folder

OF_PRETRAIN = ("autoregressive", "nelbo")  # kinds of objectives that are for pretrain; all others are for distill


def groups_of(command: str) -> dict[str, list[str]]:
    """The groups in the defaults of a command's file, each with the core's own choices that are for this command."""
    found = {}
    for entry in content_of(config_folder() / f"{command}.yaml").get("defaults", []):
        for name in entry if isinstance(entry, Mapping) else ():
            group = str(name).split()[-1]
            paths = (config_folder() / group).glob("*.yaml")
            found[group] = sorted(path.stem for path in paths if serves(path, command))
    return {group: names for group, names in found.items() if names}


def serves(choice: Path, command: str) -> bool:
    """Whether the file of a choice is for a command: by its name, by its kind of objective, or by its first comment."""
    group = choice.parent.name
    if group == "sizes":
        return choice.stem.startswith(f"{command}_")
    if group == "experiment":
        return f"{command} experiment={choice.stem}" in choice.read_text(encoding="utf-8")
    if group == "tuning":
        choice = config_folder() / "objective" / f"{choice.stem.rpartition('_')[0]}.yaml"
    elif group != "objective":
        return True
    return (content_of(choice).get("objective", {}).get("kind") in OF_PRETRAIN) == (command == "pretrain")


def content_of(path: Path) -> dict[str, Any]:
    """The keys of a YAML file; empty for one without."""
    made = yaml.safe_load(path.read_text(encoding="utf-8"))
    return made if isinstance(made, dict) else {}
