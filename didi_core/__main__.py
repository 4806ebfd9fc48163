"""``python -m didi_core``, and the program ``didi``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))  # a user's datasets.py or token.py must not shadow a library

from didi_core.cli import main
from didi_core.processes import leave
from didi_core.training.stopping import end_like_ctrl_c


def run() -> None:
    """Run the command line and exit with its code; a reader that closes the pipe (``| head``) causes no message."""
    end_like_ctrl_c()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
        code = 1
    leave(code)


if __name__ == "__main__":
    run()
