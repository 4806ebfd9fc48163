"""``plugins``: which plugins are installed, what they offer, and which could not be loaded."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from didi_core.plugins import Registry, registry


def run() -> None:
    """Print the table of plugins."""
    Console().print(plugin_table(registry()))


def plugin_table(found: Registry) -> Table:
    """One row a plugin: its distribution, its offers, or why it is not loaded."""
    table = Table("plugin", "distribution", "offers", title="plugins", title_justify="left")
    for plugin in found.plugins:
        offered = [
            f"{kind}: {', '.join(sorted(mine))}"
            for kind, offers in found.offers.items()
            if (mine := [name for name, offer in offers.items() if offer.plugin == plugin.name])
        ]
        state = f"not loaded: {plugin.problem}" if plugin.problem else "; ".join(offered) or "hooks only"
        table.add_row(plugin.name, plugin.distribution, state)
    return table
