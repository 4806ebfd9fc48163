"""The commands of docs/motif_tutorial.md run as they stand, with a folding model of random weights."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest
from command_lines import ROOT
from fold_files import fold_folder
from predictor_files import chain, confidence, text_of
from workshop import furnish, small

from didi_core.cli import main

PAGE = ROOT / "docs" / "motif_tutorial.md"
NATIVE = "GSHMKKIAEELLRKAGNMKTAYIAKQRQISFVKSHFSRQLEE"


def commands(part: str) -> list[list[str]]:
    """Lines of the bash blocks of a part of the page, as words after ``didi``."""
    (text,) = (text for text in PAGE.read_text().split("\n## ") if text.startswith(part))
    blocks = text.split("```bash\n")[1:]
    lines = [line for block in blocks for line in block.split("```")[0].splitlines()]
    assert all(line.startswith("didi ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
def test_a_family_ends_in_ten_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    fold_folder(Path("esmfold"))
    lines = commands("A family")
    assert [words[0] for words in lines] == ["pretrain", "distill", "sample", "score", "filter", "score", "filter"]
    for words in lines:
        shrunk = [word.replace("num=500", "num=30") for word in words] if words[0] == "sample" else small(words)
        assert main(shrunk) == 0, shrunk
    with Path("ten/designs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 == len({row["sequence"] for row in rows})
    assert all(float(row["plddt_ca"]) > 0 and float(row["nn_identity"]) <= 0.8 for row in rows)
    for name in ("runs/student/report.html", "candidates/rejected.csv", "ten/report.html", "ten/designs.fasta"):
        assert Path(name).is_file(), name


def test_the_tutorial_ends_in_an_order_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("motif.pdb").write_text(text_of([chain(NATIVE)], [confidence(NATIVE)]))
    Path("known.fasta").write_text(f">native\n{NATIVE}\n>other\n{NATIVE[::-1]}\n")
    fold_folder(Path("esmfold"))
    assert [words[0] for words in commands("A motif")] == ["sample", "score", "filter"]
    for words in commands("A motif"):
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
