"""What is checked of a command line without running it: the grammar, the configuration and its dataclasses, or the
parser of a script."""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from command_lines import ROOT, Line

from didi_core.cli import SWEEP, _split, check_parallel
from didi_core.commands import COMMANDS, compose, find, new_plugin
from didi_core.commands.completion import script
from didi_core.commands.sweeping import for_engines
from didi_core.config import build
from didi_core.errors import InputError, unknown

PLACEHOLDERS = ("1", "toy", "protein")  # what <...> stands for, in turn: a number or path, a name
ELSEWHERE = {  # programs that are not this project's
    "cd", "pytest", "ruff", "mypy", "mkdocs", "pymol", "chimerax", "srun", "test", "scontrol", "export",
}  # fmt: skip
ALONE = ("--help", "-h", "--version", "-V")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def fault(line: Line) -> str | None:
    """What is wrong with a command line, or None."""
    found = None
    for placeholder in PLACEHOLDERS:
        try:
            for words in line.commands(placeholder):
                check(words, line.inline)
            return None
        except (InputError, ValueError) as error:
            found = found or str(error)
    return found


def check(words: Sequence[str], inline: bool = False) -> None:
    """Raise InputError for a command that could not be started as it stands."""
    words = [word for word in words if word not in ("...", "…")]
    while re.match(r"[A-Z_]+=", words[0]):  # a setting of the environment
        words = words[1:]
    words = words[: words.index(">")] if ">" in words else words
    program, rest = words[0], words[1:]
    if program == "didi":
        check_didi(rest, inline)
    elif program == "torchrun":
        check_torchrun(rest, inline)
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        check_module(rest[1], rest[2:], inline)
    elif program in ("python", "python3"):
        check_script(rest[0], rest[1:])
    elif program == "pip":
        check_pip(rest)
    elif program not in ELSEWHERE:
        raise unknown("program", program, ("didi", "torchrun", "python", "pip", *ELSEWHERE))


def check_didi(words: Sequence[str], inline: bool) -> None:
    """The words after ``didi``: the command, its keys and values, and the dataclasses that read them."""
    if words[0] in ALONE:
        return
    if words[0] == "--completion":
        script(words[1:])
        return
    command, rest = find(words[0]), list(words[1:])
    if command.name == "new-plugin":
        new_plugin.parse(["name" if word == "NAME" else word for word in rest])
        return
    if not command.configured:
        if rest not in ([], ["--json"]):
            raise InputError(f"{command.name} takes no argument but --json, got {rest}.")
        return
    flags, settings, _ = _split(rest)
    settings = [word for word in settings if not for_engines(word) and not searched(word)]
    if inline and not settings:  # the command is only named
        return
    for config in configurations(command.name, command.spelled(settings), any(flag in SWEEP for flag in flags)):
        build(command.settings, config)
        if isinstance(config.get("domain"), str) and "data" in config:
            known = data_keys(config["domain"])
            for key in set(config["data"]) - set(known):
                raise unknown("key", f"data.{key}", [f"data.{name}" for name in known])


def searched(word: str) -> bool:
    """Whether a sweeper chooses the value from a range, which composes to nothing before it does."""
    return word.partition("=")[2].startswith(("interval(", "tag("))


def configurations(command: str, words: Sequence[str], sweep: bool) -> list[dict[str, Any]]:
    """What is composed from a command line; of a sweep, as many of its jobs as have each value at least once."""
    with mock.patch.object(compose, "itertools", SimpleNamespace(product=each_once)):
        return [job.config for job in compose.compose_jobs(command, words, sweep)]


