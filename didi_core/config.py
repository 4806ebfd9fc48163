"""From a composed configuration to frozen dataclasses, once, before a command runs.

``build`` does all of it: a field added to a dataclass and to its YAML file is a new key. A value of the wrong type is
an ``InputError`` with key, value and the expected type. The dataclasses themselves check whether values make sense.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from didi_core.catalogue import Catalogue
from didi_core.errors import InputError

T = TypeVar("T")
_MISFIT = object()
_NAMES = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
_NAMES[type(None)] = "null"


def config_folder() -> Path:
    """The project's configs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def build(kind: Callable[..., T], given: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass, or call any function or class with annotated arguments, from a mapping; dataclasses may nest.

    A function that takes any keyword (``**data``) gets further keys unconverted and checks them itself.

    Args:
        where: dotted key of the mapping, for messages.

    Raises:
        InputError: an unknown key (the message names similar ones), a missing key, or a value of another type.
    """
    taken = inspect.signature(kind).parameters
    fields = {name: field for name, field in taken.items() if field.kind is not field.VAR_KEYWORD}
    extra = {key: value for key, value in given.items() if key not in fields}
    for key in extra:
        if len(fields) == len(taken):
            raise unknown_key(_dotted(where, str(key)), [_dotted(where, name) for name in fields])
    plain = isinstance(kind, type) and not dataclasses.is_dataclass(kind)
    annotations = typing.get_type_hints(kind.__init__ if plain else kind)
    values = {}
    for name, field in fields.items():
        if name in given:
            values[name] = convert(annotations.get(name, Any), given[name], _dotted(where, name))
        elif field.default is inspect.Parameter.empty:
            raise InputError(
                f"{_dotted(where, name)} is missing: give {_dotted(where, name)}=<{describe(annotations[name])}>."
            )
    try:
        return kind(**values, **extra)
    except InputError as error:
        text = str(error)
        bare = any(text.startswith(f"{name}=") for name in fields)
        raise InputError(_dotted(where, text) if bare else text) from None


def convert(annotation: Any, value: Any, where: str) -> Any:
    """A value converted to its annotation: lists become tuples, text becomes paths, a single value a list of one.

    Raises:
        InputError: the value does not fit.
    """
    made = _fit(annotation, value, where)
    if made is _MISFIT:
        raise InputError(f"{where}={_shown(value)} does not fit: {where} is {describe(annotation)}.")
    return made


def _fit(annotation: Any, value: Any, where: str) -> Any:
    """The converted value or _MISFIT."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _fit_union(arguments, value, where)
    if origin is Literal:
        return value if value in arguments else _MISFIT
    if dataclasses.is_dataclass(annotation):
        return build(annotation, value, where) if isinstance(value, Mapping) else _MISFIT  # type: ignore[arg-type]
    if origin is tuple:
        return _fit_tuple(arguments, value, where)
    if origin is Sequence:
        return _fit_tuple((*arguments, ...), value, where)
    if origin in (dict, Mapping):
        return dict(value) if isinstance(value, Mapping) else _MISFIT
    return _fit_plain(annotation, value)


def _fit_union(options: Sequence[Any], value: Any, where: str) -> Any:
    exact = [option for option in options if isinstance(option, type) and type(value) is option]
    for option in (*exact, *options):
        made = _fit(option, value, where)
        if made is not _MISFIT:
            return made
    return _MISFIT


