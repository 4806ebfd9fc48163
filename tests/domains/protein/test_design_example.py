"""The example of docs/design.md runs as it stands, and prints a table like the one on the page."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import didi_core
from didi_core.errors import InputError
from didi_core.storage.frame import frame
from didi_protein.design_report import designs_frame
from didi_protein.design_report.designs import Design
from didi_protein.domain import asset

DOCS = Path(__file__).resolve().parents[3] / "docs"


def shape(line: str) -> list[str]:
    """Kinds of the words of a line: a number, a name with its number, a contig, or the word itself."""
    kinds = {
        r"-?\d+(\.\d+)?": "number",
        r"sample_\d+": "design",
        r"[A-Z0-9]+(/[A-Z0-9]+)+": "contig",
        r"[A-Z]{30,}": "protein",
    }
    return [next((kind for rule, kind in kinds.items() if re.fullmatch(rule, word)), word) for word in line.split()]


def test_the_example_prints_what_the_page_shows(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(DOCS / "examples/design.py"))
    lines = capsys.readouterr().out.splitlines()
    printed = [line for line in lines if not line.startswith("run directory: ")]
    assert (tmp_path / "scored" / "report.html").is_file() and (tmp_path / "shortlist" / "designs.fasta").is_file()
    page = (DOCS / "design.md").read_text()
    start = page.index(printed[0])
    written = page[start : page.index("```", start)].splitlines()
    assert [shape(line) for line in printed] == [shape(line) for line in written]  # the designs are the machine's own
    rows = [line.split() for line in printed if line.split()[0].startswith("sample_")]
    assert sorted(row[0] for row in rows) == [f"sample_{i}" for i in range(1, 9)]
    for _, length, contig, *numbers in rows:
        assert int(length) == sum(int(part) if part.isdigit() else len(part) for part in contig.split("/"))
        assert len(numbers) == 3
    assert all("MKTAYIAK" in line and "C" not in line for line in printed[-3:])


def test_the_code_on_the_page_is_the_example() -> None:
    code = (DOCS / "examples/design.py").read_text()
    page = (DOCS / "design.md").read_text()
    start = page.index("```python\n") + len("```python\n")
    assert page[start : page.index("```", start)] in code


def test_frames_have_a_line_per_sample_and_per_design() -> None:
    pytest.importorskip("pandas")
    table = didi_core.sample(asset("teacher"), num=2, steps=2, length=30).to_frame()
    assert list(table.id) == ["sample_1", "sample_2"] and list(table.length) == [30, 30]
    assert {"text", "sampler", "seed", "nfe"} <= set(table.columns)
    scores = designs_frame([Design("a", "MKT", {"plddt": 80.0}), Design("b", "MK", {"status": "oom"})])
    assert list(scores.length) == [3, 2] and scores.plddt.isna().tolist() == [False, True]


def test_without_pandas_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install 'didi-core\\[frame\\]'"):
        frame([{"id": "a"}])
