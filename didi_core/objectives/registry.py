"""Objectives by name: the values of ``objective.kind``, to which plugins add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from didi_core.catalogue import Catalogue
from didi_core.config import build
from didi_core.errors import InputError
from didi_core.objectives.alpha import Alpha
from didi_core.objectives.autoregressive import Autoregressive
from didi_core.objectives.base import ObjectiveSettings
from didi_core.objectives.control import CrossEntropy
from didi_core.objectives.coupled import Coupled
from didi_core.objectives.didi import Didi
from didi_core.objectives.dmmd import Dmmd
from didi_core.objectives.idlm import Idlm
from didi_core.objectives.mmd import Mmd
from didi_core.objectives.nelbo import Nelbo
from didi_core.objectives.sdtt import Sdtt

BUILT_IN: dict[str, type[ObjectiveSettings]] = {
    "alpha": Alpha,
    "autoregressive": Autoregressive,
    "coupled": Coupled,
    "cross_entropy": CrossEntropy,
    "didi": Didi,
    "dmmd": Dmmd,
    "idlm": Idlm,
    "mmd": Mmd,
    "nelbo": Nelbo,
    "sdtt": Sdtt,
}
OBJECTIVES: Catalogue[type[ObjectiveSettings]] = Catalogue("objective", BUILT_IN)


def read_objective(given: Mapping[str, Any] | str, command: str) -> ObjectiveSettings:
    """The objective of a configuration: ``kind`` is its registered name, the other keys are its own.

    Raises:
        InputError: the objective is unknown or not for that command, or it does not have such a key.
    """
    keys = {"kind": given} if isinstance(given, str) else dict(given)
    kind = keys.get("kind")
    offered = sorted(name for name, known in OBJECTIVES.items() if command in known.commands)
    if not isinstance(kind, str):
        raise InputError(f"objective.kind={kind!r} names no objective. Known: {', '.join(offered)}.")
    settings = OBJECTIVES.find(kind, "objective.kind", offered)
    if command not in settings.commands:
        raise InputError(
            f"objective={kind} is not for {command} but for {', '.join(settings.commands)}. "
            f"{command} has: {', '.join(offered)}."
        )
    made = build(settings, keys, "objective")
    return made if made.name else replace(made, name=kind)
