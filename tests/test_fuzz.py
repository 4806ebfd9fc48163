"""Readers and parsers on mutated inputs: each one is read, or refused with an InputError, and terminates.

A good input of every kind is mutated: bytes are changed, pieces deleted, repeated and put in from a list of what has
hurt parsers before, values of JSON replaced. The fast suite tries some of each; ``pytest -m heavy -s`` tries many, for
DIDI_FUZZ_SECONDS and with another DIDI_FUZZ_SEED, and prints how many.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzzing.mutations import as_bytes, tried
from fuzzing.networks import NETWORKS
from fuzzing.records import RECORDS
from fuzzing.texts import TEXTS, TYPED
from fuzzing.whole import COMMAND_CASES

from didi_core.commands import COMMANDS
from didi_core.commands.compose import compose_jobs
from didi_core.commands.merging import Merging
from didi_core.commands.setting import parse
from didi_core.config import build, flatten

CASES = {**TEXTS, **NETWORKS, **RECORDS, **COMMAND_CASES}
FEW, COSTLY, AT_ONCE = 4, 1, 25  # inputs of a case in the fast suite, of a costly one, and in a turn of the long one
SECONDS, SEED = float(os.environ.get("DIDI_FUZZ_SECONDS", "180")), int(os.environ.get("DIDI_FUZZ_SEED", "1"))


def try_files(name: str, folder: Path, count: int, seed: int, first: int = 0) -> Counter[str]:
    """Mutations of the case's file; the folder is new for each, as some readers write into it."""
    case, good, used = CASES[name], folder / "good", folder / "used"
    if not good.exists():
        good.mkdir(parents=True)
        case.make(good)
        shutil.copytree(good, used)
        case.read(used)  # what is mutated is good
    content = (good / case.file).read_bytes()

    def make(random: np.random.Generator) -> Callable[[], object]:
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(good, used)
        (used / case.file).write_bytes(case.mutate(random, content))
        case.mended(used)
        return lambda: case.read(used)

    return tried(name, make, count, seed, first)


def try_typed(name: str, count: int, seed: int, first: int = 0) -> Counter[str]:
    good, parse = TYPED[name]
    parse(good)

    def make(random: np.random.Generator) -> Callable[[], object]:
        text = as_bytes(random, good.encode()).decode("utf-8", "replace")
        return lambda: parse(text)

    return tried(name, make, count, seed, first)


@pytest.mark.parametrize("name", CASES)
def test_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    assert {*try_files(name, tmp_path, COSTLY if CASES[name].costly else FEW, 0)} <= {"read", "refused"}


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_is_read_or_refused(name: str) -> None:
    assert {*try_typed(name, FEW, 0)} <= {"read", "refused"}


@pytest.mark.heavy
def test_many_inputs_are_read_or_refused(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    started, first = time.monotonic(), 0
    while time.monotonic() - started < SECONDS:
        for name in CASES:
            count = COSTLY if CASES[name].costly else AT_ONCE
            ends += try_files(name, tmp_path / name.replace(" ", "_"), count, SEED, first)
        for name in TYPED:
            ends += try_typed(name, AT_ONCE, SEED, first)
        first += AT_ONCE
    print(f"{ends.total():,} inputs: {dict(ends)}")
    assert {*ends} <= {"read", "refused"}


VALUES = [
    "nan", "inf", "9" * 30, "9" * 5000, "", "null", "[1]", "{a: 1}", "1.5", "-1", "true", "x", "[]", "[[1]]", "{}",
    "1e400",
    "٣", "[x,y]", "{kind: x}", "[null]", "'", "[", "a,b", "~", "\u2028",
]  # fmt: skip
COMMAND_LINES = {
    "distill": ["domain=toy", "objective=didi"], "pretrain": ["domain=toy"], "sample": ["run=x"], "score": ["input=x"],
    "filter": ["input=x", "top=3"], "evaluate": ["run=x"], "import": ["source=x"], "report": ["compare=[a,b]"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_a_strange_value_of_any_key_fits_or_is_refused(command: str) -> None:
    config = compose_jobs(command, COMMAND_LINES[command])[0].config
    keys = [key for key in flatten(config) if key != "data"]

    def make(random: np.random.Generator) -> Callable[[], object]:
        word = f"{keys[int(random.integers(len(keys)))]}={VALUES[int(random.integers(len(VALUES)))]}"

        def given() -> None:
            merging = Merging(command, copy.deepcopy(config))
            merging.apply(parse(word))
            build(COMMANDS[command].settings, merging.config)

        return given

    assert {*tried(command, make, 60, 0)} <= {"read", "refused"}
