"""The shape that values of a JSON file must have before they are used.

A shape is a type, a tuple of shapes of which one fits (``None`` among them for null), a mapping from the keys that are
used to their shapes, ``Each`` of one shape, or ``Maybe`` one. Further keys do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)


@dataclass(frozen=True)
class Each:
    """Items of a list, or values of an object, all of one shape."""

    shape: Any
    kind: type = list


@dataclass(frozen=True)
class Maybe:
    """A value of a shape, null, or no such key."""

    shape: Any


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """Where a value has another shape, and what is there: ``rows[3].n is 'x'``; '' if it fits."""
    if isinstance(shape, Maybe):
        return "" if value is None else misfit(value, shape.shape, where)
    if isinstance(shape, tuple):
        return "" if any(not misfit(value, one, where) for one in shape) else f"{where} is {_shown(value)}"
    if isinstance(shape, Mapping) and isinstance(value, Mapping):
        absent = next((k for k, inner in shape.items() if k not in value and not isinstance(inner, Maybe)), None)
        if absent is not None:
            return f"{where}.{absent} is absent".lstrip(".")
        found = (misfit(value.get(key), inner, f"{where}.{key}".lstrip(".")) for key, inner in shape.items())
        return next(filter(None, found), "")
    if isinstance(shape, Each) and isinstance(value, shape.kind) and isinstance(value, list | dict):
        items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        return next(filter(None, (misfit(inner, shape.shape, f"{where}[{key}]") for key, inner in items)), "")
    fits = value is None if shape is None else isinstance(shape, type) and isinstance(value, shape)
    fits = fits and (shape is bool or not isinstance(value, bool))
    return "" if fits else f"{where or 'it'} is {_shown(value)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
