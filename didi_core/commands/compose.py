"""From settings, as words or as a mapping, to one plain configuration; every way of getting it wrong is one message.

Hydra composes the files that the chosen groups name. Values are put in here, as they are: text never passes through a
second grammar, and only here is it known which names a user may have meant.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

from didi_core.commands import find
from didi_core.commands.grammar import MISSING, Unreadable, annotation_of, choices, quoted, read, takes_text, written
from didi_core.commands.spellings import respelled
from didi_core.commands.unfiled import store_unfiled, unfiled
from didi_core.config import config_folder, flatten, unknown_key
from didi_core.errors import InputError, unknown
from didi_core.plugins import registry

VERSION_BASE = "1.3"
WISHES = ("conditioning", "scoring", "filtering")  # nodes of commands for the keys of domains
OPEN = ("num_at", "each_reward")  # nodes whose keys are free
NEEDED = ("domain", "objective", "model")  # groups of which one file is always chosen
PROSE = ("prompt", "suffix", "template")  # keys whose value is a text, even "null"
GENERATORS = ("range", "choice", "glob", "interval", "shuffle", "sort")  # Hydra's words for values of a sweep


class PluginFolders(SearchPathPlugin):
    """Adds the config folders of plugins to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in registry().config_folders:
            if folder != config_folder():
                search_path.append(provider="didi", path=f"file://{folder}")


def use_plugin_folders() -> None:
    """Show Hydra the plugins' configurations; before anything is composed."""
    if PluginFolders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(PluginFolders)
    store_unfiled()


def group_options(group: str) -> list[str]:
    """Choices of a config group, from all config folders and plugins; empty when there is no such group."""
    found = {p.stem for folder in registry().config_folders for p in (folder / group).glob("*.yaml")}
    return sorted({*found, *unfiled(group)})


@dataclass(frozen=True)
class Setting:
    """One thing that a user asks for.

    key: dotted; a group or a value. value: text as typed (``typed``), or an object of Python. add: ``+key``, which need
    not be there. delete: ``~key``, which is taken out.
    """

    key: str
    value: Any = None
    typed: bool = False
    add: bool = False
    delete: bool = False

    @property
    def word(self) -> str:
        """The setting as a command line has it."""
        if self.delete:
            return f"~{self.key}"
        return f"{'+' * self.add}{self.key}={self.value if self.typed else written(self.value)}"


@dataclass(frozen=True)
class Job:
    """One run of a command: its settings as words and the plain configuration that they compose to."""

    words: tuple[str, ...]
    config: dict[str, Any]


def compose_jobs(command: str, words: Sequence[str], sweep: bool = False) -> list[Job]:
    """The configurations of a command line: one, or with ``sweep`` one for each combination of comma-separated values.

    Raises:
        InputError: a word that cannot be read, or names a key or choice that is not there.
    """
    settings = [parse(word) for word in words]
    if not sweep:
        return [Job(tuple(words), compose_settings(command, settings))]
    given = {setting.key for setting in settings}
    groups, _ = _apart([s for s in settings if len(_values(s)) == 1])
    params = _compose(command, groups, whole=True).hydra.sweeper.params or {}
    settings += [parse(f"{key}={value}") for key, value in params.items() if key not in given]
    combinations = itertools.product(*([replace(s, value=v) for v in _values(s)] for s in settings))
    return [Job(tuple(s.word for s in each), compose_settings(command, each)) for each in combinations]


def compose_mapping(command: str, given: Mapping[str, Any]) -> Job:
    """The configuration of settings that are Python's: nested, or with dotted keys.

    A text that stands for a group (``domain="toy"``) chooses one of its files; a mapping changes values of it.
    """
    settings = []
    for key, value in given.items():
        bare = key.lstrip("+")
        settings.append(Setting(bare, plain(value), add=key != bare))
    return Job(tuple(setting.word for setting in settings), compose_settings(command, settings))


def plain(value: Any) -> Any:
    """A value of Python as configurations have it: paths as text, tuples as lists, numpy's numbers as Python's.

    What is no configuration (a function, a network) stays what it is.
    """
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


def parse(word: str) -> Setting:
    """``key=value``, ``+key=value`` or ``~key``."""
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in word):
        shown = word.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        raise InputError(f"{shown!r} holds bytes that are no UTF-8 text. Give the name in UTF-8.")
    if word.startswith("~"):
        if "=" in word:
            raise InputError(f"{word!r}: ~key takes a key out, and has no value. Write {word.partition('=')[0]}.")
        return Setting(word[1:], delete=True)
    key, equals, value = word.partition("=")
    if not equals or not key.lstrip("+"):
        raise InputError(f"{word!r} is no setting: write key=value.")
    return Setting(key.lstrip("+").strip(), value, True, key.startswith("+"))


