"""``python -m didi_core``, and the program ``didi``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))  # a datasets.py or token.py of the user's must not stand in for a library

from didi_core.cli import main
from didi_core.processes import leave
from didi_core.training.stopping import end_like_ctrl_c


def run() -> None:
    """Run the command line and leave with its exit code; quietly where nobody reads on (``| head``)."""
    end_like_ctrl_c()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes on its way out
        code = 1
    leave(code)


if __name__ == "__main__":
    run()
