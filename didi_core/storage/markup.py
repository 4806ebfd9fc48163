"""HTML from jinja2 templates that escape every value: names, texts and records may come from anyone.

What only HTML of this program may stand for is ``Markup``; nothing else is put into a page unescaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

from didi_core.storage.text_file import SURROGATE

_INSTEAD = "\ufffd"


def render(template: str, *packages: str, **values: Any) -> str:
    """HTML from a template of the packages, every value escaped."""
    return SURROGATE.sub(_INSTEAD, environment(*packages).get_template(template).render(**values))


@cache
def environment(*packages: str) -> jinja2.Environment:
    """The files in ``templates`` of some packages; where two have one of the same name, that of the first.

    Filters: ``plain`` and ``nested`` are the entries of a record that are values, and those that hold others, as JSON.
    """
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys(packages)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters["plain"] = lambda record: {k: v for k, v in record.items() if not _nested(v)}
    made.filters["nested"] = lambda record: {k: _indented(v) for k, v in record.items() if _nested(v)}
    return made


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)
