"""One setting of a command, as a word of the command line or as a Python value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from didi_core.commands.grammar import MISSING, Unreadable, choices, read, takes_text, written
from didi_core.errors import InputError

WISHES = ("conditioning", "scoring", "filtering")  # nodes of commands for the keys of domains
PROSE = ("prompt", "suffix", "template")  # keys whose value is always text, even "null"
GENERATORS = ("range", "choice", "glob", "interval", "shuffle", "sort")  # Hydra's functions for values of a sweep


@dataclass(frozen=True)
class Setting:
    """One setting.

    key: dotted key of a group or a value. value: text as typed (``typed``), or a Python object.
    add: ``+key``, which may be new. delete: ``~key``, which is removed.
    """

    key: str
    value: Any = None
    typed: bool = False
    add: bool = False
    delete: bool = False

    @property
    def word(self) -> str:
        """The setting as a word of a command line."""
        if self.delete:
            return f"~{self.key}"
        return f"{'+' * self.add}{self.key}={self.value if self.typed else written(self.value)}"


def plain(value: Any) -> Any:
    """A Python value in the form of a configuration: paths become text, tuples lists, numpy's numbers Python's.

    Anything else (a function, a network) stays as it is.
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
    """``key=value``, ``+key=value`` or ``~key``. Raises InputError where the word is not a setting."""
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in word):
        shown = word.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        raise InputError(f"{shown!r} contains bytes that are not UTF-8 text. Give the name in UTF-8.")
    if word.startswith("~"):
        if "=" in word:
            raise InputError(f"{word!r}: ~key removes a key, and has no value. Write {word.partition('=')[0]}.")
        return Setting(word[1:], delete=True)
    key, equals, value = word.partition("=")
    if not equals or not key.lstrip("+"):
        raise InputError(f"{word!r} is not a setting: write key=value.")
    return Setting(key.lstrip("+").strip(), value, True, key.startswith("+"))


def read_setting(setting: Setting, annotation: Any, default: Any = MISSING) -> Any:
    """The value of a setting, by the type of its key.

    Raises:
        InputError: the text cannot be read, or gives several values.
    """
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
    """Whether a value is a Hydra function for several values, such as ``range(1,5)``."""
    name, bracket, _ = text.partition("(")
    return bool(bracket) and name.strip() in GENERATORS and text.rstrip().endswith(")")
