"""Hydra at the door: composes a command's configuration and turns every way of getting it wrong into one message.

Overrides are checked here before Hydra sees them, because only here is it known which names a user may have meant.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from didi_core.config import flatten, unknown_key
from didi_core.errors import InputError, unknown
from didi_core.plugins import registry
from didi_core.plugins.builtin import config_folder

VERSION_BASE = "1.3"
WISHES = ("conditioning", "scoring", "filtering")  # nodes of commands for the keys of domains
OPEN = ("num_at",)  # nodes whose keys are free
PROSE = ("prompt", "suffix", "template")  # keys whose value is a text: commas and colons in it are no syntax


class PluginFolders(SearchPathPlugin):
    """Adds the config folders of plugins to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in registry().config_folders:
            if folder != config_folder():
                search_path.append(provider="didi", path=f"file://{folder}")


def use_plugin_folders() -> None:
    """Tell Hydra of the plugins' config folders; before anything is composed."""
    if PluginFolders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(PluginFolders)


def group_options(group: str) -> list[str]:
    """Choices of a config group, over all config folders; empty when there is no such group."""
    found = {p.stem for folder in registry().config_folders for p in (folder / group).glob("*.yaml")}
    return sorted(found)


@dataclass(frozen=True)
class Job:
    """One run of a command: its overrides and the plain configuration that they compose to."""

    overrides: tuple[str, ...]
    config: dict[str, Any]


def compose_jobs(command: str, overrides: Sequence[str], sweep: bool = False) -> list[Job]:
    """The configurations of a command line: one, or with ``sweep`` one for each combination of comma-separated values.

    Raises:
        InputError: an override that does not parse, or names a key or choice that is not there.
    """
    use_plugin_folders()
    overrides = with_wishes(command, overrides)
    parsed = _parse(overrides)
    if not sweep:
        swept = [o for o in parsed if o.is_sweep_override()]
        if swept:
            raise InputError(
                f"{swept[0].input_line} gives several values: add --multirun to run each of them, "
                "or write a list as key=[a,b]."
            )
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(config_folder())):
        combinations = BasicSweeper.split_arguments(parsed, None)[0] if sweep else [list(overrides)]
        return [Job(tuple(each), _compose(command, each)) for each in combinations]


def quoted(text: str) -> str:
    """An override whose value is prose, in the quotes that Hydra wants; any other as it is.

    ``prompt=Who, me?`` would be a sweep over two values. A value of one word, or one that has quotes, is left alone.
    """
    key, _, value = text.partition("=")
    if key.lstrip("+") not in PROSE or value[:1] in ("'", '"') or not (set(value) & set(" \n[]")):
        return text
    # Hydra reads a backslash as an escape only before a quote, or in a run that ends at one; ${ would interpolate.
    escaped = re.sub(r"(\\*)'", lambda run: run[1] * 2 + "\\'", value).replace("${", "\\${")
    escaped += "\\" * (len(escaped) - len(escaped.rstrip("\\")))
    return f"{key}='{escaped}'"


def opened(text: str) -> str:
    """``num_at={4: 100}`` as Hydra wants it of a node whose keys are free: ``+num_at={4: 100}``, which adds to it."""
    key, _, value = text.partition("=")
    free = key.rpartition(".")[2] in OPEN and value.startswith("{") and key[0] not in "+~"
    return f"+{text}" if free else text


def with_wishes(command: str, overrides: Sequence[str]) -> list[str]:
    """The overrides with keys of domains moved to where they belong: ``contig=...`` to ``+conditioning.contig=...``.

    Only for a command with such a node, and only keys that some ``<node>/<domain>.yaml`` declares.
    """
    overrides = [opened(quoted(text)) for text in overrides]
    node = wish_node(OmegaConf.load(config_folder() / f"{command}.yaml"))
    if node is None:
        return list(overrides)
    known = wish_keys(node)
    made = []
    for text in overrides:
        key = text.partition("=")[0].lstrip("+")
        if key.split(".")[0] in known:
            text = f"+{node}.{text.lstrip('+')}"
        elif key.startswith(f"{node}."):
            text = f"+{text.lstrip('+')}"
        made.append(text)
    return made


def wish_node(known: Iterable[Any]) -> str | None:
    """The node among a command's keys that holds the keys of domains; None where there is none."""
    return next((node for node in WISHES if node in known), None)


