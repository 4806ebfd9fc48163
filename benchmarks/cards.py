"""README.md beside every bundled model, from its card.json by the code that writes those of ``didi push``.

    python benchmarks/cards.py           # rewrites them
    python benchmarks/cards.py --check   # exit code 1 where one is not current
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from didi_core.checkpoints.weights import count_parameters
from didi_core.evaluation.wording import headed
from didi_core.report.model_card import Published, model_card
from didi_core.storage.files import write_atomic

DOMAINS = Path(__file__).parent.parent / "domains"


def bundled(root: Path = DOMAINS) -> list[Path]:
    """The folders of bundled models below a folder of domains."""
    return sorted(path.parent for path in root.glob("didi_*/assets/*/card.json"))


def readme(folder: Path) -> str:
    """The text that belongs beside a bundled model."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    name = f"{card['domain']} {folder.name}, bundled with didi_core"
    return model_card(Published(headed(name), card, count_parameters(folder / "model.safetensors")))


def outdated(folder: Path) -> bool:
    """Whether the file beside a model is missing, or says something else."""
    path = folder / "README.md"
    return not path.is_file() or path.read_text(encoding="utf-8") != readme(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    stale = [folder for folder in bundled() if outdated(folder)]
    for folder in stale:
        if not given.check:
            write_atomic(folder / "README.md", readme(folder))
        print(f"{'not current' if given.check else 'written'}: {folder / 'README.md'}")
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
