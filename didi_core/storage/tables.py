"""Tables of comma, semicolon or tab separated values: a line of column names, then one sample per line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from didi_core.errors import InputError
from didi_core.storage.records import Record, no_column, text_column
from didi_core.storage.text_file import LONGEST_LINE, numbered_lines, undecoded_byte

DELIMITERS = "\t,;"
IDS = ("id", "name")


def table_records(path: Path, column: str | None = None, unpacked: int | None = None) -> Iterator[Record]:
    """Rows of a table as records: the text's column, ``id`` or ``name``, and the other columns as info.

    The separator is the most frequent one of ``DELIMITERS`` in the first line. A quoted cell may contain line breaks.

    Args:
        column: name of the text's column; by default the first of ``COLUMNS`` that the table has.

    Raises:
        InputError: there is no such column, the table ends inside a cell, or ``numbered_lines`` refuses the file.
    """
    lines = (f"{line}\n" for _, line in numbered_lines(path, errors="surrogateescape", unpacked=unpacked))
    first = next(lines, "").lstrip()
    if not first.strip():
        return
    csv.field_size_limit(LONGEST_LINE)
    delimiter = max(DELIMITERS, key=first.count)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    if undecoded := undecoded_byte(first):
        raise InputError(f"{path}, line 1: {undecoded}.")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}, line 1: two columns are named {twice!r}. Rename one of them.")
    key = column or text_column(names)
    if key not in names:
        raise InputError(f"{path}, line 1: {no_column(column, names)}.")
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    started = 2
    try:
        for row in rows:
            if row:
                yield _record(row, names, key, started)
            started = rows.line_num + 2
    except csv.Error as error:
        raise InputError(f"{path}, line {started}: no row of a table ({error}). Repair it.") from None


def _record(row: list[str], names: list[str], key: str, line: int) -> Record:
    if len(row) != len(names):
        return Record(line, "", problem=f"{len(row)} cells where the first line names {len(names)} columns")
    cells = dict(zip(names, row, strict=True))
    if undecoded := next(filter(None, map(undecoded_byte, row)), ""):
        return Record(line, "", problem=undecoded)
    text = cells.pop(key)
    name = next((cells.pop(name) for name in IDS if name in cells), "")
    return Record(line, text, name, {column: cell for column, cell in cells.items() if column and cell})
