"""Tables of docs/objectives.md on proteins and text are those of their records, which ``didi report`` made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "objectives.md").read_text()


@pytest.mark.parametrize("domain", ["protein", "text"])
def test_a_table_of_objectives_is_that_of_its_record(domain: str) -> None:
    record = json.loads((ROOT / "docs" / "results" / f"objectives_{domain}.json").read_text())
    section = PAGE.partition(f"\n### {domain.title()}")[2].partition("\n#")[0]
    assert record["command"] in PAGE
    rows = [row for table in record["tables"] for row in table["cells"]]
    written = ["| " + " | ".join([name if name == "teacher" else f"`{name}`", *cells]) + " |" for name, *cells in rows]
    assert len(record["tables"]) >= 5 and not [line for line in written if line not in section]


@pytest.mark.parametrize("domain", ["protein", "text"])
def test_every_row_of_those_tables_is_of_the_record(domain: str) -> None:
    record = json.loads((ROOT / "docs" / "results" / f"objectives_{domain}.json").read_text())
    section = PAGE.partition(f"\n### {domain.title()}")[2].partition("\n#")[0]
    shown = [line for line in section.splitlines() if line.startswith(("| `", "| teacher"))]
    assert len(shown) == sum(len(table["cells"]) for table in record["tables"])
