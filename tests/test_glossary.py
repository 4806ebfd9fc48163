"""docs/glossary.md and the table of axes in didi_core/types.py: names and shapes use their words, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import didi_core.types

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "glossary.md").read_text()
TABLES = re.findall(r"^\| (.+?) \| (.+?) \|(.*?)\| `([\w/]+\.py)` \|$", PAGE, re.M)
SOURCES = [path for top in ("didi_core", "domains", "plugins") for path in sorted((ROOT / top).rglob("*.py"))]
CORE = [path for path in SOURCES if "didi_core" in path.parts and "scaffold" not in path.parts]
ARRAYS = ("Bool", "Float", "Int", "Num")

# Words of earlier versions that are not the field's, and what to say instead.
BANNED = {
    **dict.fromkeys(("tell", "tells", "told"), "notify, broadcast, log"),
    **dict.fromkeys(("say", "says", "said", "speak", "speaks", "spokesman", "heard"), "record, report"),
    **dict.fromkeys(("room", "house"), "package"),
    **dict.fromkeys(("mend", "mended"), "repair, fix"),
    **dict.fromkeys(("play", "plays"), "draw, roll out"),
    **dict.fromkeys(("rehearse", "rehearsal"), "dry run"),
    **dict.fromkeys(("stuff", "thing", "things", "misc", "util", "utils", "helper", "helpers"), "what it is"),
    **dict.fromkeys(("todays", "yesterdays"), "current, former"),
}


def axes_in_table() -> set[str]:
    """Axes of the second table at the head of ``types.py``."""
    head = didi_core.types.__doc__ or ""
    rows = re.split(r"^=+  =+$", head, flags=re.M)
    return {axis for row in rows[-2].strip().splitlines() for axis in row[:11].replace(",", " ").split()}


def axes_in_shapes(path: Path) -> Iterator[str]:
    """Axes of every jaxtyping shape in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id in ARRAYS
            and isinstance(node.slice, ast.Tuple)
            and isinstance(node.slice.elts[-1], ast.Constant)
        ):
            yield from re.findall(r"[A-Za-z]\w*", str(node.slice.elts[-1].value))  # R+1 is one more than R


def public_names(path: Path) -> Iterator[str]:
    """Names that a module of the core offers, and the fields and methods of its classes."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node in [*body, *(inner for outer in body if isinstance(outer, ast.ClassDef) for inner in outer.body)]:
        found: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found = [node.name]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found = [node.target.id]
        elif isinstance(node, ast.Assign):
            found = [target.id for target in node.targets if isinstance(target, ast.Name)]
        yield from (name for name in found if not name.startswith("_"))


def banned(name: str) -> set[str]:
    """Words of a name, in snake_case or CamelCase, that are banned."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)} & BANNED.keys()


def test_the_table_of_axes_has_those_that_everyone_knows() -> None:
    assert {"B", "L", "V", "N", "D", "words"} <= axes_in_table()
    assert all(len(axis) <= 2 or axis == "words" for axis in axes_in_table())


def test_every_axis_of_a_shape_is_in_the_table() -> None:
    used = {axis: path for path in SOURCES for axis in axes_in_shapes(path)}
    assert len(used) > 20
    known = axes_in_table()
    assert not {axis: path for axis, path in used.items() if axis not in known}


def test_every_axis_of_the_table_is_used() -> None:
    assert not axes_in_table() - {axis for path in SOURCES for axis in axes_in_shapes(path)}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_use_the_words_of_the_field(path: Path) -> None:
    assert not {name: BANNED[word] for name in public_names(path) for word in banned(name)}


def test_keys_of_the_configuration_use_the_words_of_the_field() -> None:
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    groups = {path.parent.name for path in files} | {path.stem for path in files}
    keys = {key for path in files for key in yaml.safe_load(path.read_text()) or ()}
    assert {"objective", "training"} <= keys | groups
    assert not {name for name in keys | groups if banned(str(name))}


def test_modules_that_the_glossary_names_are_there() -> None:
    assert len(TABLES) > 70
    assert not {module for *_, module in TABLES if not (ROOT / "didi_core" / module).exists()}


def test_a_term_is_defined_once_in_one_or_two_sentences() -> None:
    terms = [term.strip() for cell, *_ in TABLES for term in cell.split(",")]
    assert len(terms) == len(set(terms))
    assert not {cell: text for cell, text, *_ in TABLES if not text.endswith(".") or text.count(". ") > 1}


def test_protocols_that_plugins_implement_are_in_the_glossary() -> None:
    named = {module for *_, module in TABLES}
    assert {"diffusion/laws.py", "diffusion/grids.py", "sampling/base.py", "training/objective.py"} <= named
