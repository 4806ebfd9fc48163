"""A command that refuses its input leaves no folder behind, and nothing of what was there before is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from score_folder import score_folder

from didi_core.cli import main
from didi_core.errors import DidiError, InputError
from didi_core.storage.run_dir import LOCK, RECORD, RunDirectory


@pytest.mark.parametrize(
    "words",
    [
        ["filter", "preset=nope"],
        ["filter", "preset=none", "max.nothing_of_the_kind=3"],
        ["score", "fold=nope"],
        ["score", "fold=none", "reference=absent.fasta"],
        ["score", "fold=none", "structures=absent"],
    ],
    ids=" ".join,
)
def test_a_refused_command_leaves_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored, designs, work = score_folder(tmp_path / "scored"), tmp_path / "designs.fasta", tmp_path / "work"
    designs.write_text(">a\nMKTAYIAKQRQISFVKSHFSRQ\n")
    work.mkdir()
    monkeypatch.chdir(work)
    given = scored if words[0] == "filter" else designs
    assert main([*words, f"input={given}"]) == 2
    assert main([*words, f"input={given}", "out=a/b/c"]) == 2
    assert not [*work.iterdir()], capsys.readouterr().err


def refused(folder: Path) -> None:
    """Open a run in a folder, and refuse its input."""
    with pytest.raises(InputError, match="no such law"), RunDirectory.open(folder, {"a": 1}):
        raise InputError("no such law")


def test_folders_that_were_there_before_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    refused(tmp_path / "there" / "a" / "run")
    refused(tmp_path / "there")
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


def test_what_a_run_wrote_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError), RunDirectory.open(tmp_path / "run", {"a": 1}) as run:
        (run.path / "samples.fasta").write_text(">a\nM\n")
        raise InputError("the disk of the second file is absent")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK, RECORD, "samples.fasta"}


def test_an_earlier_run_is_not_withdrawn(tmp_path: Path) -> None:
    """One that was killed before it wrote anything else, too."""
    with RunDirectory.open(tmp_path / "run", {"a": 1}):
        pass
    refused(tmp_path / "run")
    assert (tmp_path / "run" / RECORD).is_file()


def test_what_failed_for_another_reason_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(DidiError), RunDirectory.open(tmp_path / "run", {"a": 1}):
        raise DidiError("no design passes")
    assert (tmp_path / "run" / RECORD).is_file()


def test_the_place_can_be_used_at_once(tmp_path: Path) -> None:
    refused(tmp_path / "run")
    with RunDirectory.open(tmp_path / "run", {"a": 2}) as run:
        assert run.record["config"] == {"a": 2}