def compose_settings(command: str, settings: Sequence[Setting]) -> dict[str, Any]:
    """One configuration as plain containers.

    Raises:
        InputError: what does not fit, with what would.
    """
    groups, values = _apart(map(_respelled, settings))
    base: Any = OmegaConf.to_container(_compose(command, groups))
    config: dict[str, Any] = copy.deepcopy(base)
    merging = _Merging(command, config)
    for setting in values:
        merging.apply(setting)
    config = _followed(config, base)
    for key, value in flatten(config).items():
        if isinstance(value, str) and value == "???":
            raise InputError(f"{key} is missing: give {key}=<value>.")
    return config


def _respelled(setting: Setting) -> Setting:
    """The setting that a short spelling stands for."""
    key, value = respelled(setting.key, setting.value)
    return replace(setting, key=key, value=value, typed=setting.typed and isinstance(value, str))


def _apart(settings: Iterable[Setting]) -> tuple[list[Setting], list[Setting]]:
    """Choices of groups, checked, and values."""
    groups, values = [], []
    for setting in settings:
        if setting.key.split(".")[0].split("/")[0] == "hydra":
            raise InputError(
                f"{setting.word}: settings of Hydra's own have no effect here. run_dir=<folder> (or out=) says where "
                "results go, and --multirun runs one job after the other."
            )
        if setting.delete and group_options(setting.key):
            raise InputError(f"~{setting.key}: a group is not taken out. Write {setting.key}=null, or choose another.")
        if _is_choice(setting):
            groups.append(replace(setting, value=_choice(setting)))
        else:
            values.append(setting)
    return groups, values


def _is_choice(setting: Setting) -> bool:
    """Whether a setting chooses files of a group; a mapping sets values of it instead."""
    if setting.delete or not group_options(setting.key.partition("@")[0]):
        return False
    if setting.typed:
        return not str(setting.value).startswith("{")
    chosen = setting.value if isinstance(setting.value, list) else [setting.value]
    return all(name is None or isinstance(name, str) for name in chosen)


def _choice(setting: Setting) -> Any:
    """The names that a setting chooses, checked."""
    group = setting.key.partition("@")[0]
    value = _read(setting, tuple[str, ...] | str | None) if setting.typed else setting.value
    for name in value if isinstance(value, list) else [value]:
        if name is None and (group in NEEDED or isinstance(value, list)):
            raise InputError(f"{setting.word}: {group} is a name. Known: {', '.join(group_options(group))}.")
        if name is not None and not isinstance(name, str):
            raise InputError(f"{setting.word}: a choice of {group} is a name, not {written(name)}.")
        if name is not None:
            _check_choice(group, name, setting)
    return value


def _check_choice(group: str, name: str, setting: Setting) -> None:
    """A group's choice must be one of its files."""
    if not isinstance(name, str):
        raise InputError(f"{group}={name!r} does not fit: it is one name.")
    claimed = registry().conflicts["configs"].get(f"{group}/{name}")
    if claimed:
        raise InputError(claimed)
    options = group_options(group)
    if name in options:
        return
    if setting.typed and len(choices(name)) > 1:
        raise _several(setting)
    if Path(name).suffix in (".yaml", ".yml"):
        raise InputError(f"{group}={name}: write {group}={Path(name).stem}.")
    if group == "domain":
        registry().catalogue("domains").find(name)
    raise InputError(" ".join([str(unknown(group, name, options)), *registry().catalogue("configs").notes]))


def _several(setting: Setting) -> InputError:
    return InputError(
        f"{setting.word} gives several values: add --multirun to run each of them, or write a list as key=[a,b]."
    )


def _compose(command: str, groups: Sequence[Setting], whole: bool = False) -> DictConfig:
    """What the files of the chosen groups say; ``whole``: Hydra's own settings too."""
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
            return compose(command, words, return_hydra_config=whole)
    except (HydraException, OmegaConfBaseException) as error:
        told = " ".join(str(error).split())
        lost = next((s for s in groups if f"override '{s.key}'" in told), None)
        if lost is not None:
            raise InputError(f"{lost.key} is no key of {command}, which takes it from its input.") from None
        raise InputError(f"the configuration cannot be composed: {told}") from None


