"""Merging of values into a configuration, each under a known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from didi_core.commands import find
from didi_core.commands.folders import config_folders
from didi_core.commands.grammar import MISSING, annotation_of, written
from didi_core.commands.groups import groups_of
from didi_core.commands.setting import WISHES, Setting, read_setting
from didi_core.config import flatten, unknown_key
from didi_core.errors import InputError

OPEN = ("num_at", "each_reward")  # nodes with arbitrary keys


class Merging:
    """Merges values into a configuration, each under a known key."""

    def __init__(self, command: str, config: dict[str, Any]) -> None:
        self.command, self.config, self.known = command, config, flatten(config)
        self.kind = find(command).settings
        self.node = wish_node(config)
        self.wishes = wish_values(self.node) if self.node else {}

    def apply(self, setting: Setting) -> None:
        """Merge one setting. Raises InputError."""
        key, default = setting.key, self.known.get(setting.key, MISSING)
        if key.split(".")[0] in self.wishes:
            default = flatten(self.wishes).get(key, MISSING)
            key = f"{self.node}.{key}"
        if setting.delete:
            self._take_out(key)
            return
        self._check(key, setting.add)
        value = read_setting(setting, annotation_of(self.kind, key), default) if setting.typed else setting.value
        self._put(key, value, setting.add)

    def _put(self, key: str, value: Any, add: bool) -> None:
        """Merge a mapping into the group of that name, key by key; any other value replaces the old one."""
        now = self.known.get(key)
        if not isinstance(value, Mapping) or not isinstance(now, Mapping):
            self._check_given(key, value)
            put(self.config, key, value)
            return
        for name, inner in value.items():
            if self._is_open(key):
                _leaf(self.config, key)[name] = inner
                continue
            self._check(f"{key}.{name}", add)
            self._put(f"{key}.{name}", inner, add)

    def _check_given(self, key: str, value: Any) -> None:
        """Raise InputError for an empty text where none was: as a path it would be the present folder.

        The domain's own keys of a sample may be empty, such as a prompt.
        """
        now = self.known.get(key)
        if key.split(".")[0] == self.node or now == "" or "" not in (value if isinstance(value, list) else [value]):
            return
        without = "leave the key out" if now is None else f"leave the key out for {key}={written(now)}"
        raise InputError(f"{key}={written(value)} has no value: give one, or {without}.")

    def _check(self, key: str, add: bool) -> None:
        """Raise InputError for an unknown key; ``+key`` adds one to a group, whose reader then checks it."""
        group = key.rpartition(".")[0]
        if key in self.known or any(self._is_open(above) for above in _above(key)):
            return
        if add and isinstance(self.known.get(group), Mapping):
            return
        others = choices_with(key)
        if others and group:
            words = " or ".join(f"{key.split('.')[0]}={name}" for name in others[:2])
            raise InputError(f"{key} is not a key of the chosen {key.split('.')[0]}. It is one with {words}.")
        raise self._unknown(key)

    def _unknown(self, key: str) -> InputError:
        """The error for an unknown key: what it is most like of keys, groups, and keys that other choices have."""
        known = [*self.known, *self.wishes, *groups_of(self.command)]
        elsewhere = keys_of_group(key.split(".")[0])
        near = difflib.get_close_matches(key, {*known, *elsewhere}, n=1, cutoff=0.85)
        if not near or near[0] in known:
            return unknown_key(key, known)
        words = " or ".join(f"{key.split('.')[0]}={name}" for name in choices_with(near[0])[:2])
        return InputError(f"unknown key {key!r}. Did you mean {near[0]!r}, a key of {words}?")

    def _is_open(self, key: str) -> bool:
        """Whether a group takes any key; the domain or plugin that owns it checks its keys."""
        now = self.known.get(key)
        return key == self.node or key.rpartition(".")[2] in OPEN or (isinstance(now, Mapping) and not now)

    def _take_out(self, key: str) -> None:
        if key not in self.known:
            raise unknown_key(key, [*self.known, *self.wishes, *groups_of(self.command)])
        group, _, last = key.rpartition(".")
        _leaf(self.config, group).pop(last, None)


def _leaf(config: dict[str, Any], group: str) -> dict[Any, Any]:
    """The group of a dotted key."""
    for name in group.split(".") if group else ():
        config = config[name]
    return config


def _above(key: str) -> list[str]:
    """All groups that contain a dotted key."""
    words = key.split(".")
    return [".".join(words[:i]) for i in range(1, len(words))]


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making groups that are missing."""
    *groups, last = key.split(".")
    for name in groups:
        if not isinstance(config.get(name), dict):
            config[name] = {}
        config = config[name]
    config[last] = value


def keys_of_group(group: str) -> set[str]:
    """Dotted keys of all files of a group that are below the group's own name."""
    return {key for _, held in _declared(group) for key in flatten(held) if key.startswith(f"{group}.")}


def choices_with(key: str) -> list[str]:
    """The files of a key's group that hold the key: ``objective.reward`` is in ``objective/didi.yaml``."""
    return [name for name, held in _declared(key.split(".")[0]) if key in flatten(held)]


def wish_node(known: Iterable[Any]) -> str | None:
    """The node of a command that holds the keys of domains; None if there is none."""
    return next((node for node in WISHES if node in known), None)


def wish_values(node: str) -> dict[str, Any]:
    """Keys with values that domains declare in ``<node>/<domain>.yaml``, over all config folders."""
    return {str(key): value for _, held in _declared(node) for key, value in held.items()}


def _declared(group: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Name and content of every file of a group, over all config folders."""
    for folder in config_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            held: Any = OmegaConf.to_container(OmegaConf.load(path))
            yield path.stem, held
