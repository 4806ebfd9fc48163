"""Configurations of domains and objectives whose plugins have no file: their keys, with the defaults of the code.

They make a new domain or objective a single Python file. If a config folder has ``domain/<name>.yaml`` or
``objective/<name>.yaml``, that file is used instead.
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
    """Configurations that are in no config folder, by name; empty for any other group."""
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
    """Pass them to Hydra, replacing earlier ones. Call it before anything is composed."""
    store = ConfigStore.instance()
    for group in ("domain", "objective"):
        kept = store.repo.setdefault(group, {})
        for name in [name for name, node in kept.items() if node.provider == PROVIDER]:
            del kept[name]
        for name, content in unfiled(group).items():
            store.store(name, content, group=group, package="_global_", provider=PROVIDER)


def _domain(name: str, factory: Any) -> dict[str, Any]:
    """The keys of ``data``: the factory's parameters with a plain default."""
    parameters = inspect.signature(factory).parameters.values()
    return {"domain": name, "data": {p.name: p.default for p in parameters if _plain(p.default)}}


def _objective(name: str, settings: Any) -> dict[str, Any]:
    """The keys of ``objective``: the fields of the settings; those without a default must be added with ``+``."""
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
