"""Rows as a pandas DataFrame, if pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from didi_core.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


def html_table(title: str, rows: Sequence[Mapping[str, Any]], shown: int = 10) -> str:
    """The first rows as an HTML table for a notebook; their values are escaped."""
    some = rows[:shown]
    columns = list(dict.fromkeys(key for row in some for key in row))
    head = "".join(f"<th>{escape(str(key))}</th>" for key in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(row.get(key, '')))}</td>" for key in columns) + "</tr>" for row in some
    )
    more = f"<p>and {len(rows) - shown:,} more</p>" if len(rows) > shown else ""
    return f"<p>{escape(title)}</p><table><tr>{head}</tr>{body}</table>{more}"


def frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """A DataFrame with a column for every key that any row has. Raises InputError without pandas."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise InputError("a DataFrame needs pandas: pip install 'didi-core[frame]'.") from None
    return DataFrame(list(rows))
