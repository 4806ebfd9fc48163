"""docs/notebooks: small, listed, without a failed cell; the slow test executes them and compares what they print."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# A verdict in a table, or the paragraph on the comparison, whose sentences depend on verdicts.
VERDICT = re.compile(r"(?<=\]) (better|worse|no difference shown)|The student is .*?(?=A first look)")
DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/site/notebooks.py."""
    for name in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(name, reason="notebooks need the extra: pip install -e '.[notebooks]'")
    spec = importlib.util.spec_from_file_location("site_notebooks", DOCS / "site" / "notebooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(cells: list[Any]) -> list[set[str]]:
    """The words that each cell printed, without numbers, sequences and verdicts: those follow from the numbers."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    printed = ["".join("".join(out.get("text", "")) for out in cell["outputs"]) for cell in code]
    plain = (VERDICT.sub("", " ".join(text.split())) for text in printed)
    return [{*re.findall(r"(?<![\w.])[a-z]{2,15}(?![\w.])", text)} for text in plain]


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


def test_outputs_are_kept_small(script: ModuleType) -> None:
    """Bars, colours and the folder go; the order of what is printed stays."""
    new = script.nbformat.v4.new_output
    bar = new("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Output()"})
    empty = new("display_data", {"text/plain": ""})
    picture = new("display_data", {"image/png": "aGk=", "text/html": "<b>", "text/plain": "a figure"})
    streams = [new("stream", name="stdout", text=text) for text in ("\x1b[1mrun\x1b[0m: /tmp/x/a  \n", "end\n")]
    kept = script.small([streams[0], bar, empty, picture, streams[1]], "/tmp/x")
    assert [output.output_type for output in kept] == ["stream", "display_data"]
    assert kept[0].text == "run: a\nend\n" and {*kept[1].data} == {"image/png", "text/plain"}
    assert script.small([bar], "/tmp/x") == []


def test_words_that_changed_are_found() -> None:
    printed = [{"text": ["The student is better: 1.38\n", "knnnkolmopttsokopttcdb\n"]}]
    assert words([{"cell_type": "code", "outputs": printed}]) == [{"student", "is", "better"}]


@pytest.mark.parametrize("verdict", ["better", "worse", "no difference shown"])
def test_a_verdict_is_a_figure(verdict: str) -> None:
    text = f"student  8  −9.7 % [−17, +4]  {verdict}\n\nThe student is {verdict}\nthan it.\nA first look, with 64"
    assert words([{"cell_type": "code", "outputs": [{"text": [text]}]}]) == [{"student", "first", "look", "with"}]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_is_kept_of_it(script: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words: figures may differ on another machine. ``python docs/site/notebooks.py`` keeps the new ones."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert words(script.executed(path).cells) == words(json.loads(path.read_text())["cells"])
