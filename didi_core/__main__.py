"""``python -m didi_core``."""

from __future__ import annotations

import sys

from didi_core.cli import main


def run() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
