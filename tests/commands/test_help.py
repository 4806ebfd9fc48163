"""The help of a command, which the site shows too, says what every key means."""

from __future__ import annotations

import re

import pytest

from didi_core.commands import COMMANDS
from didi_core.commands.explain import comments_of, explained
from didi_core.commands.groups import OF_PRETRAIN
from didi_core.config import config_folder

FILES = sorted((config_folder() / "objective").glob("*.yaml"))
KINDS = [path.stem for path in FILES if f"  kind: {path.stem}" in path.read_text(encoding="utf-8")]
SHOWN = [
    *((name,) for name, command in COMMANDS.items() if command.configured),
    *(("distill", f"domain={name}") for name in ("language", "toy")),
    *(("pretrain" if name in OF_PRETRAIN else "distill", f"objective={name}") for name in KINDS),
    ("pretrain", "objective=autoregressive", "model=judge"),
]


def without_meaning(told: str) -> list[str]:
    """The rows of a help that name a key and do not say what it is."""
    blocks = [block for block in told.split("\n\n") if not block.startswith("groups, ")]
    rows = [row for block in blocks for row in block.splitlines() if re.match(r"  [\w.]+=", row)]
    assert rows
    return [row for row in rows if "  # " not in row]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_every_key_has_a_meaning(words: tuple[str, ...]) -> None:
    assert without_meaning(explained(words[0], words[1:])) == []


def test_a_key_without_one_is_found() -> None:
    assert without_meaning("  one=1      # of both\n  two=2\n\ngroups, key=choice\n  group=a | b") == ["  two=2"]


def test_sizes_of_all_models_have_a_meaning() -> None:
    for path in (config_folder() / "model").glob("*.yaml"):
        keys = re.findall(r"^(\w+):", path.read_text(encoding="utf-8"), re.M)
        assert {*keys} == {*comments_of(path)}, path.name
