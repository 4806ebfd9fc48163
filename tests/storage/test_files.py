"""Files that are complete or absent, with the user's own permissions."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from didi_core.errors import InputError
from didi_core.storage.files import inside, remove_leftovers, write_atomic, write_folder


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a", "text")
        write_atomic(tmp_path / "b", lambda path: path.write_text("text") and None)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [mode, mode]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_links_may_stay_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "folder" / "near").symlink_to(tmp_path / "folder" / "file")
    (tmp_path / "folder" / "far").symlink_to(tmp_path)
    assert inside(tmp_path / "folder", "near").read_text() == "x"
    with pytest.raises(InputError, match="far is a link that leads out of"):
        inside(tmp_path / "folder", "far")


def held(path: Path) -> int:
    """A lock as a writer holds it."""
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def litter(folder: Path) -> dict[str, Path]:
    """What killed writers leave, what others have, and what a writer at work has."""
    (folder / "checkpoints").mkdir(parents=True)
    found = {
        "dead file": folder / ".run.json.0123abcd.part",
        "dead folder": folder / "checkpoints/.step_0000001.0123abcd.part",
        "older folder": folder / "checkpoints/.step_0000002.part",
        "of the user": folder / ".video.mp4.part",
        "of a browser": folder / "video.0123abcd.part",
        "of another": folder / ".notes.0123abcd.part.txt",
        "live file": folder / ".metrics.jsonl.89abcdef.part",
        "live folder": folder / ".model.89abcdef.part",
    }
    for name, path in found.items():
        if "folder" in name:
            path.mkdir()
            (path / "model.safetensors").write_text("half")
        else:
            path.write_text("half")
    return found


def test_only_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    found = litter(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.write_text("of another")
    (tmp_path / "run/.link.0123abcd.part").symlink_to(outside)
    handles = [held(found["live file"]), held(found["live folder"])]
    remove_leftovers(tmp_path / "run")
    assert sorted(name for name, path in found.items() if not path.exists()) == [
        "dead file", "dead folder", "older folder"
    ]  # fmt: skip
    assert outside.read_text() == "of another"
    for handle in handles:
        os.close(handle)
    remove_leftovers(tmp_path / "run")
    assert not found["live file"].exists() and not found["live folder"].exists()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_next_writer_of_a_name_removes_what_the_last_one_left(tmp_path: Path, folder: bool) -> None:
    others = [tmp_path / f".{name}.0123abcd.part" for name in ("out.x", "other")]
    for path in others:
        path.mkdir() if folder else path.write_text("half")
    if folder:
        write_folder(tmp_path / "out.x", lambda path: (path / "a").write_text("text") and None)
    else:
        write_atomic(tmp_path / "out.x", "text")
    assert sorted(os.listdir(tmp_path)) == [".other.0123abcd.part", "out.x"]


def test_two_writers_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        (path / "a").write_text("first")
        write_folder(tmp_path / "out", lambda other: (other / "a").write_text("second") and None)
        assert (path / "a").read_text() == "first"

    write_folder(tmp_path / "out", fill, replace=True)
    assert (tmp_path / "out/a").read_text() == "first" and os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_filled_leaves_what_was_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", lambda path: (path / "a").write_text("old") and None)

    def fail(path: Path) -> None:
        (path / "a").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "out", fail, replace=True)
    assert (tmp_path / "out/a").read_text() == "old" and os.listdir(tmp_path) == ["out"]
