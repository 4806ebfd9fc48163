"""Values put into a configuration, each under a key that is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from didi_core.commands import find
from didi_core.commands.grammar import MISSING, annotation_of
from didi_core.commands.setting import WISHES, Setting, read_setting
from didi_core.config import flatten, unknown_key
from didi_core.errors import InputError
from didi_core.plugins import registry

OPEN = ("num_at", "each_reward")  # nodes whose keys are free


class Merging:
    """Puts values into a configuration, each under a key that is known."""

    def __init__(self, command: str, config: dict[str, Any]) -> None:
        self.command, self.config, self.known = command, config, flatten(config)
        self.kind = find(command).settings
        self.node = wish_node(config)
        self.wishes = wish_values(self.node) if self.node else {}

    def apply(self, setting: Setting) -> None:
        """Put one setting in. Raises InputError."""
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
        """A mapping is merged into the group of that name, key by key; any other value takes the place of the old."""
        now = self.known.get(key)
        if not isinstance(value, Mapping) or not isinstance(now, Mapping):
            put(self.config, key, value)
            return
        for name, inner in value.items():
            if self._is_open(key):
                _leaf(self.config, key)[name] = inner
                continue
            self._check(f"{key}.{name}", add)
            self._put(f"{key}.{name}", inner, add)

    def _check(self, key: str, add: bool) -> None:
        """Every key must be there; ``+key`` adds one to a group and is checked by whoever reads that group."""
        group = key.rpartition(".")[0]
        if key in self.known or any(self._is_open(above) for above in _above(key)):
            return
        if add and isinstance(self.known.get(group), Mapping):
            return
        others = choices_with(key)
        if others and group:
            words = " or ".join(f"{key.split('.')[0]}={name}" for name in others[:2])
            raise InputError(f"{key} is no key of the {key.split('.')[0]} that is chosen. It is one with {words}.")
        raise unknown_key(key, [*self.known, *self.wishes])

    def _is_open(self, key: str) -> bool:
        """Whether a group takes any key: one of a domain or of a plugin, who check it."""
        now = self.known.get(key)
        return key == self.node or key.rpartition(".")[2] in OPEN or (isinstance(now, Mapping) and not now)

    def _take_out(self, key: str) -> None:
        if key not in self.known:
            raise unknown_key(key, self.known)
        group, _, last = key.rpartition(".")
        _leaf(self.config, group).pop(last, None)


def _leaf(config: dict[str, Any], group: str) -> dict[Any, Any]:
    """The group of a dotted key."""
    for name in group.split(".") if group else ():
        config = config[name]
    return config


def _above(key: str) -> list[str]:
    """All groups that a dotted key lies in."""
    words = key.split(".")
    return [".".join(words[:i]) for i in range(1, len(words))]


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, its groups made where they are not there."""
    *groups, last = key.split(".")
    for name in groups:
        if not isinstance(config.get(name), dict):
            config[name] = {}
        config = config[name]
    config[last] = value


def choices_with(key: str) -> list[str]:
    """The files of a key's group that hold the key: ``objective.reward`` is in ``objective/didi.yaml``."""
    found = []
    for folder in registry().config_folders:
        for path in sorted((folder / key.split(".")[0]).glob("*.yaml")):
            if key in flatten(OmegaConf.to_container(OmegaConf.load(path))):  # type: ignore[arg-type]
                found.append(path.stem)
    return found


def wish_node(known: Iterable[Any]) -> str | None:
    """The node among a command's keys that holds the keys of domains; None where there is none."""
    return next((node for node in WISHES if node in known), None)


def wish_values(node: str) -> dict[str, Any]:
    """Keys that the domains declare in ``<node>/<domain>.yaml``, over all config folders, with their values."""
    found: dict[str, Any] = {}
    for folder in registry().config_folders:
        for path in sorted((folder / node).glob("*.yaml")):
            declared: Any = OmegaConf.to_container(OmegaConf.load(path))
            found |= {str(key): value for key, value in declared.items()}
    return found
