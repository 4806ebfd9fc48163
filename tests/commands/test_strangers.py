"""Run directories, score folders, headers and words from strangers change and reveal nothing elsewhere."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from didi_core.cli import WRONG, main
from didi_core.commands.compose import _followed, compose_jobs, compose_mapping
from didi_core.errors import InputError
from didi_protein.design_report.__main__ import main as design_report
from didi_protein.design_report.designs import structure_name
from didi_protein.structures.scripts import chimerax_script

TOY = ["pretrain", "domain=toy", "model=micro", "training.batch_size=8", "validation_batches=1", "training.steps=2"]
SECRET, NAMED = "hunter2", "${oc.env:DIDI_SECRET}"
EVALUATED = ["num=4", "steps=[2]", "teacher=bundled", "teacher_steps=[2]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and a folder of scores, written under a strict umask."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "x.fasta").write_text(">=cmd() =1+1=2 note=@x n=-5\nMKTAYIAKQR\n>b note=+y\nMSDNGPQNQR\n")
    before = os.umask(0o077)
    try:
        assert main([*TOY, f"run_dir={folder / 'run'}"]) == 0
        assert main(["score", "fold=none", f"input={folder / 'x.fasta'}", f"out={folder / 'scored'}"]) == 0
        assert main(["sample", f"run={folder / 'run'}", "num=2", "steps=2", f"out={folder / 's.jsonl'}"]) == 0
        words = [f"samples={folder / 's.jsonl'}", "domain=toy", "num=4", f"out={folder / 'measured'}"]
        assert main(["evaluate", *words]) == 0
        assert main(["export", f"run={folder / 'run'}", f"out={folder / 'exported'}"]) == 0
    finally:
        os.umask(before)
    return folder


def test_files_belong_to_their_user_alone_under_a_strict_umask(made: Path) -> None:
    found = {path: path.stat().st_mode & 0o077 for path in made.rglob("*") if path.name != "x.fasta"}
    assert len(found) > 30 and not [str(path) for path, mode in found.items() if mode]


LINKED = ["metrics.jsonl", "run.json", ".lock", "error.log", "checkpoints", "plots", "model/deep"]


@pytest.mark.parametrize("name", LINKED)
def test_a_link_out_of_a_run_directory_is_refused(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / name) if (tmp_path / "run" / name).is_dir() else None
    (tmp_path / "run" / name).unlink(missing_ok=True)
    victim = tmp_path / "victim"
    if name in ("checkpoints", "plots"):
        victim.mkdir()
    else:
        victim.write_text('{"step": 1}\n')
    (tmp_path / "run" / name).symlink_to(victim)
    assert main([*TOY, f"run_dir={tmp_path / 'run'}"]) == WRONG
    told = capsys.readouterr().err
    assert f"{name} is a link that leads out of {tmp_path / 'run'}" in told and "Traceback" not in told
    assert os.listdir(victim) == [] if victim.is_dir() else victim.read_text() == '{"step": 1}\n'


def test_links_within_a_run_directory_and_to_it_are_followed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    (tmp_path / "run/kept").mkdir()
    (tmp_path / "run/metrics.jsonl").rename(tmp_path / "run/kept/metrics.jsonl")
    (tmp_path / "run/metrics.jsonl").symlink_to("kept/metrics.jsonl")
    (tmp_path / "by_name").symlink_to(tmp_path / "run")
    assert main([*TOY, f"run_dir={tmp_path / 'by_name'}"]) == 0


@pytest.mark.parametrize("name", ["scores.jsonl", "plots", "report.html", "parts"])
def test_a_link_out_of_a_score_folder_is_refused(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = tmp_path / "scored"
    shutil.copytree(made / "scored", scored)
    shutil.move(scored / name, tmp_path / "victim")
    (scored / name).symlink_to(tmp_path / "victim")
    found = [tmp_path / "victim", *(tmp_path / "victim").rglob("*")]
    before = {path: path.read_bytes() for path in found if path.is_file()}
    assert design_report([str(scored)]) == WRONG
    assert main(["score", "fold=none", f"input={made / 'x.fasta'}", f"out={scored}"]) == WRONG
    assert capsys.readouterr().err.count(f"{name} is a link that leads out of") == 2
    assert {path: path.read_bytes() for path in before} == before


def test_results_that_are_kept_with_a_run_stay_in_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    (tmp_path / "victim").mkdir()
    (tmp_path / "run/evaluation").symlink_to(tmp_path / "victim")
    assert main(["evaluate", f"run={tmp_path / 'run'}", *EVALUATED, f"out={tmp_path / 'out'}"]) == WRONG
    assert "evaluation is a link that leads out of" in capsys.readouterr().err
    assert os.listdir(tmp_path / "victim") == []


def test_no_cell_is_a_formula(made: Path) -> None:
    with (made / "scored/scores.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    cells = [cell for row in (names, *rows) for cell in row]
    numbers = [cell for cell in cells if cell.lstrip("+-").replace(".", "").replace("e-", "").isdigit()]
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r\n" and cell and cell not in numbers]
    assert {"'=cmd()", "'@x", "'+y"} <= {*cells}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_whatever_a_spreadsheet_computes_is_a_text(start: str, tmp_path: Path) -> None:
    from didi_protein.scoring.table import write_table

    write_table(tmp_path, [{"id": f"{start}1+1", f"{start}x": f"{start}A1", "v": -1.5}])
    with (tmp_path / "scores.csv").open(newline="") as file:
        names, row = csv.reader(file)
    shown = start.replace("\r", "\n")
    assert names == ["id", f"'{shown}x", "v"] and row == [f"'{shown}1+1", f"'{shown}A1", "-1.5"]
    assert json.loads((tmp_path / "scores.jsonl").read_text())["id"] == f"{start}1+1"


def test_a_name_ends_no_string_of_a_script() -> None:
    hostile = 'a" ; open http://example.org/x.cxc ; "'
    lines = chimerax_script([hostile], {}, {}).split("\n")
    assert [line.count('"') for line in lines if line.startswith("open")] == [2]
    assert '"' not in structure_name(hostile) and "/" not in structure_name(hostile)


WORDS: list[list[str]] = [
    ["distill", "domain=protein", f"data.path={NAMED}"],
    ["distill", "domain=protein", f"teacher={NAMED}", f"cache={NAMED}", f"run_dir={NAMED}"],
    ["distill", "domain=protein", f"+data.x=['{NAMED}', a]"],
    ["distill", "domain=protein", f"+data.x={{a: '{NAMED}'}}"],
    ["distill", "domain=protein", "data.path=${oc.decode:${oc.env:DIDI_SECRET}}"],
    ["sample", f"run={NAMED}", f"prompt={NAMED}", f"template={NAMED}"],
    ["score", f"input={NAMED}", f"labels=['{NAMED}']"],
    ["evaluate", f"samples=['{NAMED}']", "domain=toy", f"labels=['{NAMED}']"],
    ["import", f"source={NAMED}", "domain=toy"],
]


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words)[:40])
def test_the_environment_is_not_read_by_a_word(
    words: list[str], sweep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDI_SECRET", SECRET)
    (job,) = compose_jobs(words[0], words[1:], sweep)
    assert SECRET not in repr(job) and "DIDI_SECRET" in repr(job.config)


@pytest.mark.parametrize(
    "given",
    [{"data": {"path": NAMED}}, {"data.path": NAMED}, {"data": {"path": [NAMED]}}, {"teacher": NAMED}],
)
def test_nor_by_a_value_from_python(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDI_SECRET", SECRET)
    job = compose_mapping("distill", {"domain": "protein", **given})
    assert SECRET not in repr(job) and NAMED in repr(job.config)


@pytest.mark.parametrize("text", [NAMED, f"a{NAMED}", f"\\{NAMED}", f"\\\\{NAMED}", "${seed}"])
def test_nor_where_a_file_refers_to_what_a_user_typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDI_SECRET", SECRET)
    base = {"here": "${there}", "there": "x", "seed": 3}
    assert _followed({**base, "there": text}, base)["here"] == text


def test_nor_written_into_what_a_command_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDI_SECRET", SECRET)
    (tmp_path / "x.fasta").write_text(f">a note={NAMED}\nMKTAYIAKQR\n")
    words = ["fold=none", f"input={tmp_path / 'x.fasta'}", f"labels=['{NAMED}']", f"out={tmp_path / 'out'}"]
    assert main(["score", *words]) == 0
    texts = [path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [text for text in texts if SECRET in text]
    assert NAMED in (tmp_path / "out/run.json").read_text() and NAMED in (tmp_path / "out/scores.csv").read_text()


SEARCHED = [
    "hydra.searchpath=[file:///tmp]", "+hydra.searchpath=[x]", "++hydra.searchpath=[x]", "~hydra.searchpath",
    "hydra={searchpath: [x]}", " hydra.searchpath=[x]", "hydra .searchpath=[x]", "hydra/launcher=basic", "hydra@x=1",
    "objective@hydra.searchpath=didi", "+objective@hydra.searchpath=didi", "'hydra.searchpath'=[x]", "+defaults=[x]",
    "objective=/tmp/strange", "objective=../../strange", "/tmp/objective=strange", "+../../tmp=strange",
]  # fmt: skip


@pytest.mark.parametrize("word", SEARCHED)
def test_configurations_come_from_the_package_and_plugins_only(word: str) -> None:
    for sweep in (False, True):
        with pytest.raises(InputError):
            compose_jobs("distill", ["domain=protein", word], sweep)
