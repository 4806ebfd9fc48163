"""Checks of a plugin before it is used: its interface, its hooks and their arguments."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from didi_core import hookspecs
from didi_core.errors import InputError, unknown, warn
from didi_core.plugins.kinds import short

TRACE = "DIDI_TRACE_PLUGINS"
PREFIXES = ("didi_register_", "didi_on_")
HOOKS: dict[str, Callable[..., Any]] = {
    name: function for name, function in vars(hookspecs).items() if name.startswith(PREFIXES)
}


def check_hooks(module: object) -> None:
    """Refuse a plugin of another interface, or one whose hooks are misspelt, unmarked or have unknown arguments.

    Raises:
        InputError: with the fault and its correction.
    """
    check_interface(getattr(module, "DIDI_INTERFACE", hookspecs.INTERFACE))
    for name, function in inspect.getmembers(module, callable):
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if marked is None and not (name.startswith(PREFIXES) and inspect.isroutine(function)):
            continue
        if name not in HOOKS:
            raise unknown("hook", name, HOOKS)
        if marked is None:
            raise InputError(f"{name} is not marked: put @hookimpl of didi_core.hookspecs above it")
        if marked.get("hookwrapper") or marked.get("wrapper"):
            raise InputError(f"{name} is a wrapper; hooks of didi_core are called one by one and are not wrapped")
        _check_arguments(name, function)


def check_interface(declared: Any) -> None:
    """Raise InputError for a plugin of another interface, with what its author must change."""
    ours = hookspecs.INTERFACE
    if declared == ours:
        return
    if not isinstance(declared, int) or declared > ours:
        raise InputError(
            f"it is written for plugin interface {declared!r}, and this didi_core has {ours}: upgrade didi-core"
        )
    raise InputError(
        f"it is written for plugin interface {declared}, and this didi_core has {ours}: install a newer version of the "
        f"plugin. Its author: {changes(declared)}; then set DIDI_INTERFACE = {ours} (CHANGELOG.md has the details)"
    )


def changes(since: int) -> str:
    """What has changed for plugins since an interface."""
    return "; ".join(change for version, change in hookspecs.CHANGES.items() if version > since)


def undeclared(module: object) -> str:
    """What to add to a fault of a plugin that names no interface: it may be one of an older interface."""
    if module is None or hasattr(module, "DIDI_INTERFACE"):
        return ""
    return (
        f". It names no DIDI_INTERFACE; a plugin of an interface before {hookspecs.INTERFACE} changes: "
        f"{changes(hookspecs.INTERFACE - 1)} (CHANGELOG.md has the details)"
    )


def import_fault(error: ImportError) -> str:
    """The message for a plugin that imports something which this didi_core does not have.

    Such a plugin fails at its imports, before its interface is checked.
    """
    return (
        f"{error}. This didi_core has plugin interface {hookspecs.INTERFACE}; a plugin of an older one changes: "
        f"{changes(hookspecs.INTERFACE - 1)} (CHANGELOG.md has the details)"
    )


def _check_arguments(name: str, function: Callable[..., Any]) -> None:
    given = list(inspect.signature(HOOKS[name]).parameters)
    asked = inspect.signature(function).parameters.values()
    foreign = [p.name for p in asked if p.name not in given and p.default is p.empty]
    if foreign:
        raise InputError(
            f"{name} asks for {', '.join(foreign)}, which it is not given: its arguments are "
            f"{', '.join(given) or 'none'}"
        )


def tracing() -> bool:
    """Whether hook calls are shown."""
    return os.environ.get(TRACE, "") not in ("", "0")


def trace(hook: str, plugin: str, arguments: Mapping[str, Any]) -> None:
    """Show one hook call on stderr, if ``DIDI_TRACE_PLUGINS=1``."""
    if tracing():
        shown = ", ".join(f"{key}={short(value)}" for key, value in arguments.items())
        warn(f"plugin {plugin}: {hook}({shown})")
