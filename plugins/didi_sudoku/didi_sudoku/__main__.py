"""``python -m didi_sudoku``: train the teacher, where ``teacher=bundled`` looks for it. Further words are settings."""

from __future__ import annotations

import sys

from didi_core.cli import main

from .domain import teacher_folder

if __name__ == "__main__":
    sys.exit(main(["pretrain", "domain=sudoku", f"run_dir={teacher_folder()}", *sys.argv[1:]]))
