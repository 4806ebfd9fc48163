"""Finds plugins and queries their offers. A faulty plugin does not stop a run that does not use it.

Discovery is by entry points in the group ``didi.plugins``. A plugin that cannot be loaded, or offers something
unusable, is left out with its fault. The error for an unknown name mentions such plugins. ``DIDI_TRACE_PLUGINS=1``
shows every hook call, and the traceback of a plugin that cannot be loaded.
"""

from __future__ import annotations

import importlib.metadata
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from didi_core import hookspecs
from didi_core.catalogue import PLUGINS, Catalogue
from didi_core.config import build
from didi_core.errors import InputError, warn
from didi_core.plugins import builtin
from didi_core.plugins.checks import check_hooks, import_fault, trace, tracing, undeclared
from didi_core.plugins.kinds import KINDS, Kind
from didi_core.plugins.offers import OWN, Offer, Plugin, settle
from didi_core.types import Domain, Metric

GROUP = "didi.plugins"
CORE = "core"  # name of the built-in plugin
# A plugin's code may raise anything, and a module that calls sys.exit at its import must not end the run.
FAILURES = (Exception, SystemExit)


@dataclass(frozen=True)
class Registry:
    """Everything that the loaded plugins offer. Read-only, except for ``silenced``: listeners that failed."""

    manager: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    offers: Mapping[str, Mapping[str, Offer]]  # kind -> name -> offer; a metric's name is <domain>/<metric>
    conflicts: Mapping[str, Mapping[str, str]]  # kind -> name -> why no plugin gets it
    config_folders: tuple[Path, ...] = ()
    silenced: set[str] = field(default_factory=set)

    def names(self, kind: str) -> list[str]:
        """Known names of a kind, sorted."""
        return sorted(self.offers[kind])

    def offered_by(self, plugin: str) -> dict[str, list[str]]:
        """Names by kind that a plugin offers."""
        mine = {kind: [n for n, o in offers.items() if o.plugin == plugin] for kind, offers in self.offers.items()}
        return {kind: sorted(names) for kind, names in mine.items() if names}

    def hooks(self, plugin: str) -> list[str]:
        """The hooks that a plugin implements."""
        found = self.manager.get_plugin(plugin)
        return sorted(caller.name for caller in self.manager.get_hookcallers(found) or []) if found else []

    def catalogue(self, kind: str) -> Catalogue[Any]:
        """The offers of a kind by name, with messages about missing names."""
        made: Catalogue[Any] = Catalogue(KINDS[kind].word, {})
        self.fill(kind, made)
        return made

    def fill(self, kind: str, catalogue: Catalogue[Any]) -> None:
        """Put what the plugins offer into a catalogue."""
        failed = [p for p in self.plugins if p.problem]
        absent = f"{KINDS[kind].word} {{!r}} is not there because its plugin cannot be loaded: {{}}: {{}}."
        refused = {
            p.name: absent.format(p.name, p.origin, p.problem) for p in failed if p.name not in self.offers[kind]
        }
        notes = [f"Plugin skipped: {p.origin}: {p.problem}." for p in failed]
        things = {name: offer.value for name, offer in self.offers[kind].items()}
        catalogue.join(things, refused | dict(self.conflicts[kind]), notes)

    def domain(self, name: str, data: Mapping[str, Any]) -> Domain:
        """The domain of that name, made from the keys of the config node ``data``."""
        factory = self.catalogue("domains").find(name)
        try:
            domain: Domain = build(factory, data, "data")
        except Exception as error:  # any exception is raised again with the plugin's name
            error.add_note(f"(while domain {name!r} was made, by plugin {self._origin('domains', name)})")
            raise
        return domain

    def metrics(self, domain: Domain) -> list[Metric]:
        """The domain's metrics, then those of plugins for this domain.

        Raises:
            InputError: a plugin's metric has the name of one of the domain's own.
        """
        found = list(domain.metrics())
        for name, offer in self.offers["metrics"].items():
            if name.partition("/")[0] == domain.name:
                metric: Metric = offer.value(domain)
                if metric.name in {own.name for own in found}:
                    raise InputError(
                        f"metric {metric.name!r} of plugin {self._origin('metrics', name)} has a name that domain "
                        f"{domain.name!r} uses itself. Uninstall the plugin."
                    )
                found.append(metric)
        return found

    def notify(self, event: str, **arguments: Any) -> None:
        """Call ``didi_on_<event>`` of every plugin that listens.

        One that raises is reported on stderr with its distribution, and is not called again: a tracker without network
        must not end a training.
        """
        name = f"didi_on_{event}"
        for impl in reversed(getattr(self.manager.hook, name).get_hookimpls()):
            if impl.plugin_name in self.silenced:
                continue
            try:
                trace(name, impl.plugin_name, arguments)
                impl.function(**{key: arguments[key] for key in impl.argnames})
            except FAILURES as error:
                self.silenced.add(impl.plugin_name)
                origin = {p.name: p.origin for p in self.plugins}[impl.plugin_name]
                warn(f"plugin {origin} failed in {name} and is not called again: {type(error).__name__}: {error}")

    def _origin(self, kind: str, name: str) -> str:
        return {p.name: p.origin for p in self.plugins}[self.offers[kind][name].plugin]


