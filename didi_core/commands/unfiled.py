"""Configurations of domains and objectives whose plugins bring no file: their keys, with the defaults of the code.

With them a new domain or objective is one file of Python. Where a config folder has ``domain/<name>.yaml`` or
``objective/<name>.yaml``, that file is used.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore

from didi_core.config import build
from didi_core.errors import InputError
from didi_core.plugins import registry

PROVIDER = "didi"
PLAIN = (str, int, float, bool, type(None))


def unfiled(group: str) -> dict[str, dict[str, Any]]:
    """Content of the configurations that no config folder has, by name; empty for any other group."""
    made = {"domain": ("domains", _domain), "objective": ("objectives", _objective)}.get(group)
    if made is None:
        return {}
    kind, content = made
    found = registry()
    return {
        name: content(name, offer.value)
        for name, offer in found.offers[kind].items()
        if f"{group}/{name}" not in found.offers["configs"] and f"{group}/{name}" not in found.conflicts["configs"]
    }


def store_unfiled() -> None:
    """Give them to Hydra, in place of those it was given before; before anything is composed."""
    store = ConfigStore.instance()
    for group in ("domain", "objective"):
        kept = store.repo.setdefault(group, {})
        for name in [name for name, node in kept.items() if node.provider == PROVIDER]:
            del kept[name]
        for name, content in unfiled(group).items():
            store.store(name, content, group=group, package="_global_", provider=PROVIDER)


def _domain(name: str, factory: Any) -> dict[str, Any]:
    """Parameters of the factory that have a plain default are the keys of ``data``."""
    parameters = inspect.signature(factory).parameters.values()
    return {"domain": name, "data": {p.name: p.default for p in parameters if _plain(p.default)}}


def _objective(name: str, settings: Any) -> dict[str, Any]:
    """Fields of the settings are the keys of ``objective``; those without a default must be added with ``+``."""
    try:
        keys = dataclasses.asdict(build(settings, {}))
    except InputError:
        keys = {field.name: field.default for field in dataclasses.fields(settings) if _plain(field.default)}
    return {"objective": {**{key: value for key, value in keys.items() if _plain(value)}, "name": name, "kind": name}}


def _plain(value: Any) -> bool:
    """Whether a value can stand in a configuration."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, PLAIN)
