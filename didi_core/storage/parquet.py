"""Texts of a Parquet file, a row at a time; what they unpack to is limited as in any packed file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from didi_core.errors import InputError, one_line, unknown
from didi_core.storage.text_file import opened
from didi_core.storage.unpacked import Allowance, unpacked_limit

ROWS = 1024  # that are decoded together


def parquet_texts(path: Path, column: str, unpacked: int | None = None) -> Iterator[str]:
    """The texts of a column, '' where there is none.

    Args:
        unpacked: bytes that they may unpack to; by default ``unpacked_limit`` of the file. The file's own account of
            its column is checked before anything is read. As a text that is repeated is stored once, the texts are
            counted as well.

    Raises:
        InputError: no Parquet, no such column of text, too large, or written to while it is read.
    """
    import pyarrow
    import pyarrow.parquet

    with opened(path, None) as (raw, _):
        try:
            _check_column(path, column, pyarrow.parquet.ParquetFile(raw).schema_arrow)
            table = pyarrow.parquet.ParquetFile(raw, read_dictionary=[column])  # a repeated text is kept once
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _damaged(path, error) from None
        allowed = Allowance(path, None, fixed=unpacked_limit(path) if unpacked is None else unpacked)
        allowed.check(_unpacked_size(table.metadata, column))
        total = 0
        try:
            for batch in table.iter_batches(ROWS, columns=[column]):
                for value in batch.column(0):
                    text = value.as_py() or ""
                    total += len(text)
                    allowed.check(total)
                    yield text
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _damaged(path, error) from None


def _unpacked_size(metadata: Any, column: str) -> int:
    """Bytes of the column's pages by the file's own account."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)


def _check_column(path: Path, column: str, schema: Any) -> None:
    kinds = {field.name: str(field.type).removeprefix("large_") for field in schema}
    if column not in kinds:
        texts = [name for name, kind in kinds.items() if kind == "string"]
        raise unknown("text column", column, texts, f"data.column, of data.path={path}")
    if kinds[column] not in ("string", "null") and not kinds[column].startswith("dictionary<values=string"):
        raise InputError(
            f"data.column={column} of data.path={path} holds {kinds[column]}, not text. "
            "Choose a column of text."
        )


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"data.path={path} cannot be read: {one_line(error)}")
