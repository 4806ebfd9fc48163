"""docs/notebooks: small, listed, without a failed cell; executed from beginning to end by the slow test."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def test_every_notebook_is_on_the_page() -> None:
    page = (DOCS / "notebooks.md").read_text()
    assert len(NOTEBOOKS) == 3
    assert not [path.name for path in NOTEBOOKS if f"(notebooks/{path.name})" not in page]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_the_output_of_every_run(path: Path) -> None:
    assert path.stat().st_size < 40_000
    cells = json.loads(path.read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs and all(output["output_type"] != "error" for output in outputs)
    assert all(len(line) <= 160 for cell in cells for line in cell["source"])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_beginning_to_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "notebooks need the extra: pip install -e '.[notebooks]'"
    client = pytest.importorskip("nbclient", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    made = nbformat.read(path, as_version=4)
    client.NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [o["text"] for cell in made.cells for o in cell.get("outputs", ()) if o["output_type"] == "stream"]
    assert printed
