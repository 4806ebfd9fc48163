"""From settings, as words or as a mapping, to one plain configuration. Every mistake gives one clear message.

Hydra composes the files of the chosen groups. Values are merged here, unchanged: text never passes through a second
grammar, and only this module knows the names that a user may have meant.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from didi_core.commands.folders import added_folders, config_folders, config_name
from didi_core.commands.grammar import Unreadable, choices, quoted, written
from didi_core.commands.groups import serves
from didi_core.commands.merging import Merging, put
from didi_core.commands.objective_default import FOUND_BY, default_objective, taken_out
from didi_core.commands.setting import PROSE, Setting, is_generator, parse, plain, read_setting, several
from didi_core.commands.spellings import respelled
from didi_core.commands.unfiled import store_unfiled, unfiled
from didi_core.config import config_folder, flatten
from didi_core.errors import InputError, first_line, one_line, unknown
from didi_core.plugins import registry

VERSION_BASE = "1.3"
LONGEST_KEY = 200
NEEDED = ("domain", "objective", "model")  # groups of which one file is always chosen


class PluginFolders(SearchPathPlugin):
    """Adds the config folders of plugins, and the user's, to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in added_folders():
            search_path.append(provider="didi", path=f"file://{folder}")


def use_plugin_folders() -> None:
    """Make the plugins' configurations visible to Hydra. Call it before anything is composed."""
    if PluginFolders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(PluginFolders)
    store_unfiled()


def group_options(group: str) -> list[str]:
    """Choices of a config group, from all config folders and plugins; empty for an unknown group."""
    found = {p.stem for folder in config_folders() for p in (folder / group).glob("*.yaml")}
    return sorted({*found, *unfiled(group)})


@dataclass(frozen=True)
class Job:
    """One run of a command: its settings as words, and the plain configuration composed from them.

    words: of the user, and ``objective=<name>`` where that is the domain's default.
    note: a line that says so, or empty.
    """

    words: tuple[str, ...]
    config: dict[str, Any]
    note: str = ""


def compose_jobs(command: str, words: Sequence[str], sweep: bool = False) -> list[Job]:
    """The configurations of a command line: one, or with ``sweep`` one for each combination of comma-separated values.

    Raises:
        InputError: a word cannot be read, or names an unknown key or choice.
    """
    settings = [parse(word) for word in words]
    if not sweep:
        return [_job(command, words, settings)]
    given = {setting.key for setting in settings}
    groups, _ = _apart(command, [s for s in settings if len(sweep_values(s)) == 1])
    params = _compose(command, groups, whole=True).hydra.sweeper.params or {}
    settings += [parse(f"{key}={value}") for key, value in params.items() if key not in given]
    combinations = itertools.product(*([replace(s, value=v) for v in sweep_values(s)] for s in settings))
    return [_job(command, [s.word for s in each], each) for each in combinations]


def compose_mapping(command: str, given: Mapping[str, Any]) -> Job:
    """The configuration of settings given in Python: nested, or with dotted keys.

    A string for a group (``domain="toy"``) chooses one of its files; a mapping changes values in it.
    """
    settings = []
    for key, value in given.items():
        bare = key.lstrip("+")
        settings.append(Setting(bare, plain(value), add=key != bare))
    return _job(command, [setting.word for setting in settings], settings)


def _job(command: str, words: Iterable[str], settings: Sequence[Setting]) -> Job:
    """The job of these settings. words: as the user would type them."""
    groups, values = _apart(command, map(_respelled, settings))
    composed = _compose(command, groups, whole=True)
    name, note, added = default_objective(composed), "", []
    if name is not None:
        note = FOUND_BY.format(name=name, domain=composed.domain)
        added = [Setting("objective", name)]
        try:
            _check_choice(command, "objective", name, added[0])
        except InputError as error:
            raise InputError(f"{note}: {error}") from None
        composed = _compose(command, [*groups, *added])
    config = _merged(command, composed, values)
    return Job((*words, *(setting.word for setting in added)), config, note)


def _merged(command: str, composed: DictConfig, values: Iterable[Setting]) -> dict[str, Any]:
    """The plain configuration of files and values."""
    base = taken_out(composed)
    config: dict[str, Any] = copy.deepcopy(base)
    merging = Merging(command, config)
    for setting in values:
        merging.apply(setting)
    config = _followed(config, base)
    for key, value in flatten(config).items():
        if isinstance(value, str) and value == "???":
            raise InputError(f"{key} is missing: give {key}=<value>.")
    return config


def _respelled(setting: Setting) -> Setting:
    """The setting that a short form stands for."""
    key, value = respelled(setting.key, setting.value)
    return replace(setting, key=key, value=value, typed=setting.typed and isinstance(value, str))


def _apart(command: str, settings: Iterable[Setting]) -> tuple[list[Setting], list[Setting]]:
    """Split settings into checked choices of groups, and values."""
    groups, values = [], []
    for setting in settings:
        if len(setting.key) > LONGEST_KEY:
            raise InputError(f"{setting.key[:40]}...: no key has more than {LONGEST_KEY} characters. Write key=value.")
        if setting.key.split(".")[0].split("/")[0] == "hydra":
            raise InputError(
                f"{setting.word}: settings of Hydra's own have no effect here. run_dir=<folder> (or out=) says where "
                "results go. With --multirun there are hydra/launcher=, hydra/sweeper= and the keys below them."
            )
        if setting.delete and group_options(setting.key):
            raise InputError(f"~{setting.key}: a group cannot be removed. Write {setting.key}=null, or choose another.")
        if _is_choice(setting):
            groups.append(replace(setting, value=_choice(command, setting)))
        else:
            values.append(setting)
    return groups, values


