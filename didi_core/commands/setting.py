"""One thing that a user asks of a command, as a word or as a value of Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from didi_core.commands.grammar import MISSING, Unreadable, choices, read, takes_text, written
from didi_core.errors import InputError

WISHES = ("conditioning", "scoring", "filtering")  # nodes of commands for the keys of domains
PROSE = ("prompt", "suffix", "template")  # keys whose value is a text, even "null"
GENERATORS = ("range", "choice", "glob", "interval", "shuffle", "sort")  # Hydra's words for values of a sweep


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


def read_setting(setting: Setting, annotation: Any, default: Any = MISSING) -> Any:
    """The value of a word as its key wants it."""
    text, prose = setting.value, setting.key in PROSE
    try:
        listed = not prose and not takes_text(annotation, default) and len(choices(text)) > 1
        if listed or (not takes_text(annotation, default) and is_generator(text)):
            raise several(setting)
        return read(text, annotation, default, prose)
    except Unreadable as error:
        raise InputError(
            f"{setting.word!r} cannot be read: {error}. Put values with commas or brackets in quotes: "
            f"""'{setting.key}="..."'."""
        ) from None


def several(setting: Setting) -> InputError:
    return InputError(
        f"{setting.word} gives several values: add --multirun to run each of them, or write a list as key=[a,b]."
    )


def is_generator(text: str) -> bool:
    """Whether a value is one of Hydra's words for several: ``range(1,5)``."""
    name, bracket, _ = text.partition("(")
    return bool(bracket) and name.strip() in GENERATORS and text.rstrip().endswith(")")
