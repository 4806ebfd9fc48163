"""``python -m didi_dna``: train the teacher in the folder where ``teacher=bundled`` looks. Other words are settings."""

from __future__ import annotations

import sys

from didi_core.cli import main

from .domain import teacher_folder

if __name__ == "__main__":
    sys.exit(main(["pretrain", "domain=dna", f"run_dir={teacher_folder()}", *sys.argv[1:]]))
