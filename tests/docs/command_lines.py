"""Finds command lines that a reader may copy: in pages, notebooks, docstrings, messages and comments of settings."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = re.compile(r"<(?![\s(=])[^<>\n]*>")  # <run directory>; not a file that is read, nor a here-document
OPTIONAL = re.compile(r"(?<= )\[((?:--|\w+=[A-Z])[^\]]*)\]")  # usage: [--quick], [out=FOLDER]
ALTERNATIVES = re.compile(r"(?<= )(\w+)(\|\w+)+")  # usage: law|grid|sampler
PROGRAM = re.compile(r"(didi|torchrun|python3?|python -m [\w.]+|pip|pytest|ruff|mypy|mkdocs)(?= |$)")
SHELLS = ("bash", "sh", "shell", "console")
SPAN = re.compile(r"(`{1,2})([^`\n]+)\1")


@dataclass(frozen=True)
class Line:
    """A command line of a page.

    inline: it stands in a sentence, and may leave out what the sentence is not about.
    """

    file: str
    number: int
    text: str
    inline: bool = False

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}: {self.text}"

    def commands(self, placeholder: str) -> Iterator[list[str]]:
        """The words of each command of the line, with every ``<...>`` replaced, and usage as one use of it.

        Raises:
            ValueError: a quote is not closed.
        """
        text = PLACEHOLDER.sub(placeholder, self.text).replace("`", "")
        text = ALTERNATIVES.sub(r"\1", OPTIONAL.sub(r"\1", text))
        lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("&|;>"):
                words.append(word)
                continue
            if words and not set(word) <= set(">"):
                yield words
                words = []
            elif word == ">":
                words.append(word)


def pages() -> list[Path]:
    """Every page in Markdown that a reader is given."""
    tops = ("docs", "domains", "plugins")
    return sorted([*ROOT.glob("*.md"), *(path for top in tops for path in (ROOT / top).rglob("*.md"))])


def sources() -> list[Path]:
    """Python whose docstrings and messages have commands."""
    tops = ("didi_core", "domains", "plugins", "benchmarks", "docs")
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py") if "tests" not in path.parts)


def all_lines() -> list[Line]:
    """The command lines of the repository."""
    found = [line for path in pages() for line in of_markdown(path.read_text(encoding="utf-8"), named(path))]
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        found += of_notebook(path.read_text(encoding="utf-8"), named(path))
    for path in sources():
        found += of_python(path.read_text(encoding="utf-8"), named(path))
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        found += of_comments(path.read_text(encoding="utf-8"), named(path))
    return found


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def of_markdown(text: str, file: str) -> list[Line]:
    """Lines of shell blocks, lines of indented blocks that begin with a program, and spans of code that do."""
    found: list[Line] = []
    for token in MarkdownIt().enable("table").parse(text):
        if token.map is None:
            continue
        start = token.map[0] + 1
        if token.type == "fence" and token.info.split(" ")[0] in SHELLS:
            found += of_block(token.content, file, start + 1, every=True)
        elif token.type == "code_block" or (token.type == "fence" and not token.info):
            found += of_block(token.content, file, start, every=False)
        elif token.type == "inline":
            spans = [child.content for child in token.children or () if child.type == "code_inline"]
            found += [Line(file, start, span, True) for span in spans if is_command(span)]
    return found


def of_block(block: str, file: str, start: int, every: bool) -> list[Line]:
    """Command lines of a block, with continued ones joined. every: whether a line that begins otherwise is one too."""
    found: list[Line] = []
    lines = block.splitlines()
    for i, line in enumerate(lines):
        if i and lines[i - 1].endswith("\\"):
            continue
        whole = line
        for more in lines[i + 1 :]:
            if not whole.endswith("\\"):
                break
            whole = whole[:-1] + more.strip()
        whole = whole.strip().removeprefix("$ ")
        if whole and not whole.startswith("#") and (every or PROGRAM.match(whole)):
            found.append(Line(file, start + i, whole))
    return found


def of_notebook(text: str, file: str) -> list[Line]:
    """Lines of a notebook's cells that go to the shell, and the commands of its prose. Their number is the cell's."""
    found: list[Line] = []
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found += [Line(file, number, line.text, line.inline) for line in of_markdown(source, file)]
        else:
            shell = re.findall(r"^[!%](?:pip|[^%\n]*)(?:.*\\\n)*.*$", source, re.M)
            found += [Line(file, number, re.sub(r"\\\n\s*", "", line)[1:]) for line in shell]
    return found


def of_python(text: str, file: str) -> list[Line]:
    """Commands in docstrings and messages: lines that begin with a program, and spans of code that do."""
    found: list[Line] = []
    parents: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            whole = "".join(str(p.value) if isinstance(p, ast.Constant) else "<value>" for p in node.values)
            parents |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parents:
            whole = node.value
        else:
            continue
        for i, line in enumerate(whole.splitlines()):
            at = node.lineno + i if whole.count("\n") else node.lineno
            if line.startswith("    ") and PROGRAM.match(line.strip()) and " " in line.strip():
                found += of_block(line, file, at, every=False)
            found += [Line(file, at, span, True) for _, span in SPAN.findall(line) if is_command(span)]
    return found


def of_comments(text: str, file: str) -> list[Line]:
    """Commands in the comments of a file of settings."""
    rows = [(i, line.lstrip()[1:]) for i, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith("#")]
    return [line for i, row in rows for line in of_block(row, file, i, every=False) if " " in line.text]


def is_command(span: str) -> bool:
    """Whether a span of code is a command line of this project: ``didi`` alone is a name."""
    return bool(re.match(r"(didi|torchrun|pip install) \S|python -m didi_|python benchmarks/", span))
