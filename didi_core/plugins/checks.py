"""What is checked of a plugin before anything of it is used: its hooks, its interface, the shape of what it offers."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from didi_core import hookspecs
from didi_core.diffusion.laws import Law
from didi_core.errors import InputError, unknown
from didi_core.objectives.reward_kinds import RewardKind
from didi_core.plugins import builtin
from didi_core.sampling.base import Sampler

TRACE = "DIDI_TRACE_PLUGINS"
PROTOCOLS: dict[str, type] = {"laws": Law, "samplers": Sampler, "rewards": RewardKind}
PREFIXES = ("didi_register_", "didi_on_")
HOOKS: dict[str, Callable[..., Any]] = {
    name: function for name, function in vars(hookspecs).items() if name.startswith(PREFIXES)
}


def check_hooks(module: object) -> None:
    """Refuse a plugin of another interface, or one whose hooks are misspelt, unmarked or ask for what is not told.

    Raises:
        InputError: what is wrong, and what would be right.
    """
    wanted = getattr(module, "DIDI_INTERFACE", hookspecs.INTERFACE)
    if wanted != hookspecs.INTERFACE:
        older = isinstance(wanted, int) and wanted < hookspecs.INTERFACE
        raise InputError(
            f"it is written for plugin interface {wanted}, and this didi_core has {hookspecs.INTERFACE}: "
            f"{'install a newer version of the plugin' if older else 'upgrade didi-core'}"
        )
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
        _check_signature(name, function)


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    told = list(inspect.signature(HOOKS[name]).parameters)
    asked = inspect.signature(function).parameters.values()
    foreign = [p.name for p in asked if p.name not in told and p.default is p.empty]
    if foreign:
        raise InputError(
            f"{name} asks for {', '.join(foreign)}, which it is not told: its arguments are {', '.join(told) or 'none'}"
        )


def check_offers(kind: str, answer: Any) -> Any:
    """The answer to ``didi_register_<kind>``, refused when it cannot be what it should be.

    Metrics come out flat, ``<domain>/<metric>``.
    """
    hook = f"didi_register_{kind}"
    if kind == "config_folders":
        if isinstance(answer, str | Path) or not isinstance(answer, Sequence):
            raise InputError(f"{hook} returned {answer!r}: it returns a list of folders")
        missing = [str(folder) for folder in answer if not Path(folder).is_dir()]
        if missing:
            raise InputError(f"{hook} names a folder that is not there: {missing[0]} (is it in the wheel?)")
        for folder in map(Path, answer):
            if folder != builtin.config_folder():
                _check_yaml(hook, folder)
        return [Path(folder) for folder in answer]
    if not isinstance(answer, Mapping) or not all(isinstance(name, str) and name for name in answer):
        raise InputError(f"{hook} returned {_short(answer)}: it returns a mapping of names")
    if kind == "metrics":
        for domain, metrics in answer.items():
            if not isinstance(metrics, Mapping):
                raise InputError(f"{hook} returned {_short(metrics)} for domain {domain!r}: a mapping of metrics there")
        answer = {f"{domain}/{name}": made for domain, metrics in answer.items() for name, made in metrics.items()}
    for name, value in answer.items():
        lacking = _lacking(kind, value)
        if lacking:
            raise InputError(f"{hook} offers {name!r}, which {lacking}: {_short(value)}")
    return answer


def _check_yaml(hook: str, folder: Path) -> None:
    """Refuse a folder with a file that cannot be read: some are read by runs that do not choose them."""
    for path in sorted(folder.rglob("*.yaml")):
        try:
            yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{hook} offers {path.relative_to(folder)}, which is no YAML: {error}") from None


def _lacking(kind: str, value: Any) -> str:
    """Why a thing cannot be one of its kind; '' when nothing speaks against it."""
    if kind in ("domains", "metrics") and not callable(value):
        return "cannot be called"
    if kind == "laws" and isinstance(value, type):
        return "is a class: give an instance"
    if kind in ("samplers", "rewards") and not (isinstance(value, type) and hasattr(value, "__dataclass_fields__")):
        return "is no dataclass: give the class itself, made with @dataclass(frozen=True)"
    missing = [name for name in members(PROTOCOLS[kind]) if not hasattr(value, name)] if kind in PROTOCOLS else []
    return f"lacks {', '.join(missing)}" if missing else ""


def members(protocol: type) -> list[str]:
    """Names that a protocol asks for."""
    return [name for name in {**protocol.__annotations__, **vars(protocol)} if not name.startswith("_")]


def check_keys(factory: Callable[..., Any], data: Mapping[str, Any], domain: str) -> None:
    """Refuse a key of the config node ``data`` that a domain's factory does not take."""
    taken = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return  # it checks them itself
    for key in data:
        if key not in taken:
            raise unknown("setting", f"data.{key}", [f"data.{name}" for name in taken], f"domain {domain}")


def tracing() -> bool:
    """Whether hook calls are shown."""
    return os.environ.get(TRACE, "") not in ("", "0")


def trace(hook: str, plugin: str, said: Mapping[str, Any]) -> None:
    """Show one hook call on stderr, when ``DIDI_TRACE_PLUGINS=1``."""
    if tracing():
        told = ", ".join(f"{key}={_short(value)}" for key, value in said.items())
        print(f"didi_core: plugin {plugin}: {hook}({told})", file=sys.stderr, flush=True)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
