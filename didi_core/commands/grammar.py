"""The values of ``key=value``, read according to the type of the key.

A key for text or a path takes everything after the first ``=`` literally. Other keys take numbers, ``true``, ``false``,
``null``, lists ``[a,b]`` and groups ``{key: value}``. Commas separate inside these, and between the values of a sweep;
quotes or a backslash protect a comma. Lists of text keep their items as typed: ``[v1_0,1_0]`` is two names.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError

DEEPEST = 50  # lists within lists
MISSING: Any = object()
_INTEGER = re.compile(r"[+-]?(0|[1-9](_?\d)*)")
_NUMBER = re.compile(r"[+-]?((0|[1-9](_?\d)*)?\.\d+|(0|[1-9](_?\d)*)\.?)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_WORDS = {"null": None, "true": True, "false": False}
_LONGEST_NUMBER = 400


class Unreadable(InputError):
    """The text is not a value."""


@dataclass(frozen=True)
class Word:
    """A value that is neither a list nor a group, as typed. In quotes it is always text."""

    text: str
    quoted: bool = False


Tree = Word | list["Tree"] | dict[str, "Tree"]


def read(text: str, annotation: Any = Any, default: Any = MISSING, prose: bool = False) -> Any:
    """The value of a key.

    Args:
        annotation: type of the key, if known. default: its value so far, which decides where the type is unknown.
        prose: the value is text, and never ``null``.

    Raises:
        Unreadable: brackets or quotes do not close, or are nested too deep.
    """
    whole = quoted(text)
    if whole is not None:
        return whole
    if prose:
        return text
    if text[:1] in ("[", "{") and not is_text(annotation):
        return settle(_Reader(text).whole(), annotation, default)
    return settle(Word(text), annotation, default)


def takes_text(annotation: Any, default: Any = MISSING) -> bool:
    """Whether a value that contains a comma may be a single text."""
    if annotation is Any:
        return default is None or default is MISSING or isinstance(default, str)
    return any(_is_text(option) for option in (*_options(annotation), *_options(_item_of(annotation))))


def is_text(annotation: Any) -> bool:
    """Whether a key can only hold text or a path."""
    options = [option for option in _options(annotation) if option is not type(None)]
    return bool(options) and all(map(_is_text, options))


def annotation_of(kind: Any, key: str) -> Any:
    """Type of a dotted key of a dataclass; Any if it has none."""
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return Any
        kind = typing.get_type_hints(kind).get(name, Any)
    return kind


def settle(tree: Tree, annotation: Any = Any, default: Any = MISSING) -> Any:
    """The plain value of a parsed text, by the type of the key."""
    if isinstance(tree, Word):
        return tree.text if tree.quoted else _scalar(tree.text, annotation, default)
    if isinstance(tree, dict):
        known = default if isinstance(default, Mapping) else {}
        return {
            _key(key): settle(value, annotation_of(annotation, key), known.get(key, MISSING))
            for key, value in tree.items()
        }
    first = default[0] if isinstance(default, list | tuple) and default else MISSING
    return [settle(item, _item_of(annotation, i), first) for i, item in enumerate(tree)]


def _key(text: str) -> str | int:
    """A key of a group; integers become numbers (``num_at={128: 200}``)."""
    return int(text) if _INTEGER.fullmatch(text) else text


def _scalar(text: str, annotation: Any, default: Any) -> Any:
    """One word by type. If the type is unknown, a number that Python would print differently stays text."""
    options = [option for option in _options(annotation) if option is not type(None)]
    nothing = text.lower() == "null" and (annotation is Any or type(None) in _options(annotation))
    if nothing or (is_text(annotation) and text):
        return None if nothing else text
    if options and all(typing.get_origin(option) in (tuple, list, Sequence) for option in options):
        return _scalar(text, _item_of(annotation), default)
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = _number(text)
    if number is None:
        return text
    plain = repr(number) == text
    if annotation is Any:
        return number if plain or (isinstance(default, int | float) and not isinstance(default, bool)) else text
    if any(map(_is_text, options)):
        return number if plain and {int, float} & {*options} else text
    return number


def _number(text: str) -> int | float | None:
    """The number that a word spells, or None."""
    if len(text) > _LONGEST_NUMBER:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(inner for option in typing.get_args(annotation) for inner in _options(option))
    return (annotation,)


def _is_text(option: Any) -> bool:
    literal = typing.get_origin(option) is typing.Literal
    return option in (str, Path) or (literal and all(isinstance(value, str) for value in typing.get_args(option)))


def _item_of(annotation: Any, number: int = 0) -> Any:
    """Type of the items of a list; Any if unknown."""
    for option in _options(annotation):
        if typing.get_origin(option) in (tuple, list, Sequence):
            kinds = typing.get_args(option)
            endless = len(kinds) == 1 or kinds[-1] is Ellipsis
            return kinds[0] if endless else kinds[min(number, len(kinds) - 1)]
    return Any


def quoted(text: str) -> str | None:
    """The content of a quoted text if the quotes span all of it; None otherwise."""
    reader = _Reader(text.strip())
    if not reader.text or reader.text[0] not in "'\"":
        return None
    try:
        inner = reader.in_quotes()
    except Unreadable:
        return None
    return inner if reader.at == len(reader.text) else None


def choices(text: str) -> list[str]:
    """The values of a sweep ``a,b``, each as typed alone; commas in brackets or quotes do not separate."""
    reader, found, start = _Reader(text), [], 0
    while reader.at < len(text):
        letter = text[reader.at]
        if letter in "'\"" and not text[start : reader.at].strip():
            reader.in_quotes()
        elif letter in "[{":
            reader.value()
        elif letter == ",":
            found.append(text[start : reader.at])
            reader.at = start = reader.at + 1
        else:
            reader.at += 2 if letter == "\\" and text[reader.at + 1 : reader.at + 2] == "," else 1
    found.append(text[start:])
    return [item.strip().replace("\\,", ",") for item in found] if len(found) > 1 else [text]


def written(value: Any) -> str:
    """A value as text that ``read`` reads back, for a command line that is shown or stored."""
    if isinstance(value, Mapping | list | tuple):
        return _item(value)
    text = _plain(value)
    known = isinstance(value, str | Path) and (quoted(text) is not None or text.lower() in _WORDS)
    return _quote(text) if known else text


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _item(value: Any) -> str:
    """A value within a list or a group."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_item(key)}:{_item(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_item, value)) + "]"
    text = _plain(value)
    bare = re.fullmatch(r"[\w./+@%~-]+", text) and text.lower() not in _WORDS and _number(text) is None
    return text if bare or not isinstance(value, str | Path) else _quote(text)