def _fit_tuple(arguments: Sequence[Any], value: Any, where: str) -> Any:
    endless = len(arguments) == 2 and arguments[1] is Ellipsis
    if not isinstance(value, list | tuple):
        if not endless or isinstance(value, Mapping) or value is None:
            return _MISFIT
        value = [value]
    if not endless and len(value) != len(arguments):
        return _MISFIT
    kinds = [arguments[0]] * len(value) if endless else arguments
    made = [_fit(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    return _MISFIT if any(item is _MISFIT for item in made) else tuple(made)


def _fit_plain(annotation: Any, value: Any) -> Any:
    """Numbers and text. A boolean is not a number, an integer fits a float, and a number for text becomes text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is bool or annotation is type(None):
        return value if isinstance(value, annotation) else _MISFIT
    if annotation in (int, float):
        return _number(annotation, value) if number or isinstance(value, str) else _MISFIT
    if annotation is str:
        return str(value) if number or isinstance(value, str | Path) else _MISFIT
    if annotation is Path:
        return user_path(value) if (number or isinstance(value, str | Path)) and value != "" else _MISFIT
    return value if isinstance(annotation, type) and isinstance(value, annotation) else _MISFIT


def _number(annotation: type, value: int | float | str) -> Any:
    """An integer of 64 bits, or any finite number. A text that spells a number counts as one, but 007 is a name."""
    made = _spelled(annotation, value) if isinstance(value, str) else value
    if made is None:
        return _MISFIT
    if annotation is float:
        return float(made) if abs(made) < 2**1023 else _MISFIT  # nan does not pass either
    whole = isinstance(made, int) or made.is_integer()
    return int(made) if whole and abs(made) < 2**63 else _MISFIT


def _spelled(annotation: type, text: str) -> int | float | None:
    """The number that a text spells, or None."""
    try:
        if not text.isascii() or (text[:1] == "0" and text[1:2].isdigit()):
            return None
        return int(text) if annotation is int else float(text)
    except ValueError:
        return None


def user_path(text: object) -> Path:
    """A path that a user wrote, with ``~`` as the home folder; an unknown ``~name`` stays as it is."""
    path = Path(str(text))
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def describe(annotation: Any) -> str:
    """The values that fit an annotation, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list, each {describe(arguments[0])}"
        return "a list of " + ", ".join(describe(item) for item in arguments)
    if origin is Sequence:
        return f"a list, each {describe(arguments[0])}"
    if dataclasses.is_dataclass(annotation):
        return "a group of keys (" + ", ".join(field.name for field in dataclasses.fields(annotation)) + ")"
    return _NAMES.get(annotation, "a group of keys" if origin in (dict, Mapping) else str(annotation))


def unknown_key(key: str, known: Iterable[str]) -> InputError:
    """The error for an unknown key, with similar ones among all known dotted keys."""
    known = sorted(set(known))
    last = key.rsplit(".", 1)[-1]
    same = [other for other in known if other.rsplit(".", 1)[-1] == last]
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.85)
    similar = difflib.get_close_matches(last, {other.rsplit(".", 1)[-1] for other in known}, n=1, cutoff=0.75)
    related = [other for other in known if other.rsplit(".", 1)[-1] in similar]
    hints = (close or same or related or difflib.get_close_matches(key, known, n=1, cutoff=0.6))[:3]
    if hints:
        return InputError(f"unknown key {key!r}. Did you mean {' or '.join(map(repr, hints))}?")
    top = sorted({other.split(".", 1)[0] for other in known})
    return InputError(f"unknown key {key!r}. Known: {', '.join(top)} (all of them with their values: add --cfg job).")


def flatten(node: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted keys of all leaves and of all groups."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat[_dotted(where, key)] = value
        if isinstance(value, Mapping):
            flat |= flatten(value, _dotted(where, key))
    return flat


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


Choice = str | Mapping[str, Any]  # one of several by its name, or {kind: name, ...} with its own keys


def split_choice(choice: Choice, where: str) -> tuple[str, dict[str, Any]]:
    """Name and own keys of a choice: ``power`` or ``{kind: power, power: 2}``.

    Raises:
        InputError: a group of keys without ``kind``.
    """
    if isinstance(choice, str):
        return choice, {}
    own = dict(choice) if isinstance(choice, Mapping) else {}
    name = own.pop("kind", None)
    if not isinstance(name, str):
        raise InputError(f"{where}={choice} names nothing: write {where}=NAME or {where}={{kind: NAME, ...}}.")
    return name, own


def choose(known: Catalogue[type[T]], choice: Choice, where: str) -> T:
    """One of the known dataclasses, made from a choice.

    Raises:
        InputError: the name is unknown, or the dataclass does not have such a key.
    """
    name, own = split_choice(choice, where)
    return build(known.find(name, where), own, where)


def labelled(choice: Choice, thing: object, hidden: Iterable[str] = (), always: tuple[type, ...] = ()) -> str:
    """A choice in a few words, for a table: its name, and those of its keys that differ from their defaults.

    Args:
        always: classes whose values are always shown, without the key: ``power 3``.
    """
    words = [split_choice(choice, "kind")[0]]
    for field in _own_fields(thing, hidden):
        value = getattr(thing, field.name)
        if isinstance(value, always):
            words.append(f"{value:g}")
        elif value != field.default:
            words.append(f"{field.name}={value}")
    return " ".join(words)


def own_keys(thing: object, hidden: Iterable[str] = ()) -> list[str]:
    """Names of the settings of a dataclass instance; an empty list for anything else."""
    return [field.name for field in _own_fields(thing, hidden)]


def _own_fields(thing: object, hidden: Iterable[str]) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(thing):
        return []
    return [field for field in dataclasses.fields(thing) if field.init and field.name not in tuple(hidden)]
