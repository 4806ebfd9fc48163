"""docs/architecture.md: its picture is what the layer test enforces, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from test_layers import LAYERS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_picture_has_the_layers_of_the_test() -> None:
    rows = re.findall(r"^ ?(\d+)  (.+?)(?:   +.*)?$", PAGE.split("```")[1], re.M)
    shown = {name: int(number) for number, names in rows for name in names.split("  ")}
    assert shown == LAYERS


def test_files_that_it_names_are_there() -> None:
    named = {name for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", PAGE) if "/" in name or name.endswith(".py")}
    assert len(named) > 30
    assert not {name for name in named if not any((ROOT / top / name).exists() for top in ("", "didi_core"))}


def test_functions_that_it_names_are_in_their_files() -> None:
    named = re.findall(r"`([\w/]+\.py)`, `(\w+(?:\.\w+)?)`", PAGE)
    named = [(file, name) for file, name in named if not name.endswith(".py")]
    assert len(named) >= 5
    for file, name in named:
        place = next(ROOT / top / file for top in ("", "didi_core") if (ROOT / top / file).exists())
        assert re.search(rf"\b(def|class) {name.rpartition('.')[2]}\b", place.read_text()), (file, name)
