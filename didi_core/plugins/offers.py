"""Named offers of plugins, and the rule for a name that several claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from didi_core.plugins.kinds import Kind

OWN = "didi-core"  # names of this distribution cannot be taken by another


@dataclass(frozen=True)
class Offer:
    """A named thing and its plugin."""

    value: Any
    plugin: str


@dataclass(frozen=True)
class Plugin:
    """One plugin: its name, distribution and version.

    problem: why it is left out; '' if it works. refused: offers that are left out because of their names.
    """

    name: str
    distribution: str
    version: str = ""
    problem: str = ""
    refused: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        return f"{self.name.partition('@')[0]!r} of {self.distribution} {self.version}".rstrip()

    @property
    def health(self) -> str:
        """``ok``, or the problem."""
        return self.problem or "; ".join(self.refused) or "ok"


def settle(
    kind: Kind, name: str, claimed: Sequence[Offer], plugins: list[Plugin], conflicts: dict[str, str]
) -> Mapping[str, Offer]:
    """Decide who gets a name that several claim: the core keeps its own; of two plugins none gets it.

    A plugin that does not get the name has it in ``refused``. Asking for the name raises an error with the reason.
    """
    places = {plugin.name: i for i, plugin in enumerate(plugins)}
    first, *others = (plugins[places[offer.plugin]] for offer in claimed)
    if not others:
        return {name: claimed[0]}
    own = first.distribution == OWN
    if own:
        reason = f"{kind.word} {name!r} is the core's own and cannot be replaced: give it another name"
    else:
        origins = " and ".join(plugin.origin for plugin in (first, *others))
        reason = conflicts[name] = f"two plugins offer {kind.word} {name!r}: {origins}. Uninstall one of them."
    for plugin in others if own else (first, *others):
        i = places[plugin.name]
        plugins[i] = replace(plugins[i], refused=(*plugins[i].refused, reason))
    return {name: claimed[0]} if own else {}
