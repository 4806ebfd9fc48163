"""A run is read from any working directory: its relative paths are those of the folder in which its command ran."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from didi_core.cli import main
from didi_core.commands.common import about_domain
from didi_core.commands.places import placed_config
from didi_toy import ToyDomain

SMALL = ["training.steps=2", "training.batch_size=8"]


def config(**data: Any) -> dict[str, Any]:
    return {"teacher": "runs/teacher", "cache": None, "data": data}


def test_paths_of_a_run_are_those_of_its_working_directory(tmp_path: Path) -> None:
    for name in ("runs/teacher", "tok", "text", "bundled"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a.txt").touch()
    given = config(path=["a.txt", "owner/set"], tokenizer="tok", judge="bundled", column="text", length=8)
    found = placed_config({"config": given, "working_directory": str(tmp_path)})
    assert found["teacher"] == str(tmp_path / "runs/teacher") and found["cache"] is None
    assert found["data"] == {
        "path": [str(tmp_path / "a.txt"), "owner/set"], "tokenizer": str(tmp_path / "tok"), "judge": "bundled",
        "column": "text", "length": 8,
    }  # fmt: skip


@pytest.mark.parametrize("record", [{}, {"working_directory": None}, {"working_directory": "/no/such/folder"}])
def test_without_that_directory_they_stay(record: dict[str, Any]) -> None:
    assert placed_config({"config": config(path="a.txt"), **record}) == config(path="a.txt")
    assert placed_config({"config": {"command": "sample"}, **record}) == {"command": "sample"}


def test_a_card_names_a_tokenizer_of_this_machine_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my tok").mkdir()
    card = about_domain(ToyDomain(), {"tokenizer": "my tok", "judge": "gpt2", "path": "x.txt", "length": 4})
    assert card["data"] == {"tokenizer": str(tmp_path / "my tok"), "judge": "gpt2", "length": 4}


def test_a_student_is_evaluated_from_another_folder_with_the_teacher_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, other = tmp_path / "my work", tmp_path / "other"
    (other / "teacher").mkdir(parents=True)  # what has the same name here is not meant
    work.mkdir()
    monkeypatch.chdir(work)
    assert main(["pretrain", "domain=toy", "model=micro", "validation_batches=1", *SMALL, "run_dir=teacher"]) == 0
    made = ["distill", "domain=toy", "teacher=teacher", "objective=cross_entropy", *SMALL, "evaluate.enabled=false"]
    assert main([*made, "run_dir=student"]) == 0
    assert json.loads((work / "student/run.json").read_text())["working_directory"] == os.getcwd()
    monkeypatch.chdir(other)
    few = ["num=4", "steps=[2]", "teacher_steps=[2]", "temperatures=[1.0]"]
    assert main(["evaluate", "run=../my work/student", *few, "out=report"]) == 0, capsys.readouterr().err
    rows = json.loads((other / "report/report.json").read_text())["rows"]
    assert {"teacher", "student"} <= {row["model"] for row in rows}
