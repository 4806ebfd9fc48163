"""Programs of the user's that are run beside ours: MMseqs2, Foldseek, inverse folding."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from didi_core.errors import InputError


def output_of(words: Sequence[str], shown: str, folder: Path | None = None, lines: int = 1) -> str:
    """What a program writes on stdout.

    Args:
        shown: the call in a message. folder: that it runs in. lines: of what a failing program wrote last, for the
            message.

    Raises:
        InputError: it fails.
    """
    done = subprocess.run(list(words), cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        written = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = " / ".join(line.strip() for line in written[-lines:]) or f"exit code {done.returncode}"
        raise InputError(f"{shown} failed ({last}).")
    return done.stdout
