"""Hooks of mkdocs: pages that are made from the code, and links that leave ``docs/``.

Made at build time, so they cannot fall behind: the keys of every command and objective, the hooks, the pages of the
Python interface (by mkdocstrings), and the files of the repository's root that belong to the site.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from didi_core import hookspecs
from didi_core.commands import COMMANDS
from didi_core.commands.explain import explained
from didi_core.config import config_folder
from didi_core.evaluation.wording import headed

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
FILE = re.compile(r"^```(\w+) (\S+)$", re.M)  # a file that is shown whole, with its name
CELL = re.compile(r"<t([dh])\b.*?</t\1>", re.S)
INTERVAL = re.compile(r"\[[-+−\d.,]+, [-+−\d.,]+\]|[\d.]+ %")
FROM_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}

# The modules of the Python interface, by page: what programs and plugins import.
PYTHON = {
    "python.md": ("From Python", "The commands as functions, and what they return.", ["didi_core.api"]),
    "domains.md": (
        "Domains and metrics",
        "What a domain is, and what to build one on.",
        ["didi_core.types", "didi_core.sequences", "didi_core.domain.abilities", "didi_core.metrics"],
    ),
    "sampling.md": (
        "Sampling",
        "The walk from masked to written; laws, grids and samplers.",
        [
            "didi_core.diffusion.walk",
            "didi_core.diffusion.laws",
            "didi_core.diffusion.grids",
            "didi_core.sampling.base",
            "didi_core.sampling.generate",
        ],
    ),
    "training.md": (
        "Training",
        "Objectives and rewards: what a run minimises, and by which networks.",
        ["didi_core.training.objective", "didi_core.objectives.base", "didi_core.objectives.rewards.base"],
    ),
    "testing.md": ("The conformance kit", "Checks for what a plugin offers.", ["didi_core.testing"]),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The head of every page leads to the repository, once it has an address."""
    address = repository()
    if address:
        config.repo_url, config.repo_name = address, "/".join(address.split("/")[-2:])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for name, text in made_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files outside ``docs/`` lead to the repository, or are plain names where it has no address yet.

    A page that stands alone has no list of neighbours.
    """
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    if page.file.src_uri == "notebooks.md":
        markdown = in_colab(markdown, repository())
    return FILE.sub(r'```\1 title="\2"', outward(markdown, page.file.src_uri, repository()))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Figures in the cells of tables stay in one line: ``−29 %`` and ``[−45, −12]``."""
    del page, config, files
    return CELL.sub(lambda cell: INTERVAL.sub(lambda found: found[0].replace(" ", "&nbsp;"), cell[0]), html)


def made_pages() -> dict[str, str]:
    """Every page that is made, by its place in the site."""
    pages = {name: (ROOT / source).read_text(encoding="utf-8") for name, source in FROM_ROOT.items()}
    pages["reference/commands.md"] = commands_page()
    pages["reference/objectives.md"] = objectives_page()
    pages["reference/hooks.md"] = hooks_page()
    for name, (title, about, modules) in PYTHON.items():
        shown = [f"## `{module}`\n\n::: {module}\n    options: {{heading_level: 3}}" for module in modules]
        pages[f"reference/{name}"] = "\n\n".join([f"# {title}", about, *shown]) + "\n"
    return pages


def repository() -> str:
    """Address of the project's repository, of ``project.urls``; empty where there is none."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    return next((urls[name].rstrip("/") for name in ("Source", "Repository", "Homepage") if name in urls), "")


def outward(markdown: str, page: str, address: str) -> str:
    """A page with links that fit the site. page: its place below ``docs/``, or what it is made from."""
    root = page in FROM_ROOT

    def changed(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        place = target if root else target.removeprefix("../") if target.startswith("../") else ""
        if not place:
            return match[0]
        if place.startswith("docs/"):
            return f"[{text}]({place.removeprefix('docs/')}{anchor})"
        for name, source in FROM_ROOT.items():
            if place == source and not root:
                return f"[{text}]({'../' * page.count('/')}{name}{anchor})"
        return f"[{text}]({address}/blob/main/{place}{anchor})" if address else text

    return LINK.sub(changed, markdown)


def in_colab(markdown: str, address: str) -> str:
    """A page's links to notebooks, each with one that opens it in Colab where the repository is on GitHub."""
    if "github.com/" not in address:
        return markdown
    place = f"https://colab.research.google.com/github/{address.partition('github.com/')[2]}/blob/main/docs"
    return re.sub(r"(\[[^\]]+\]\((notebooks/\w+\.ipynb)\))", rf"\1 ([open in Colab]({place}/\2))", markdown)


