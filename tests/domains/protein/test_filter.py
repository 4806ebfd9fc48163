"""``filter``: thresholds and presets, reasons, the best that are not alike, the files it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from score_folder import score_folder

import didi_core
from didi_core.cli import main
from didi_core.errors import InputError
from didi_protein.design_report import read_designs
from didi_protein.fasta import read_fasta
from didi_protein.scoring.filtering import PRESETS, ProteinFilter, Threshold


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 designs; the second most confident is a near copy of the most confident."""
    made = score_folder(tmp_path_factory.mktemp("scored"), 24)
    rows = [json.loads(line) for line in (made / "scores.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: -row["plddt"])
    length = len(rows[1]["sequence"])
    copy = (rows[0]["sequence"] * 3)[:length]
    rows[1]["sequence"] = ("A" if copy[0] != "A" else "C") + copy[1:]
    (made / "pdb" / f"{rows[1]['id']}.pdb").unlink()
    (made / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def run(folder: Path, out: Path, *words: str) -> int:
    return main(["filter", f"input={folder}", f"out={out}", *words])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_thresholds_part_the_designs_with_reasons(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "out", "min.plddt=70", "max.longest_run=3") == 0
    passed, rejected = rows_of(tmp_path / "out" / "designs.csv"), rows_of(tmp_path / "out" / "rejected.csv")
    assert len(passed) + len(rejected) == 24 and passed and rejected
    assert all(float(row["plddt"]) >= 70 and float(row["longest_run"]) <= 3 for row in passed)
    for row in rejected:
        low, long = float(row["plddt"]) < 70, float(row["longest_run"]) > 3
        assert (("plddt=" in row["reasons"]), ("longest_run=" in row["reasons"])) == (low, long)
        assert not low or row["reasons"].startswith(f"plddt={float(row['plddt']):g} < 70")


def test_the_shortlist_is_a_score_folder_and_a_fasta_file(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "out", "min.plddt=60") == 0
    samples = read_fasta(tmp_path / "out" / "designs.fasta").samples
    designs = read_designs(tmp_path / "out")
    assert [s.id for s in samples] == [d.id for d in designs]
    assert samples[0].info["plddt"] == designs[0].confidence
    assert designs[0].pdb is not None and designs[0].residues is not None
    assert "report" not in samples[0].info and (tmp_path / "out" / "report.html").is_file()


def test_the_best_n_are_not_alike(folder: Path, tmp_path: Path) -> None:
    best = [d.id for d in read_designs(folder)]
    assert run(folder, tmp_path / "out", "top=3") == 0
    assert [row["id"] for row in rows_of(tmp_path / "out" / "designs.csv")] == [best[0], best[2], best[3]]
    reasons = {row["id"]: row["reasons"] for row in rows_of(tmp_path / "out" / "rejected.csv")}
    assert f"% identical to {best[0]}, which is better" in reasons[best[1]]
    assert reasons[best[4]] == "not among the best 3"


def test_another_order(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "out", "top=4", "sort=nn_identity", "diversity=1") == 0
    kept = [float(row["nn_identity"]) for row in rows_of(tmp_path / "out" / "designs.csv")]
    every = sorted(d.number("nn_identity") or 0 for d in read_designs(folder))
    assert kept == pytest.approx(every[:4])


def test_a_preset_leaves_out_what_was_not_scored_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "out", "preset=lenient", "min.plddt=72") == 0
    told = capsys.readouterr().err
    assert "preset: max.top_share=0.35 is left out, as no design has a top_share" in told
    assert "min.plddt=72" in told and "min.plddt=50" not in told  # the user's own goes before the preset's
    assert "designs pass (failing by column: plddt" in told


def test_presets_become_stricter() -> None:
    for loose, tight in (("lenient", "standard"), ("standard", "strict")):
        assert all(PRESETS[tight]["min"][name] > value for name, value in PRESETS[loose]["min"].items())
        assert all(PRESETS[tight]["max"][name] < value for name, value in PRESETS[loose]["max"].items())


def test_where_nothing_passes_the_reasons_are_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "out", "min.plddt=99.9") == 1
    assert "no design passes. The reasons are in" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "out" / "rejected.csv")) == 24
    assert not (tmp_path / "out" / "designs.fasta").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to filter by: give preset=standard"),
        (["preset=stric"], "unknown preset 'stric'. Did you mean 'strict'"),
        (["min.pldtt=70"], "unknown column 'pldtt' (min.pldtt). Did you mean 'plddt'"),
        (["min.model=3"], "min.model: the column 'model' is not a number"),
        (["min.plddt=high"], "min.plddt='high' is not a number"),
        (["top=0"], "top=0 is out of range"),
        (["top=1", "diversity=70"], "diversity=70.0 is out of range"),
        (["top=1", "sort=gravy"], "sort=gravy: whether more is better is not known"),
        (["top=1", "sort=nothing"], "unknown column 'nothing' (sort)"),
    ],
)
def test_bad_input(
    words: list[str], told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "out", *words) == 2
    printed = capsys.readouterr()
    assert told in printed.err and not printed.out


def test_folders_that_are_wrong(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "top=3"]) == 2
    assert "input is missing: give input=<output folder of score>" in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "out", "top=3") == 2
    assert "there is no scores.jsonl in it" in capsys.readouterr().err
    assert run(folder, folder, "top=3") == 2
    assert "is the folder of the scores. Name another one" in capsys.readouterr().err


def test_from_python(folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"min.plddt": 60, "top": 2}
    kept = didi_core.shortlist(folder, out=tmp_path / "out", **given)
    assert len(kept.rows) == 2 and kept.folder == tmp_path / "out"
    with pytest.raises(InputError, match="min.plddt=nan is not a number"):
        ProteinFilter(min={"plddt": float("nan")})


def test_an_order_of_nothing_scored_is_not_called_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without scores the first designs of the file are taken, and nothing says that they are the best."""
    rows = [{"id": name, "sequence": "MKTAYIAKQRQISFVK"} for name in ("a", "b")]
    rows.append({"id": "c", "sequence": "GGGGLLLLPPPPWWWW"})
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored/scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(tmp_path / "scored", tmp_path / "out", "top=1") == 0
    told = capsys.readouterr().err
    assert "3 of 3 designs pass; there are no thresholds; 1 of them is kept" in told
    assert "; in the order of the file" in told
    reasons = [row["reasons"] for row in rows_of(tmp_path / "out" / "rejected.csv")]
    assert reasons == ["not among the first 1", "not among the first 1"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "In the order of the file; a click" in page and "ost confident" not in page


def test_the_page_keeps_the_order_of_the_shortlist(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "out", "top=4", "sort=nn_identity", "diversity=1") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    places = [page.index(f">{row['id']}</") for row in rows_of(tmp_path / "out" / "designs.csv")]
    assert places == sorted(places) and "In order of nn_identity, the best first; a click" in page


def test_a_preset_says_which_mean_it_asks_of(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path / "out", "preset=lenient") == 0
    assert "min.plddt=50 asks of the mean over all atoms (plddt_ca is that over CA atoms)" in capsys.readouterr().err


def test_a_reason_shows_how_a_value_misses_its_limit() -> None:
    assert Threshold("plddt", "min", 70.0).reason({"plddt": 69.9999999}) == "plddt=69.9999999 < 70"