@cache
def registry() -> Registry:
    """The plugins of this installation, loaded once. Their offers join the catalogues."""
    with PLUGINS.loading():
        found = collect(importlib.metadata.entry_points(group=GROUP))
    for kind in KINDS.values():
        if kind.catalogue is not None:
            found.fill(kind.name, kind.catalogue)
    return found


def collect(entry_points: Iterable[importlib.metadata.EntryPoint]) -> Registry:
    """Load the given entry points after the built-in plugin, and collect their offers."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(builtin, CORE)
    plugins = [Plugin(CORE, OWN, _version(OWN))]
    # The built-in plugin comes first, so that others lose a name that is taken.
    order = sorted(entry_points, key=lambda point: (_distribution(point)[0] != OWN, point.name, _distribution(point)))
    for point in order:
        if not _seen(plugins, manager, point):
            plugins.append(_load(manager, point))
    folders: list[Path] = []
    claims: dict[str, dict[str, list[Offer]]] = {kind: {} for kind in KINDS}
    for i, plugin in enumerate(plugins):
        if not plugin.problem:
            plugins[i] = _gather(manager, plugin, claims, folders)
    offers: dict[str, dict[str, Offer]] = {kind: {} for kind in KINDS}
    conflicts: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for kind, names in claims.items():
        for name, claimed in names.items():
            offers[kind] |= settle(KINDS[kind], name, claimed, plugins, conflicts[kind])
    frozen = MappingProxyType({kind: MappingProxyType(found) for kind, found in offers.items()})
    return Registry(manager, tuple(plugins), frozen, MappingProxyType(conflicts), tuple(dict.fromkeys(folders)))


def _distribution(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of an entry point's distribution."""
    return (point.dist.name, point.dist.version) if point.dist else ("an unknown distribution", "")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _seen(plugins: Sequence[Plugin], manager: pluggy.PluginManager, point: importlib.metadata.EntryPoint) -> bool:
    """Whether the same distribution was found before, as happens with an editable install beside a wheel."""
    distribution = _distribution(point)[0]
    return manager.has_plugin(point.name) and (point.name, distribution) in {(p.name, p.distribution) for p in plugins}


def _load(manager: pluggy.PluginManager, point: importlib.metadata.EntryPoint) -> Plugin:
    """Import and register one plugin. An exception becomes its ``problem``, and does not end the run."""
    distribution, version = _distribution(point)
    name = f"{point.name}@{distribution}" if manager.has_plugin(point.name) else point.name
    found = Plugin(name, distribution, version)
    module = None
    try:
        module = point.load()
        check_hooks(module)
        manager.register(module, name)
    except FAILURES as error:  # the plugin is reported by name, and loading continues
        return _failed(manager, found, error, module)
    return found


def _failed(manager: pluggy.PluginManager, plugin: Plugin, error: BaseException, module: object) -> Plugin:
    """The plugin with its problem in one line, unregistered. module: None where it could not be imported."""
    if tracing():
        traceback.print_exception(error)
    if manager.has_plugin(plugin.name):
        manager.unregister(name=plugin.name)
    ours = isinstance(error, InputError)
    problem = str(error).rstrip(".") + undeclared(module) if ours else f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "didi_core":
        problem = import_fault(error)
    return replace(plugin, problem=" ".join(problem.split()).rstrip("."))


def _gather(
    manager: pluggy.PluginManager, plugin: Plugin, claims: dict[str, dict[str, list[Offer]]], folders: list[Path]
) -> Plugin:
    """Collect all offers of one plugin; none are kept if any of its results is unusable."""
    answers: dict[str, Any] = {}
    found: dict[str, Mapping[str, Any]] = {}
    try:
        for kind in KINDS.values():
            answer = answers[kind.name] = _ask(manager, plugin.name, kind)
            if answer is not None:
                trusted = plugin.name == CORE  # its files have tests, and reading all of them takes a while
                found[kind.name] = kind.read(kind.hook, answer) if trusted else kind.offers(answer)
    except FAILURES as error:
        return _failed(manager, plugin, error, manager.get_plugin(plugin.name))
    folders += map(Path, answers["configs"] or ())
    for name, things in found.items():
        for own, value in things.items():
            claims[name].setdefault(own, []).append(Offer(value, plugin.name))
    return plugin


def _ask(manager: pluggy.PluginManager, plugin: str, kind: Kind) -> Any:
    """What a plugin returns from the hook of a kind; None if it does not implement it."""
    for impl in getattr(manager.hook, kind.hook).get_hookimpls():
        if impl.plugin_name == plugin:
            trace(kind.hook, plugin, {})
            return impl.function()
    return None