def _followed(config: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the references (``${key}``) followed that its files hold; a user's text holds none."""
    now = flatten(config)
    references = [k for k, v in flatten(base).items() if isinstance(v, str) and "${" in v and now.get(k) is v]
    if not references:
        return config
    tree = OmegaConf.create(config, flags={"allow_objects": True})
    try:
        for key in references:
            value = OmegaConf.select(tree, key)
            put(config, key, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration cannot be composed: {' '.join(str(error).split())}") from None
    return config


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, its groups made where they are not there."""
    *groups, last = key.split(".")
    for name in groups:
        if not isinstance(config.get(name), dict):
            config[name] = {}
        config = config[name]
    config[last] = value


class _Merging:
    """Puts values into a configuration, each under a key that is known."""

    def __init__(self, command: str, config: dict[str, Any]) -> None:
        self.command, self.config, self.known = command, config, flatten(config)
        self.kind = find(command).settings
        self.node = wish_node(config)
        self.wishes = wish_values(self.node) if self.node else {}

    def apply(self, setting: Setting) -> None:
        """Put one setting in. Raises InputError."""
        key, default = setting.key, self.known.get(setting.key, MISSING)
        if key.split(".")[0] in self.wishes:
            default = flatten(self.wishes).get(key, MISSING)
            key = f"{self.node}.{key}"
        if setting.delete:
            self._take_out(key)
            return
        self._check(key, setting.add)
        value = _read(setting, annotation_of(self.kind, key), default) if setting.typed else setting.value
        self._put(key, value, setting.add)

    def _put(self, key: str, value: Any, add: bool) -> None:
        """A mapping is merged into the group of that name, key by key; any other value takes the place of the old."""
        now = self.known.get(key)
        if not isinstance(value, Mapping) or not isinstance(now, Mapping):
            put(self.config, key, value)
            return
        for name, inner in value.items():
            if self._is_open(key):
                _leaf(self.config, key)[name] = inner
                continue
            self._check(f"{key}.{name}", add)
            self._put(f"{key}.{name}", inner, add)

    def _check(self, key: str, add: bool) -> None:
        """Every key must be there; ``+key`` adds one to a group and is checked by whoever reads that group."""
        group = key.rpartition(".")[0]
        if key in self.known or any(self._is_open(above) for above in _above(key)):
            return
        if add and isinstance(self.known.get(group), Mapping):
            return
        raise unknown_key(key, [*self.known, *self.wishes])

    def _is_open(self, key: str) -> bool:
        """Whether a group takes any key: one of a domain or of a plugin, who check it."""
        now = self.known.get(key)
        return key == self.node or key.rpartition(".")[2] in OPEN or (isinstance(now, Mapping) and not now)

    def _take_out(self, key: str) -> None:
        if key not in self.known:
            raise unknown_key(key, self.known)
        group, _, last = key.rpartition(".")
        _leaf(self.config, group).pop(last, None)


def _leaf(config: dict[str, Any], group: str) -> dict[Any, Any]:
    """The group of a dotted key."""
    for name in group.split(".") if group else ():
        config = config[name]
    return config


def _above(key: str) -> list[str]:
    """All groups that a dotted key lies in."""
    words = key.split(".")
    return [".".join(words[:i]) for i in range(1, len(words))]


def _read(setting: Setting, annotation: Any, default: Any = MISSING) -> Any:
    """The value of a word as its key wants it."""
    text, prose = setting.value, setting.key in PROSE
    try:
        several = not prose and not takes_text(annotation, default) and len(choices(text)) > 1
        if several or (not takes_text(annotation, default) and _generator(text)):
            raise _several(setting)
        return read(text, annotation, default, prose)
    except Unreadable as error:
        raise InputError(
            f"{setting.word!r} cannot be read: {error}. Put values with commas or brackets in quotes: "
            f"""'{setting.key}="..."'."""
        ) from None


def _generator(text: str) -> bool:
    """Whether a value is one of Hydra's words for several: ``range(1,5)``."""
    name, bracket, _ = text.partition("(")
    return bool(bracket) and name.strip() in GENERATORS and text.rstrip().endswith(")")


def _values(setting: Setting) -> list[Any]:
    """The values that a sweep gives a setting; of a text only those that are all in quotes."""
    if not setting.typed:
        return [setting.value]
    if _generator(setting.value):
        return _generated(setting)
    try:
        found = choices(setting.value)
    except Unreadable:
        found = [setting.value]
    if setting.key in PROSE and any(quoted(one) is None for one in found):
        return [setting.value]
    return found


def _generated(setting: Setting) -> list[str]:
    """What one of Hydra's words for several values stands for."""
    try:
        override = OverridesParser.create().parse_override(f"{setting.key}={setting.value}")
        value = override.value()
        if isinstance(value, Glob):
            return list(value.filter(group_options(setting.key)))
        return list(override.sweep_string_iterator()) if override.is_sweep_override() else [setting.value]
    except HydraException as error:
        raise InputError(f"{setting.word!r} cannot be read: {str(error).splitlines()[0]}.") from None


def wish_node(known: Iterable[Any]) -> str | None:
    """The node among a command's keys that holds the keys of domains; None where there is none."""
    return next((node for node in WISHES if node in known), None)


def wish_values(node: str) -> dict[str, Any]:
    """Keys that the domains declare in ``<node>/<domain>.yaml``, over all config folders, with their values."""
    found: dict[str, Any] = {}
    for folder in registry().config_folders:
        for path in sorted((folder / node).glob("*.yaml")):
            found |= {str(key): value for key, value in OmegaConf.to_container(OmegaConf.load(path)).items()}  # type: ignore[union-attr]
    return found