def each_once(*values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """In place of all combinations: as many as the longest list has, so that every value occurs."""
    for i in range(max(map(len, values))):
        yield tuple(own[min(i, len(own) - 1)] for own in values)


@cache
def data_keys(domain: str) -> list[str]:
    """The keys of ``data`` that a domain has."""
    return [*compose.compose_jobs("distill", [f"domain={domain}"])[0].config["data"]]


def check_torchrun(words: Sequence[str], inline: bool) -> None:
    """Its own flags, then a command that may run in several processes."""
    own = [word for word in words[: words.index("-m") if "-m" in words else len(words)]]
    known = ("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--standalone")
    for word in own:
        if word.partition("=")[0] not in known:
            raise unknown("flag of torchrun", word, known)
    if inline and len(own) == len(words):
        return
    if words[len(own) + 1] != "didi_core":
        raise unknown("module", words[len(own) + 1], ["didi_core"])
    check_parallel(words[len(own) + 2 :])
    check_didi(words[len(own) + 2 :], inline)


def check_module(name: str, words: Sequence[str], inline: bool) -> None:
    """A module of this project; one that reads a command line is given it."""
    if name == "didi_core":
        check_didi(words or ["--help"], inline)
        return
    if name == "pytest":
        return
    top = importlib.util.find_spec(name.partition(".")[0]) if name.startswith("didi_") else None
    spec = importlib.util.find_spec(name) if top else None
    main = importlib.util.find_spec(f"{name}.__main__") if spec and spec.submodule_search_locations else spec
    if main is None or main.origin is None:
        raise InputError(f"there is no module {name} to run.")
    if "argparse" in Path(main.origin).read_text():
        with parsed_only(name, words):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif words and not all("=" in word for word in words):
        raise InputError(f"{name} takes settings, key=value, got {' '.join(words)}.")


def check_script(name: str, words: Sequence[str]) -> None:
    """A script of benchmarks, whose own parser is given the words; another page's file is not known here."""
    path = ROOT / name
    if not name.startswith("benchmarks/"):
        return
    if not path.is_file():
        raise InputError(f"there is no {name}.")
    with parsed_only(str(path), words), mock.patch.object(sys, "path", [str(path.parent), *sys.path]):
        runpy.run_path(str(path), run_name="__main__")


def check_pip(words: Sequence[str]) -> None:
    """Distributions of this repository, their folders and their extras."""
    if words[0] != "install":
        raise unknown("command of pip", words[0], ["install"])
    for word in words[1:]:
        name, _, extras = word.partition("[")
        if word.startswith("-"):
            continue
        if name.startswith(".") and not (ROOT / name / "pyproject.toml").is_file():
            raise InputError(f"there is no distribution in {name}.")
        if name == "." or name == "didi-core":
            for extra in filter(None, extras.rstrip("]").split(",")):
                if extra not in PROJECT["optional-dependencies"]:
                    raise unknown("extra", extra, PROJECT["optional-dependencies"])


class Parsed(Exception):
    """The words of a script have been parsed."""


@contextmanager
def parsed_only(name: str, words: Sequence[str]) -> Iterator[None]:
    """Within, a script ends where it has parsed these words. Raises InputError where it cannot."""

    def stop_after(parse: Callable[..., argparse.Namespace]) -> Callable[..., None]:
        def parsed(*arguments: Any) -> None:
            raise Parsed(parse(*arguments))

        return parsed

    def error(parser: argparse.ArgumentParser, message: str) -> None:
        raise InputError(f"{name}: {message}.")

    parser = argparse.ArgumentParser
    with (
        mock.patch.object(parser, "parse_args", stop_after(parser.parse_args)),
        mock.patch.object(parser, "parse_intermixed_args", stop_after(parser.parse_intermixed_args)),
        mock.patch.object(parser, "error", error),
        mock.patch.object(sys, "argv", [name, *words]),
    ):
        try:
            yield
        except Parsed:
            return
    raise InputError(f"{name} did not parse its command line.")


def examples() -> list[Line]:
    """The examples of ``didi --help``."""
    shown = [command for command in COMMANDS.values() if command.example]
    return [Line("didi --help", i, f"didi {each.name} {each.example}") for i, each in enumerate(shown, 1)]
