"""The text of ``COMMAND --help``: every key once, with the value that it would have and the comment of its file.

It only reads files. Neither torch nor plugins are imported, unless a word names a choice that only a plugin has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from didi_core.commands import find
from didi_core.commands.grammar import written
from didi_core.commands.groups import content_of, groups_of
from didi_core.commands.setting import WISHES
from didi_core.config import config_folder, flatten

COMMENT_AT = 44  # column
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?P<value>.*?)(?:\s#\s(?P<comment>.*))?$")


def explained(command: str, words: Sequence[str] = ()) -> str:
    """The help of a command, with the settings as changed by ``words``."""
    about = find(command)
    config, note = shown_config(command, words)
    comments = _comments(command, config)
    lines = [about.about, "", "settings, key=value"]
    flat = flatten(config)
    lines += [_line(key, value, _meaning(key, comments)) for key, value in flat.items() if _is_leaf(value)]
    chosen = groups_of(command)
    if chosen:
        lines += ["", "groups, key=choice; each choice is a file of settings"]
        lines += [f"  {group}={' | '.join(names)}" for group, names in chosen.items()]
        lines += [f"  {note}"] if note else []
    node = next((name for name in WISHES if name in config), None)
    for path in sorted((config_folder() / node).glob("*.yaml")) if node else ():
        lines += ["", f"settings of domain {path.stem}"]
        own = comments_of(path)
        lines += [_line(k, v, own.get(k, "")) for k, v in flatten(content_of(path)).items() if _is_leaf(v)]
    lines += ["", "Plugins may add choices and keys: didi plugins lists them."]
    return "\n".join(lines)


def shown_config(command: str, words: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """The configuration of these words, from the core's own files if they have all the choices, and a note on it."""
    groups = groups_of(command)
    named = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    light = all(value in groups[key] for key, value in named.items() if key in groups)
    if not light or set(named) - {*groups}:
        from didi_core.commands.compose import compose_jobs

        (job,) = compose_jobs(command, words)
        return job.config, job.note
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from didi_core.commands.objective_default import FOUND_BY, default_objective, taken_out

    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        made = compose(command, list(words), return_hydra_config=True)
        name = default_objective(made)
        if name is None:
            return taken_out(made), ""
        note = FOUND_BY.format(name=name, domain=made.domain)
        return taken_out(compose(command, [*words, f"objective={name}"])), note


def _comments(command: str, config: Mapping[str, Any]) -> dict[str, str]:
    """The comments on a command's keys in its files."""
    folder = config_folder()
    found = comments_of(folder / f"{command}.yaml") | comments_of(folder / "common.yaml")
    for group in groups_of(command):
        for path in _files(folder / group, config.get(group)):
            text = path.read_text(encoding="utf-8")
            at = "" if text.startswith("# @package _global_") else f"{group}."
            for key, comment in comments_of(path).items():
                found.setdefault(f"{at}{key}", comment)
    return found | _domain_comments(config.get("domain"))


def _files(folder: Path, chosen: Any) -> list[Path]:
    """The files of a group that may explain a key: of a choice that has a name, its file and those it starts from."""
    name = chosen.get("name") if isinstance(chosen, Mapping) else None
    if not (folder / f"{name}.yaml").is_file():
        return sorted(folder.glob("*.yaml"))
    first = folder / f"{name}.yaml"
    more = [entry for entry in content_of(first).get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return [first, *(folder / f"{entry}.yaml" for entry in more)]


def _domain_comments(name: str | None) -> dict[str, str]:
    """The comments of a domain's file, the core's or a plugin's, on its own keys."""
    own = config_folder() / "domain" / f"{name}.yaml"
    if name is None or own.is_file():
        return comments_of(own) if name else {}
    from didi_core.commands.folders import config_folders

    files = (folder / "domain" / f"{name}.yaml" for folder in config_folders())
    return next((comments_of(path) for path in files if path.is_file()), {})


def comments_of(path: Path) -> dict[str, str]:
    """The comment after each key of a YAML file, by dotted key."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        made = _LINE.fullmatch(line)
        if made is None:
            continue
        depth = len(made["indent"])
        while above and above[-1][0] >= depth:
            above.pop()
        above.append((depth, made["key"]))
        if made["comment"]:
            found[".".join(key for _, key in above)] = made["comment"]
    return found


def _meaning(key: str, comments: Mapping[str, str]) -> str:
    """The comment on a key; a number, as of ``num_at: {128: 200}``, has that of its mapping."""
    above, _, last = key.rpartition(".")
    return comments.get(above if last.isdecimal() else key, "")


def _line(key: str, value: Any, comment: str) -> str:
    setting = f"  {key}={written(value)}"
    return f"{setting:<{COMMENT_AT}}  # {comment}" if comment else setting


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, Mapping) or not value