def commands_page() -> str:
    """Every command with its keys, their values and their comments: what ``--help`` prints, as tables."""
    lines = ["# Commands and keys", ""]
    lines += [
        "Made from `configs/` at every build. `--help` after a command prints the same, and `--cfg job` what it would",
        "run with. Defaults of `distill` and `pretrain` are those of proteins; with `domain=` and `objective=` before",
        "`--help` you see the ones of your choice.",
        "",
    ]
    for command in COMMANDS.values():
        lines += [f"## {command.name}", "", f"{headed(command.about)}.", ""]
        lines += ["```bash", f"didi {command.name} {command.example}".rstrip(), "```", ""]
        if command.configured:
            lines += tables(explained(command.name))
    return "\n".join(lines)


def tables(help_text: str) -> list[str]:
    """The tables of a command's help: each heading with the lines under it."""
    lines: list[str] = []
    for block in help_text.split("\n\n")[1:]:
        heading, *rows = block.splitlines()
        if not rows:
            continue
        title = heading.partition(",")[0].capitalize()
        columns = "group | choices" if heading.startswith("groups") else "key | default | meaning"
        lines += [f"**{title}**", "", f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
        for row in rows:
            setting, _, comment = row.strip().partition("  # ")
            key, _, value = setting.strip().partition("=")
            value = value if "|" in value else f"`{value.strip() or ' '}`"
            cells = [f"`{key}`", cell(value), cell(comment.strip())]
            lines.append(f"| {' | '.join(cells[: columns.count('|') + 1])} |")
        lines.append("")
    return lines


def cell(text: str) -> str:
    """Text that keeps a table in one piece."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def objectives_page() -> str:
    """Every choice of ``objective=`` and ``experiment=``, by the comment at the head of its file."""
    lines = ["# Objectives and experiments by name", ""]
    lines += ["Made from `configs/`. What to use when: [How to choose](../choose.md).", ""]
    for group in ("objective", "experiment", "model"):
        lines += [f"## {group}=", "", "| name | what it is |", "|---|---|"]
        files = sorted((config_folder() / group).glob("*.yaml"))
        lines += [*(f"| `{path.stem}` | {cell(head(path))} |" for path in files), ""]
    for path in sorted((config_folder() / "objective").glob("*.yaml")):
        if f"kind: {path.stem}\n" in path.read_text(encoding="utf-8"):
            command = "pretrain" if path.stem in ("nelbo", "autoregressive") else "distill"
            shown = explained(command, [f"objective={path.stem}"]).splitlines()
            keys = [row for row in shown if row.startswith("  objective.")]
            lines += [f"## Keys of {path.stem}", "", *tables("\n".join(["", "", "keys", *keys]))]
    return "\n".join(lines)


def head(path: Path) -> str:
    """The sentences of the comment at the head of a file of settings, up to its commands."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#") or line.startswith("#   "):
            break
        found.append(line.lstrip("# ").strip())
    return " ".join(found)


def hooks_page() -> str:
    """Every hook with its signature and docstring."""
    lines = ["# Hooks", "", "What a plugin may offer (`didi_register_*`) and listen to (`didi_on_*`); "]
    lines[-1] += f"this is interface {hookspecs.INTERFACE}. A tutorial of each: [Extending](../extending.md)."
    for name, hook in hooks().items():
        signature = str(inspect.signature(hook)).replace("'", "")
        lines += ["", f"## {name}", "", "```python", f"def {name}{signature}", "```", ""]
        lines += [inspect.getdoc(hook) or ""]
    return "\n".join(lines) + "\n"


def hooks() -> Mapping[str, Callable[..., Any]]:
    """The hooks by name, in the order of their module."""
    return {name: hook for name, hook in vars(hookspecs).items() if name.startswith("didi_")}
