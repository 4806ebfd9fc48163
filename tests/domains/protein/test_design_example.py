"""The example of docs/design.md runs as it stands, and prints what the page says."""

from __future__ import annotations

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


def test_the_example_prints_the_table_of_the_page(
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
    assert [line.split()[:3] for line in printed] == [line.split()[:3] for line in written]


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
