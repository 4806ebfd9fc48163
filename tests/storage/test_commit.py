"""The commit in a run's record: git is asked, and nothing in the repository changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from didi_core.storage import run_dir

AS_SOMEONE = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_asking_for_changes_leaves_the_repository_as_it_is(tmp_path: Path) -> None:
    """Else a run that is killed, or whose files may not grow, leaves a lock that stops the user's own git."""
    (tmp_path / "code.py").write_text("one = 1\n")
    for words in (["init", "-q"], ["add", "."], [*AS_SOMEONE, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    os.utime(tmp_path / "code.py", (1, 1))  # git would write the new time into its index
    before = (tmp_path / ".git" / "index").read_bytes()
    assert run_dir._git(tmp_path, "status", "--porcelain", "--untracked-files=no") == ""
    assert (tmp_path / ".git" / "index").read_bytes() == before
    subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, check=True)
    assert (tmp_path / ".git" / "index").read_bytes() != before, "git's own status does write: this test can fail"
