"""Designs as ``score`` reads them, and the table that it writes, for tests."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path


def write_designs(path: Path, records: Mapping[str, str]) -> Path:
    """A FASTA file of sequences by name."""
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return path


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a score folder's table, by design."""
    with (folder / "scores.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}
