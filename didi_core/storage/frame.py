"""Rows as a pandas DataFrame, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from didi_core.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """One line per row, a column for every key that any of them has. Raises InputError without pandas."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise InputError("a DataFrame needs pandas: pip install 'didi-core[frame]'.") from None
    return DataFrame(list(rows))
