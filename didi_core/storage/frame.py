"""Results in a notebook: rows as a table or a pandas DataFrame, and a folder's page in a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didi_core.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


def html_table(title: str, rows: Sequence[Mapping[str, Any]], shown: int = 10) -> str:
    """The first rows as an HTML table for a notebook."""
    from didi_core.storage.markup import render

    some, more = rows[:shown], max(len(rows) - shown, 0)
    columns = list(dict.fromkeys(key for row in some for key in row))
    return render("table.html", __package__, title=title, columns=columns, rows=some, more=more)


def html_frame(folder: Path, name: str = "report.html") -> str:
    """A folder's page in a frame, for a notebook; the folder's path where there is no page."""
    from didi_core.storage.markup import render

    page = (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else None
    return render("frame.html", __package__, folder=folder, page=page)


def frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """A DataFrame with a column for every key that any row has. Raises InputError without pandas."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise InputError("a DataFrame needs pandas: pip install 'didi-core[frame]'.") from None
    return DataFrame(list(rows))
