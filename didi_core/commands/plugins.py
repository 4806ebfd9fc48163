"""``plugins``: list installed plugins, what they offer, and which could not be loaded; ``--json`` for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from didi_core.errors import InputError
from didi_core.plugins import registry
from didi_core.plugins.discovery import CORE, Registry
from didi_core.plugins.offers import Plugin


def run(words: Sequence[str] = ()) -> None:
    """Print the table of plugins, or with ``--json`` a list of records."""
    if [*words] not in ([], ["--json"]):
        raise InputError(f"plugins takes no argument but --json, got {' '.join(words)}.")
    if words:
        print(json.dumps([plugin_record(registry(), plugin) for plugin in registry().plugins], indent=2))
    else:
        Console(markup=False).print(plugin_table(registry()))


def plugin_record(found: Registry, plugin: Plugin) -> dict[str, Any]:
    """One plugin as plain values."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "offers": found.offered_by(plugin.name),
        "hooks": found.hooks(plugin.name),
        "health": plugin.health,
    }


def plugin_table(found: Registry) -> Table:
    """One row per plugin: its distribution, its offers, the events it listens to, and whether it works."""
    table = Table("plugin", "version", "distribution", "offers", "health", title="plugins", title_justify="left")
    for plugin in found.plugins:
        mine = found.offered_by(plugin.name)
        if plugin.name == CORE:
            mine.pop("configs", None)  # dozens, which --help lists by group
        offered = [f"{kind}: {', '.join(names)}" for kind, names in mine.items()]
        listens = [hook.removeprefix("didi_on_") for hook in found.hooks(plugin.name) if hook.startswith("didi_on_")]
        offered += [f"listens to: {', '.join(listens)}"] if listens else []
        table.add_row(plugin.name, plugin.version, plugin.distribution, "\n".join(offered), plugin.health)
    return table