def wish_keys(node: str = WISHES[0]) -> set[str]:
    """Keys that the domains declare in ``<node>/<domain>.yaml``, over all config folders."""
    return {str(key) for path in _wish_files(node) for key in OmegaConf.load(path)}


def _wish_files(node: str) -> list[Path]:
    return [path for folder in registry().config_folders for path in sorted((folder / node).glob("*.yaml"))]


def explained(command: str) -> str:
    """A command's keys as its files explain them, those of domains included: what ``--help`` begins with."""
    own = config_folder() / f"{command}.yaml"
    told = [_without_defaults(own.read_text(encoding="utf-8"))]
    node = wish_node(OmegaConf.load(own))
    for path in _wish_files(node) if node else []:
        told.append(f"# domain={path.stem}, written bare: key=value\n{path.read_text(encoding='utf-8').strip()}")
    told.append((config_folder() / "common.yaml").read_text(encoding="utf-8").strip())
    return "\n\n".join(told)


def _without_defaults(text: str) -> str:
    """A YAML file's text without its list ``defaults``, which is Hydra's business."""
    lines, kept, inside = text.strip().splitlines(), [], False
    for line in lines:
        inside = line == "defaults:" or (inside and line.startswith((" ", "\t")))
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise InputError(f"{text!r} is no setting: write key=value.")
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as error:
            typed = _typed(text)
            reason = str(error).splitlines()[0].replace(text, typed)
            raise InputError(
                f"{typed!r} cannot be read: {reason}. Put values with spaces, commas or brackets in quotes: "
                f"""'{typed.partition("=")[0]}="..."'."""
            ) from None
    return parsed


def _typed(text: str) -> str:
    """An override as its user wrote it: a domain's key without the node that it was moved to."""
    for node in WISHES:
        text = text.removeprefix(f"+{node}.")
    return text


def _compose(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """One configuration as plain containers."""
    parsed = _parse(overrides)
    groups = [o for o in parsed if _is_group(o)]
    for override in groups:
        _check_choice(override)
    try:
        base = OmegaConf.to_container(compose(command, [o.input_line or "" for o in groups]))
        _check_keys([o for o in parsed if not _is_group(o)], flatten(base))  # type: ignore[arg-type]
        composed = OmegaConf.to_container(compose(command, list(overrides)), resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"the configuration cannot be composed: {' '.join(str(error).split())}") from None
    if not isinstance(composed, dict):
        raise InputError(f"the configuration of {command} is no mapping.")
    for key, value in flatten(composed).items():  # type: ignore[arg-type]
        if value == "???":
            raise InputError(f"{key} is missing: give {key}=<value>.")
    return {str(key): value for key, value in composed.items()}


def _is_group(override: Override) -> bool:
    return bool(group_options(override.key_or_group)) and not override.is_delete()


def _check_choice(override: Override) -> None:
    """A group's choice must be one of its files."""
    group, options = override.key_or_group, group_options(override.key_or_group)
    value = override.value()
    chosen: Iterable[Any] = value if isinstance(value, list) else [value]
    for name in chosen:
        claimed = registry().conflicts["configs"].get(f"{group}/{name}")
        if claimed:
            raise InputError(claimed)
    for name in itertools.filterfalse(options.__contains__, map(str, chosen)):
        if Path(name).suffix in (".yaml", ".yml"):
            raise InputError(f"{group}={name}: write {group}={Path(name).stem}.")
        if group == "domain":
            registry().catalogue("domains").find(name)
            raise InputError(
                f"domain {name!r} has no configuration: its plugin must offer a folder with domain/{name}.yaml "
                "(didi_register_config_folders)."
            )
        raise InputError(" ".join([str(unknown(group, name, options)), *registry().catalogue("configs").notes]))


def _check_keys(overrides: Iterable[Override], known: Mapping[str, Any]) -> None:
    """Every key must be there; ``+key`` adds one to a group and is checked by whoever reads that group."""
    groups = {key for key, value in known.items() if isinstance(value, dict)}
    node = wish_node(known)
    for override in overrides:
        key = override.key_or_group
        if node is not None and key.startswith(f"{node}."):
            continue  # the domain checks it
        if key in known or key.split(".", 1)[0] == "hydra":
            continue
        group = key.rpartition(".")[0]
        if override.is_add() and group in groups:
            continue
        if group in groups and not known[group]:
            raise InputError(f"{key} is not among the keys that every {group.rpartition('.')[2]} has: write +{key}=...")
        raise unknown_key(key, [*known, *(wish_keys(node) if node is not None else ())])
