"""The table of scores so far, the best design first, written as JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from didi_core.storage.files import write_atomic
from didi_core.types import Sample

from ..design_report.designs import PLDDT, PLDDT_CA, PPPL, RESIDUES, SCORES, STRUCTURE_CLUSTER, TM_NEAREST
from ..design_report.designs import best_first as most_confident_first
from .sequence import plain

TABLE = "scores.csv"
FIRST = ("id", "status", "model", "steps", "length", PLDDT, PLDDT_CA, "ptm", "iptm", "pae", "ipae", PPPL)
LAST = ("sequence",)
NOT_IN_CSV = (RESIDUES,)
FORMULA = (*"=+-@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")  # a cell that begins so is computed by spreadsheets
# What is better, for ordering: more (True) or less (False).
BETTER = {
    "motif_rmsd": False, "motif_rmsd_ca": False, "ipae": False, "sc_rmsd": False, "sc_tm": True, "sc_plddt": True,
    PLDDT: True, PLDDT_CA: True, "ptm": True, "iptm": True, "pae": False, PPPL: False, "nn_identity": False,
    TM_NEAREST: False, "low_complexity": False, "longest_run": False, "top_share": False, "repeated_3mers": False,
    "composition_kl": False,
}  # fmt: skip
OWN = {
    "id", "status", "sequence", "reasons", "nn_id", "nn_coverage", "nn_method", "nn_evalue", "nearest_structure",
    "tm_nearest_aligned", "tm_method", STRUCTURE_CLUSTER, *BETTER,
}  # fmt: skip


def merged(designs: Sequence[Sample], parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row per design from its header and from every kind of score, in order of confidence.

    Words of the header with the name of a score come from an earlier scoring, and are left out. Rows are ordered by
    pLDDT over CA atoms, or without it by pseudo-perplexity, or as in the file.
    """
    parts = list(parts)
    rows = []
    for design in designs:
        said = {name: plain(value) for name, value in design.info.items() if name not in OWN}
        row: dict[str, Any] = {"id": design.id, "status": "not folded", **said, "sequence": design.text}
        for scores in parts:
            row |= scores.get(design.id, {})
        rows.append(row)
    return best_first(rows)


def best_first(rows: Sequence[dict[str, Any]], column: str | None = None, more: bool | None = None) -> list[dict]:
    """Rows in order of a column (pLDDT, then pseudo-perplexity, where none is given); undefined ones last."""
    if column is None:
        return [rows[i] for i in most_confident_first(rows)[0]]
    sign = -1.0 if (BETTER.get(column, True) if more is None else more) else 1.0

    def key(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row.get(column)
        return value is None, sign * float(value or 0.0)

    return sorted(rows, key=key)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the columns: confidence first, the sequence last."""
    found = list(dict.fromkeys(name for row in rows for name in row if name not in NOT_IN_CSV))
    middle = [name for name in found if name not in (*FIRST, *LAST)]
    return [*(name for name in FIRST if name in found), *middle, *(name for name in LAST if name in found)]


def _cell(value: Any) -> Any:
    """A value for a spreadsheet: a text that looks like a formula gets an apostrophe in front.

    A carriage return becomes a line feed, because csv leaves it without quotes and readers begin a row there.
    """
    if not isinstance(value, str):
        return "" if value is None else value
    whole = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{whole}" if value.startswith(FORMULA) else whole


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]], table: str = TABLE, lines: bool = True) -> None:
    """``scores.csv`` and, with ``lines``, ``scores.jsonl``, which also has the confidence of every residue."""
    if lines:
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        write_atomic(folder / SCORES, text)
    written = io.StringIO()
    writer = csv.DictWriter(written, columns_of(rows), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writerow({name: _cell(name) for name in writer.fieldnames})
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    write_atomic(folder / table, written.getvalue())
