"""The site: every page is in its navigation, its made pages hold what the code has, and its figures are those of the
pages that they cite."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from didi_core.commands import COMMANDS
from didi_core.plugins.checks import HOOKS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = ("recipe.md", "objectives.md", "ablation.md", "benchmarks.md", "precision.md")


class Plain(yaml.SafeLoader):
    """Reads mkdocs.yml without the functions that its tags name."""


Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def navigation(node: Any) -> list[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(node, str):
        return [node]
    parts = node.values() if isinstance(node, dict) else node
    return [page for part in parts for page in navigation(part)]


def script(name: str) -> ModuleType:
    """A module of docs/site; skips where the site's extra is not installed."""
    pytest.importorskip("mkdocstrings", reason="the site needs the extra: pip install -e '.[docs]'")
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "site" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """docs/site/build.py."""
    return script("build")


PAGES = navigation(yaml.load((ROOT / "mkdocs.yml").read_text(), Plain)["nav"])
MADE = {"changelog.md", "contributing.md"}


def test_every_page_is_reachable_once() -> None:
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.is_relative_to(DOCS)}
    listed = [page for page in PAGES if not page.startswith("reference/") and page not in MADE]
    assert len(PAGES) == len(set(PAGES))
    assert set(listed) == there


def test_every_made_page_is_reachable(build: ModuleType) -> None:
    assert set(build.made_pages()) == {page for page in PAGES if page.startswith("reference/") or page in MADE}


def test_figures_in_cells_stay_in_one_line(build: ModuleType) -> None:
    cells = '<th>95 %</th><td style="x">−29 % [−45, −12] of 3</td><td>2.2 [2.17, 2.24]</td>'
    given = f"<table>{cells}</table><p>9 % [1, 2]</p>"
    made = build.on_page_content(given, None, None, None)
    assert made.count("&nbsp;") == 4 and "[−45,&nbsp;−12] of 3</td>" in made and made.endswith("<p>9 % [1, 2]</p>")
    assert made.replace("&nbsp;", " ") == given


def test_made_pages_have_every_command_key_objective_and_hook(build: ModuleType) -> None:
    pages = build.made_pages()
    for command in COMMANDS.values():
        assert f"## {command.name}\n" in pages["reference/commands.md"]
    for key in ("training.accumulate", "evaluate.temperatures", "objective.rollout.calls", "fold", "contig", "prompt"):
        assert f"| `{key}` |" in pages["reference/commands.md"], key
    for path in (ROOT / "configs" / "objective").glob("*.yaml"):
        assert f"| `{path.stem}` |" in pages["reference/objectives.md"]
    assert not {hook for hook in HOOKS if f"## {hook}\n" not in pages["reference/hooks.md"]}


def test_links_out_of_docs_lead_to_the_repository_or_become_names(build: ModuleType) -> None:
    text = "[a](../didi_core/types.py) [b](../CHANGELOG.md) [c](design.md#x) [d](https://example.org) ![e](../x.png)"
    assert build.outward(text, "page.md", "https://host/p") == (
        "[a](https://host/p/blob/main/didi_core/types.py) [b](changelog.md) [c](design.md#x) [d](https://example.org) "
        "![e](../x.png)"
    )
    assert build.outward("[a](../LICENSE)", "page.md", "") == "a"
    assert build.outward("[a](docs/design.md#x)", "contributing.md", "") == "[a](design.md#x)"


def test_tables_and_fields_of_docstrings_are_markdown() -> None:
    table = "===  ===\na    b\n===  ===\n1    2\n===  ==="
    text = f"Head.\n\n{table}\n\nname: of it,\n    two lines.\nlow, high: ends\n\nText: it."
    assert script("docstrings").as_markdown(text) == (
        f"Head.\n\n```text\n{table}\n```\n\n- `name`: of it,\n    two lines.\n- `low, high`: ends\n\nText: it."
    )


def test_notebooks_open_in_colab_where_the_project_has_an_address(build: ModuleType) -> None:
    line = "[a](notebooks/a.ipynb)"
    place = "https://colab.research.google.com/github/owner/name/blob/main/docs/notebooks/a.ipynb"
    assert build.in_colab(line, "https://github.com/owner/name") == f"{line} ([open in Colab]({place}))"
    assert build.in_colab(line, "") == line


def test_the_choices_of_choose_are_measured_where_they_say() -> None:
    """Each row of a table cites a section, which has the row's figures."""
    row = r"^\|[^|]+\|[^|]+\|([^|]+)\|[^|]*\]\(([\w/.]+\.md)#?([\w-]*)\) \|$"
    rows = re.findall(row, (DOCS / "choose.md").read_text(), re.M)
    assert len(rows) >= 15
    checked = 0
    for because, page, anchor in rows:
        section = section_of((DOCS / page).read_text(), anchor)
        plain = re.sub(r"`[^`]*`|\d+ calls|power 3", "", because)
        for figure in re.findall(r"(?<![\w.])[−+]?\d+(?:\.\d+)?(?![\w.])", plain):
            assert figure in section, f"{figure} of {because.strip()!r} is not in {page}#{anchor}"
            checked += 1
    assert checked > 25


def section_of(page: str, anchor: str) -> str:
    """The section with that anchor, or the whole page for an empty one."""
    if not anchor:
        return page
    for title, text in re.findall(r"^##+ (.+?)\n(.*?)(?=^##+ |\Z)", page, re.M | re.S):
        if re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") == anchor:
            return str(text)
    raise AssertionError(f"there is no section #{anchor}")


@pytest.mark.parametrize("page", RESULTS)
def test_a_page_of_results_begins_with_its_summary(page: str) -> None:
    title, gap, *lines = (DOCS / page).read_text().splitlines()
    assert title.startswith("# ") and not gap and lines[0].startswith("> **In short.** ")
    assert len(list(itertools.takewhile(lambda line: line.startswith(">"), lines))) <= 10


def test_lines_of_prose_are_at_most_160_characters_long() -> None:
    """Rows of tables cannot be broken in Markdown."""
    pages = [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "plugins").rglob("*.md")]
    sources = [*DOCS.rglob("*.py"), *DOCS.rglob("*.css"), ROOT / "mkdocs.yml"]
    long = {
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*pages, *sources]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 160 and not line.startswith("|")
    }
    assert not long


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(build: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for page in PAGES:
        made = tmp_path / "site" / page.replace(".md", ".html")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', made.read_text())
        fetched += re.findall(r'<link rel="(?:stylesheet|preconnect|icon)"[^>]*href="(https?:[^"]+)"', made.read_text())
        assert not fetched, (page, fetched)
    shutil.rmtree(tmp_path / "site")
