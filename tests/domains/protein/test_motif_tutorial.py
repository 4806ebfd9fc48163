"""The commands of docs/motif_tutorial.md run as they stand, with a folding model of random weights."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest
from fold_files import fold_folder
from predictor_files import chain, confidence, text_of

from didi_core.cli import main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "motif_tutorial.md"
NATIVE = "GSHMKKIAEELLRKAGNMKTAYIAKQRQISFVKSHFSRQLEE"


def commands() -> list[list[str]]:
    """Lines of the page's bash blocks, as words after ``didi``."""
    blocks = PAGE.read_text().split("```bash\n")[1:]
    lines = [line for block in blocks for line in block.split("```")[0].splitlines()]
    assert all(line.startswith("didi ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_the_tutorial_ends_in_an_order_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("motif.pdb").write_text(text_of([chain(NATIVE)], [confidence(NATIVE)]))
    Path("known.fasta").write_text(f">native\n{NATIVE}\n>other\n{NATIVE[::-1]}\n")
    fold_folder(Path("esmfold"))
    assert [words[0] for words in commands()] == ["sample", "score", "filter"]
    for words in commands():
        assert main(words) == 0, words
    shown = " ".join(capsys.readouterr().err.split())
    assert "motif within 1 A (backbone): " in shown and "motif within 2 A (backbone): " in shown
    with Path("order/designs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and all("C" not in row["sequence"] for row in rows)
    moved = [float(row["motif_rmsd"]) for row in rows]
    assert moved == sorted(moved) and moved[0] > 0
    for row in rows:
        assert NATIVE[4:20] in row["sequence"] and NATIVE[29:38] in row["sequence"]
        assert row["nn_id"] == "native" and row["motif"].count("=") == 2
    pages = ("scored/report.html", "scored/cartoons.html", "order/report.html", "order/cartoons.html")
    for name in (*pages, "scored/view.pml", "scored/view.cxc", "order/view.pml", "order/rejected.csv"):
        assert Path(name).is_file(), name
    assert "pair_fit design_1" in Path("scored/view.pml").read_text()
    assert (Path("scored/motif") / "1_motif.pdb").is_file()
