"""A run is read from any working directory: its relative paths are those of the folder in which its command ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from didi_core.commands.common import about_domain
from didi_core.commands.evaluate import _made_by
from didi_core.commands.places import placed_config
from didi_core.storage.run_dir import RunDirectory
from didi_toy import ToyDomain


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


def test_a_run_is_evaluated_with_the_files_of_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with those of the same name that lie where the evaluation is made."""
    work, other = tmp_path / "my work", tmp_path / "other"
    for folder in (work, other):
        folder.mkdir()
        (folder / "a.txt").touch()
    monkeypatch.chdir(work)
    with RunDirectory.open(Path("student"), config(path="a.txt")) as run:
        (run.path / "model").mkdir()
    monkeypatch.chdir(other)
    assert _made_by(Path("../my work/student/model"))["data"] == {"path": str(work / "a.txt")}
    with RunDirectory.open(Path("../my work/student"), config(path="a.txt")):
        pass
    assert _made_by(Path("../my work/student/model"))["data"] == {"path": str(other / "a.txt")}, "continued from here"
