"""docs/extending.md: its plugins run as they stand, its numbers are true, and no hook or member is missing from it."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
import time
import tomllib
import types
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from didi_core import sequences, testing
from didi_core.domain import abilities
from didi_core.plugins.checks import HOOKS, check_hooks
from didi_core.plugins.kinds import KINDS, members
from didi_core.types import Domain

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()


@dataclass(frozen=True)
class Section:
    """A section of the page: the files that it shows and the commands that it runs."""

    title: str
    text: str

    @cached_property
    def files(self) -> dict[str, str]:
        return dict(re.findall(r"```\w+ (\S+)\n(.*?)```", self.text, re.DOTALL))

    @property
    def commands(self) -> list[str]:
        blocks = re.findall(r"```bash\n(.*?)```", self.text.replace("\\\n", ""), re.DOTALL)
        return [line for block in blocks for line in block.splitlines()]

    @property
    def module(self) -> str:
        """Name of the plugin's only module."""
        (name,) = self.files
        return name.removesuffix(".py")


SECTIONS = {t: Section(t, text) for t, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)}
IDEAS = [s for s in SECTIONS.values() if s.files and s.title not in ("Packaging", "A domain")]
TUTORIAL = SECTIONS["A domain"]
ROWS = re.findall(r"^\| \[(.+?)\]\(#.+?\) \| (\d+) \| (\d+) \| (\d+) \|", PAGE, re.M)


def imported(code: str) -> int:
    """Number of the core's modules that a file imports from."""
    found = [node.module for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    return len({name for name in found if name and name.startswith("didi_core")})


def lines(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip()])


def test_every_idea_is_one_file_and_the_table_says_its_size() -> None:
    assert len(IDEAS) == 6
    told = {name: (int(size), int(touched), int(read)) for name, size, touched, read in ROWS}
    for section in IDEAS:
        (code,) = section.files.values()
        assert told[section.title] == (lines(code), 1, imported(code))


@pytest.mark.parametrize("section", IDEAS, ids=lambda section: section.module)
def test_plugin_of_the_page_passes_the_kit(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(section.module)
    monkeypatch.setitem(sys.modules, section.module, module)  # where dataclasses look for it
    exec(compile(*section.files.values(), section.module, "exec"), vars(module))
    check_hooks(module)
    offers: list[tuple[Any, Any]] = []
    for kind in KINDS.values():
        if hasattr(module, kind.hook):
            offers += [(kind, thing) for thing in kind.offers(getattr(module, kind.hook)()).values()]
    assert offers
    for kind, thing in offers:
        getattr(testing, kind.conformance)(thing() if isinstance(thing, type) else thing)


def test_every_hook_is_in_the_reference() -> None:
    assert not {hook for hook in HOOKS if f"| `{hook}` |" not in PAGE}


PROTOCOLS = [kind.protocol for name, kind in KINDS.items() if name != "configs"]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.__name__)
def test_every_member_of_a_protocol_is_in_the_reference(protocol: type) -> None:
    assert members(protocol)
    assert not {name for name in members(protocol) if f"`{name}`" not in PAGE}


def test_every_kind_to_start_from_is_named() -> None:
    from didi_core.commands.new_plugin import SCAFFOLDS

    assert f"(kinds: {', '.join(SCAFFOLDS)})" in PAGE


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


def test_number_of_lines_of_the_domain_is_as_stated_and_under_sixty() -> None:
    total = sum(map(lines, TUTORIAL.files.values()))
    assert f"are {total} lines" in " ".join(PAGE.split())
    assert total < 60


def installed(folder: Path, packaging: str) -> dict[str, str]:
    """The environment in which a folder with this pyproject.toml is installed: what ``pip install -e .`` leaves."""
    project = tomllib.loads(packaging)["project"]
    info = folder.parent / "site" / f"{project['name'].replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    points = project["entry-points"]["didi.plugins"]
    (info / "entry_points.txt").write_text("[didi.plugins]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    paths = [str(info.parent), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return environment


def computed() -> float:
    """Seconds that the processes started from here have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_all(section: Section, folder: Path, packaging: str, commands: list[str]) -> dict[str, float]:
    """Write the files, run the commands; returns the seconds of computing by command of didi_core."""
    for name, text in section.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environment, spent = installed(folder, packaging), {}
    for command in commands:
        started, before = time.monotonic(), computed()
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        spent[command.partition("didi_core ")[2].split(" ")[0]] = computed() - before
        print(f"{time.monotonic() - started:.1f} s: {command}")
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        if command.endswith("plugins"):
            assert tomllib.loads(packaging)["project"]["name"] in done.stdout
    return spent


@pytest.mark.slow
@pytest.mark.parametrize("section", IDEAS, ids=lambda section: section.module)
def test_plugin_of_the_page_is_installed_and_runs(section: Section, tmp_path: Path) -> None:
    shown = SECTIONS["Packaging"].files["pyproject.toml"]
    packaging = shown.replace("left_to_right", section.module).replace("left-to-right", section.module)
    spent = run_all(section, tmp_path / "fresh", packaging, ["python -m didi_core plugins", *section.commands])
    assert "distill" in spent


@pytest.mark.slow
def test_the_domain_of_the_page_is_installed_and_runs(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    assert TUTORIAL.commands[0] == "pip install -e ."
    spent = run_all(TUTORIAL, folder, TUTORIAL.files["pyproject.toml"], TUTORIAL.commands[1:])
    # Of processor time, so that the machine's other work does not count.
    assert sum(spent[name] for name in ("distill", "sample", "evaluate")) < 120, spent
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 5
    assert (folder / "report" / "report.html").is_file()