def _is_choice(setting: Setting) -> bool:
    """Whether a setting chooses files of a group; a mapping sets values in it instead."""
    if setting.delete or not group_options(setting.key.partition("@")[0]):
        return False
    if setting.typed:
        return not str(setting.value).startswith("{")
    chosen = setting.value if isinstance(setting.value, list) else [setting.value]
    return all(name is None or isinstance(name, str) for name in chosen)


def _choice(command: str, setting: Setting) -> Any:
    """The checked names that a setting chooses."""
    group = setting.key.partition("@")[0]
    value = read_setting(setting, tuple[str, ...] | str | None) if setting.typed else setting.value
    for name in value if isinstance(value, list) else [value]:
        if name is None and (group in NEEDED or isinstance(value, list)):
            raise InputError(f"{setting.word}: {group} is a name. Known: {', '.join(_offered(command, group))}.")
        if name is not None and not isinstance(name, str):
            raise InputError(f"{setting.word}: a choice of {group} is a name, not {written(name)}.")
        if name is not None:
            _check_choice(command, group, name, setting)
    return value


def _check_choice(command: str, group: str, name: object, setting: Setting) -> None:
    """Raise InputError where a choice is not one of the group's files."""
    if not isinstance(name, str):
        raise InputError(f"{group}={name!r} does not fit: it is one name.")
    claimed = registry().conflicts["configs"].get(f"{group}/{name}")
    if claimed:
        raise InputError(claimed)
    if name in group_options(group):
        return
    if setting.typed and len(choices(name)) > 1:
        raise several(setting)
    if Path(name).suffix in (".yaml", ".yml"):
        raise InputError(f"{group}={name}: write {group}={Path(name).stem}.")
    if group == "domain":
        registry().catalogue("domains").find(name)
    offered = _offered(command, group)
    raise InputError(" ".join([str(unknown(group, name, offered)), *registry().catalogue("configs").notes]))


def _offered(command: str, group: str) -> list[str]:
    """The choices that a message names: those of plugins, and the core's own that are for the command."""
    own = {path.stem: path for path in (config_folder() / group).glob("*.yaml")}
    return [name for name in group_options(group) if name not in own or serves(own[name], command)]


def _compose(command: str, groups: Sequence[Setting], whole: bool = False) -> DictConfig:
    """The configuration of the chosen groups' files; ``whole`` includes Hydra's own settings."""
    use_plugin_folders()
    GlobalHydra.instance().clear()
    words = []
    for setting in groups:
        if setting.value is None:
            words.append(f"~{setting.key}")
            continue
        chosen = setting.value if isinstance(setting.value, list) else [setting.value]
        names = ",".join("null" if name is None else name for name in chosen)
        words.append(f"{'+' * setting.add}{setting.key}={f'[{names}]' if isinstance(setting.value, list) else names}")
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(config_folder())):
            return compose(config_name(command), words, return_hydra_config=whole)
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # of the user's own folder: plugins' files have been read
        raise InputError(f"a file of --config-dir is not YAML: {one_line(error, None)}. Mend it.") from None
    except (HydraException, OmegaConfBaseException) as error:
        problem = one_line(error, None)
        absent = next((s for s in groups if f"override '{s.key}'" in problem or f"delete '{s.key}'" in problem), None)
        if absent is None:
            raise InputError(f"the configuration cannot be composed: {problem}") from None
        rest = _compose(command, [s for s in groups if s is not absent], whole)
        if absent.value is None and absent.key in rest:  # no file of the group is chosen: there is none to take out
            return rest
        raise InputError(f"{absent.key} is not a key of {command}, which reads it from its input.") from None


def _followed(config: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the references (``${key}``) of its files resolved; a user's text has no references."""
    now = flatten(config)
    references = [k for k, v in flatten(base).items() if isinstance(v, str) and "${" in v and now.get(k) is v]
    if not references:
        return config
    ours = {id(now[key]) for key in references}
    tree = OmegaConf.create(_quoted(config, ours), flags={"allow_objects": True})
    try:
        for key in references:
            value = OmegaConf.select(tree, key)
            put(config, key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration cannot be composed: {one_line(error, None)}") from None
    return config


def _quoted(value: Any, references: set[int]) -> Any:
    """A configuration in which ``${`` is a reference only in the texts with these identities."""
    if isinstance(value, Mapping):
        return {key: _quoted(inner, references) for key, inner in value.items()}
    if isinstance(value, list):
        return [_quoted(inner, references) for inner in value]
    if isinstance(value, str) and id(value) not in references:
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value


def sweep_values(setting: Setting) -> list[Any]:
    """The values of a setting in a sweep; a text is split only where all values are in quotes."""
    if not setting.typed:
        return [setting.value]
    if is_generator(setting.value):
        return _generated(setting)
    try:
        found = choices(setting.value)
    except Unreadable:
        found = [setting.value]
    if setting.key in PROSE and any(quoted(one) is None for one in found):
        return [setting.value]
    return found


def _generated(setting: Setting) -> list[str]:
    """The values of a Hydra expression such as ``range(1,5)``."""
    try:
        override = OverridesParser.create().parse_override(f"{setting.key}={setting.value}")
        value = override.value()
        if isinstance(value, Glob):
            return list(value.filter(group_options(setting.key)))
        return list(override.sweep_string_iterator()) if override.is_sweep_override() else [setting.value]
    except HydraException as error:
        raise InputError(f"{setting.word!r} cannot be read: {first_line(error)}.") from None
