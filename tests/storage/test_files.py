"""Files that are complete or absent, with the user's own permissions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from didi_core.errors import InputError
from didi_core.storage.files import inside, write_atomic


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
