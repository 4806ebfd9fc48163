"""Finds plugins, asks them what they offer, and refuses two that offer one name.

Discovery is by entry points in the group ``didi.plugins``. A plugin that cannot be loaded is remembered by name and
skipped, unless it is what the user asked for.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from didi_core import builtin, hookspecs, unmasking
from didi_core.errors import InputError, unknown
from didi_core.types import Domain

GROUP = "didi.plugins"
KINDS = ("domains", "laws")  # what is registered by name


@dataclass(frozen=True)
class Offer:
    """A named thing and the plugin it comes from."""

    value: Any
    plugin: str


@dataclass(frozen=True)
class Plugin:
    """One plugin: its name, the distribution it came in, and why it could not be loaded ('' when it could)."""

    name: str
    distribution: str
    problem: str = ""


@dataclass(frozen=True)
class Registry:
    """Everything that the loaded plugins offer. Read-only."""

    manager: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    offers: Mapping[str, Mapping[str, Offer]] = field(default_factory=dict)  # kind -> name -> offer
    config_folders: tuple[Path, ...] = ()

    def names(self, kind: str) -> list[str]:
        """Known names of a kind, sorted."""
        return sorted(self.offers[kind])

    def domain(self, name: str, data: Mapping[str, Any]) -> Domain:
        """The domain of that name, made from the keys of the config node ``data``."""
        offer = self.offers["domains"].get(name)
        if offer is None:
            raise self.missing("domain", name, self.names("domains"))
        domain: Domain = offer.value(**data)
        return domain

    def missing(self, kind: str, name: str, known: Iterable[str]) -> InputError:
        """The error for an unknown name. A plugin that failed to load and may have offered it is named."""
        failed = [p for p in self.plugins if p.problem]
        asked = [p for p in failed if p.name == name]
        if asked:
            return InputError(f"{kind} {name!r} is not there because its plugin cannot be loaded: {_tell(asked[0])}.")
        error = unknown(kind, name, known)
        return InputError(" ".join([str(error), *(f"Plugin skipped: {_tell(p)}." for p in failed)]))


def _tell(plugin: Plugin) -> str:
    return f"{plugin.name!r} of {plugin.distribution}: {plugin.problem}"


@cache
def registry() -> Registry:
    """The plugins of this installation, loaded once. Laws of plugins join ``didi_core.unmasking.LAWS``."""
    found = collect(importlib.metadata.entry_points(group=GROUP))
    unmasking.LAWS.update({name: offer.value for name, offer in found.offers["laws"].items()})
    return found


def collect(entry_points: Iterable[importlib.metadata.EntryPoint]) -> Registry:
    """Load the given entry points after the core's own plugin.

    Raises:
        InputError: a plugin implements a hook that does not exist, or two plugins offer one name.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(builtin, "core")
    plugins = [Plugin("core", "didi-core")]
    for point in sorted(entry_points, key=lambda p: p.name):
        plugins.append(_load(manager, point))
    offers = {kind: MappingProxyType(_gather(manager, kind, plugins)) for kind in KINDS}
    folders = [folder for _, offered in _call(manager, "config_folders") for folder in offered]
    return Registry(manager, tuple(plugins), MappingProxyType(offers), tuple(dict.fromkeys(folders)))


def _load(manager: pluggy.PluginManager, point: importlib.metadata.EntryPoint) -> Plugin:
    """Import and register one plugin; what goes wrong there is its problem, not the run's."""
    distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
    if manager.has_plugin(point.name):
        first = manager.get_plugin(point.name)
        return Plugin(point.name, distribution, f"another plugin has its name: {getattr(first, '__name__', first)}")
    try:
        module = point.load()
        manager.register(module, point.name)
        manager.check_pending()
    except Exception as error:  # a stranger's code may raise anything; it is told by name and the rest goes on
        if manager.has_plugin(point.name):
            manager.unregister(name=point.name)
        return Plugin(point.name, distribution, f"{type(error).__name__}: {error}")
    return Plugin(point.name, distribution)


def _call(manager: pluggy.PluginManager, kind: str) -> list[tuple[str, Any]]:
    """(plugin's name, what it offers) of a ``didi_register_*`` hook, the core first."""
    caller = getattr(manager.hook, f"didi_register_{kind}")
    return [(impl.plugin_name, impl.function()) for impl in caller.get_hookimpls()]


def _gather(manager: pluggy.PluginManager, kind: str, plugins: Iterable[Plugin]) -> dict[str, Offer]:
    """Named offers of all plugins."""
    origin = {plugin.name: plugin.distribution for plugin in plugins if not plugin.problem}
    found: dict[str, Offer] = {}
    for plugin, offered in _call(manager, kind):
        for name, value in offered.items():
            if name in found:
                other = found[name].plugin
                raise InputError(
                    f"two plugins offer {kind.removesuffix('s')} {name!r}: {other!r} of {origin[other]} and "
                    f"{plugin!r} of {origin[plugin]}. Uninstall one of them."
                )
            found[name] = Offer(value, plugin)
    return found
