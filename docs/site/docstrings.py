"""An extension of griffe, which reads docstrings for the site: tables and lists of fields as Markdown has them.

Docstrings are written for readers of code: a table is drawn with ``====``, and a field is a line ``name: meaning``.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

TABLE = re.compile(r"^ *=+(?:  +=+)+$.*?(?=^ *\n|\Z)", re.M | re.S)
FIELD = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)", re.M)


class Docstrings(griffe.Extension):
    """Changes docstrings before they are rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """A docstring whose drawn tables are blocks of code, and whose lines of fields are lists."""
    text = TABLE.sub(lambda table: f"```text\n{table[0].rstrip()}\n```\n", text)
    paragraphs = re.split(r"\n[ \t]*\n", text)
    return "\n\n".join(FIELD.sub(r"- `\1`: ", each) if FIELD.match(each) else each for each in paragraphs)