def _quote(text: str) -> str:
    """The text in single quotes; backslashes directly before a quote are doubled."""
    inner = re.sub(r"(\\*)('|$)", lambda run: run[1] * 2 + ("\\'" if run[2] else ""), text)
    return f"'{inner}'"


@dataclass
class _Reader:
    """Reads lists and groups from ``at`` on."""

    text: str
    at: int = 0

    def whole(self) -> Tree:
        """One value, and nothing after it."""
        tree = self.value()
        self.space()
        if self.at < len(self.text):
            raise Unreadable(f"{self.text[self.at :][:20]!r} follows the closing bracket")
        return tree

    def value(self, depth: int = 0) -> Tree:
        """A list, a group, a text in quotes, or a word."""
        if depth > DEEPEST:
            raise Unreadable(f"brackets are nested more than {DEEPEST} deep")
        self.space()
        opening = self.text[self.at : self.at + 1]
        if opening == "[":
            return self.items(depth)
        if opening == "{":
            return self.pairs(depth)
        return Word(self.in_quotes(), True) if opening in ("'", '"') else Word(self.word(",]}"))

    def items(self, depth: int) -> list[Tree]:
        """``[a,b]``."""
        items: list[Tree] = []
        self.at += 1
        while not self.closed("]", bool(items)):
            items.append(self.value(depth + 1))
        return items

    def pairs(self, depth: int) -> dict[str, Tree]:
        """``{a: 1,b: 2}``."""
        pairs: dict[str, Tree] = {}
        self.at += 1
        while not self.closed("}", bool(pairs)):
            self.space()
            key = self.in_quotes() if self.text[self.at : self.at + 1] in ("'", '"') else self.word(":,}")
            self.space()
            if self.text[self.at : self.at + 1] != ":":
                raise Unreadable(f"a group is written {{key: value}}, and {key[:20]!r} has no value")
            self.at += 1
            if key in pairs:
                raise Unreadable(f"{key[:20]!r} occurs twice")
            pairs[key] = self.value(depth + 1)
        return pairs

    def closed(self, bracket: str, any_yet: bool) -> bool:
        """Whether the closing bracket is next; skips a comma before the next value."""
        self.space()
        next_one = self.text[self.at : self.at + 1]
        if next_one == bracket:
            self.at += 1
            return True
        if not next_one:
            raise Unreadable(f"a {bracket!r} is missing")
        if any_yet:
            if next_one != ",":
                raise Unreadable(f"a comma or {bracket!r} should stand before {self.text[self.at :][:20]!r}")
            self.at += 1
        return False

    def word(self, ends: str) -> str:
        """Characters up to one that ends the word; a backslash protects the next one."""
        found = ""
        while self.at < len(self.text) and self.text[self.at] not in ends:
            if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2] in (*ends, "\\"):
                self.at += 1
            found += self.text[self.at]
            self.at += 1
        if not found.strip():
            raise Unreadable(f"a value is missing before {self.text[self.at :][:20]!r}")
        return found.strip()

    def in_quotes(self) -> str:
        """A quoted text; a backslash protects a quote, and is an ordinary character elsewhere."""
        quote, found = self.text[self.at], []
        for run in re.finditer(r"(\\*)(['\"]|[^\\'\"]+|$)", self.text[self.at + 1 :]):
            slashes, rest = run[1], run[2]
            if rest != quote and not (rest == "" and slashes):
                found.append(slashes + rest)
                continue
            if rest == quote and len(slashes) % 2 == 0:
                self.at += 1 + run.end()
                return "".join(found) + slashes[: len(slashes) // 2]
            found.append(slashes[: len(slashes) // 2] + rest)
        raise Unreadable(f"a closing {quote} is missing")

    def space(self) -> None:
        """Skip blanks."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
