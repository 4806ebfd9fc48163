"""docs/plugins.md: its code runs as it stands, its numbers are true, and no hook or member is missing from it."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from didi_core import sequences
from didi_core.domain import abilities
from didi_core.plugins.checks import HOOKS
from didi_core.plugins.kinds import KINDS, members
from didi_core.types import Domain

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"```(\w+) ?(\S*)\n(.*?)```", PAGE, re.DOTALL)  # language, file, text
FILES = {name: text for _, name, text in BLOCKS if name}
COMMANDS = [line for kind, _, text in BLOCKS if kind == "bash" for line in text.splitlines()]


def test_every_hook_is_in_the_reference() -> None:
    assert not {hook for hook in HOOKS if f"| `{hook}` |" not in PAGE}


PROTOCOLS = [kind.protocol for name, kind in KINDS.items() if name != "configs"]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.__name__)
def test_every_member_of_a_protocol_is_in_the_reference(protocol: type) -> None:
    assert members(protocol)
    assert not {name for name in members(protocol) if f"`{name}`" not in PAGE}


def test_what_an_alphabet_domain_adds_is_in_the_reference() -> None:
    data = {"readings", "samples", "splits"}  # what a domain has read, not for replacing
    own = {name for name in vars(sequences.AlphabetDomain) if not name.startswith("_")} - data
    assert not {name for name in own - {*members(Domain)} if f"`{name}`" not in PAGE}


def test_every_ability_of_a_domain_is_in_the_reference() -> None:
    known = {name: thing for name, thing in vars(abilities).items() if getattr(thing, "_is_protocol", False)}
    known.pop("Protocol")
    assert len(known) >= 7
    for name, protocol in known.items():
        assert f"``{name}``" in (abilities.__doc__ or "") and f"`{name}`" in PAGE
        assert not {member for member in {*members(protocol)} - {"name"} if f"`{member}`" not in PAGE}


def test_number_of_lines_is_as_stated_and_under_sixty() -> None:
    lines = [line for text in FILES.values() for line in text.splitlines() if line.strip()]
    assert f"are {len(lines)} lines" in " ".join(PAGE.split())
    assert len(lines) < 60


def computed() -> float:
    """Seconds that the processes started from here have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_the_tutorial_runs_in_a_fresh_folder(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    points = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]["didi.plugins"]
    info = tmp_path / "site" / "didi_brackets-0.1.0.dist-info"  # what pip install -e . leaves behind
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: didi-brackets\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[didi.plugins]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    environment = os.environ | {"PYTHONPATH": f"{info.parent}:{folder}", "HF_HUB_OFFLINE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    assert COMMANDS[0] == "pip install -e ."
    spent = {}
    for command in COMMANDS[1:]:
        started, before = time.monotonic(), computed()
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        spent[command.partition("didi_core ")[2].split(" ")[0]] = computed() - before
        print(f"{time.monotonic() - started:.1f} s: {command}")
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        if command.endswith("plugins"):
            assert "didi-brackets" in done.stdout
    # Of processor time, so that the machine's other work does not count.
    assert sum(spent[name] for name in ("distill", "sample", "evaluate")) < 120, spent
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 5
    assert (folder / "report" / "report.html").is_file()
