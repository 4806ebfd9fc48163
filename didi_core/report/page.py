"""The frame of every report: a self-contained HTML file with light and dark colours that is readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from didi_core.domain.palette import GROUP_COLOURS
from didi_core.report.pictures import VARIABLES
from didi_core.storage import markup

DARK = {
    "ink": "#e7e9ee",
    "muted": "#9aa3b2",
    "line": "#2c313c",
    "series-0": "#3f94e6",
    "series-1": "#f0703a",
    "series-2": "#35c9a0",
    "series-3": "#eaa0cc",
    "series-4": "#f3d35a",
    "series-5": "#d8dde6",
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
    return markup.render(template, package, __package__, colours=Markup(_colours()), groups=GROUP_COLOURS, **values)


def _colours() -> str:
    """The variables of the page and of the pictures, light and dark."""
    light = {name: colour for colour, name in VARIABLES.items()}
    light |= {"page": "#ffffff", "card": "#f5f6f8", "shade": "#0000002e", "good": "#1c7a4f", "bad": "#b3261e"}
    dark = {**DARK, "page": "#14161b", "card": "#1c1f26", "shade": "#ffffff3d", "good": "#6ad19c", "bad": "#ff8a80"}
    spelled = ["; ".join(f"--{name}: {colour}" for name, colour in scheme.items()) for scheme in (light, dark)]
    return f":root {{ {spelled[0]} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {spelled[1]} }} }}"
