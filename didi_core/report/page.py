"""The frame of every report: a self-contained HTML file with light and dark colours that is readable on a phone.

Pages are jinja2 templates that escape all values, because names of models, texts of samples and entries of records may
come from anyone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from didi_core.report.pictures import VARIABLES

DARK = {
    "ink": "#e7e9ee",
    "muted": "#9aa3b2",
    "line": "#2c313c",
    "series-0": "#7aa7e8",
    "series-1": "#f28a55",
    "series-2": "#5cc4a1",
    "series-3": "#bd96e8",
    "series-4": "#dbb85a",
    "series-5": "#9aa3b2",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table. quiet: text after it in a muted colour. dot: a CSS colour in front. tone: a CSS class."""

    text: str
    quiet: str = ""
    dot: str = ""
    tone: str = ""

    @classmethod
    def ranged(cls, text: str, dot: str = "") -> Cell:
        """``value [low, high]`` with the interval in a muted colour."""
        value, bracket, rest = text.partition(" [")
        return cls(value, f"[{rest}" if bracket else "", dot)


@dataclass(frozen=True)
class Line:
    """A line of a table; ``kind`` is its CSS class."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of a page; ``words`` are the columns of text, which are aligned left."""

    headers: Sequence[str]
    lines: Sequence[Line]
    words: Sequence[int] = ()


def render(template: str, package: str = __package__, **values: Any) -> str:
    """A page from a template of a package, which may extend ``base.html`` and use the macros of ``parts.html``.

    Every value is escaped. A page loads nothing from other addresses.
    """
    return environment(package).get_template(template).render(**values)


@cache
def environment(package: str) -> jinja2.Environment:
    """The templates of a package, with those of this package as a fallback."""
    loaders = [jinja2.PackageLoader(name) for name in dict.fromkeys((package, __package__))]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.globals["colours"] = Markup(_colours())  # of this file alone
    made.filters["plain"] = lambda record: {k: v for k, v in record.items() if not _nested(v)}
    made.filters["nested"] = lambda record: {k: _indented(v) for k, v in record.items() if _nested(v)}
    return made


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)


def _colours() -> str:
    """The variables of the page and of the pictures, light and dark."""
    light = {name: colour for colour, name in VARIABLES.items()}
    light |= {"page": "#ffffff", "card": "#f5f6f8", "good": "#1c7a4f", "bad": "#b3261e"}
    dark = {**DARK, "page": "#14161b", "card": "#1c1f26", "good": "#6ad19c", "bad": "#ff8a80"}
    spelled = ["; ".join(f"--{name}: {colour}" for name, colour in scheme.items()) for scheme in (light, dark)]
    return f":root {{ {spelled[0]} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {spelled[1]} }} }}"
