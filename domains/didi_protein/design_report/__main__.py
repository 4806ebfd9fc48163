"""``python -m didi_protein.design_report FOLDER``: the report of a folder of scored designs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from didi_core.errors import DidiError, warn

from . import BEST, write_design_report


def main(arguments: list[str] | None = None) -> int:
    """Write the report. The exit code is 2 for a folder that is not a score folder."""
    parser = argparse.ArgumentParser(prog="python -m didi_protein.design_report", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="output of score: scores.jsonl, and pdb/ where designs were folded")
    parser.add_argument("--best", type=int, default=BEST, help="designs drawn residue by residue and shown in 3D")
    given = parser.parse_args(arguments)
    try:
        print(write_design_report(given.folder, {"folder": given.folder.name}, given.best))
    except DidiError as error:
        warn(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
