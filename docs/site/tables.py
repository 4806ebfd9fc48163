"""Figures of the tables of pages, as the plots show them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"[−+-]?\d+(?:\.\d+)?")
ASIDE = re.compile(r"\(\d+ of \d+\)|; t: .*")  # of how many seeds; a second interval
GROUPED = re.compile(r"(?<=\d),(?=\d{3})")  # 1,836

Series = Mapping[str, list[list[float]]]  # name -> for each point the value, or value, low and high; nothing is known


def rows(page: str, section: str) -> Iterator[list[str]]:
    """Cells of the rows of all tables of a section, headers too. section: '' is what stands before the first one."""
    text = "\n" + (DOCS / page).read_text(encoding="utf-8")
    text = (text.partition(f"\n## {section}\n")[2] if section else text).partition("\n## ")[0]
    for line in re.findall(r"^\|(.+)\|$", text, re.M):
        yield [cell.strip() for cell in line.split("|")]


def numbers(cell: str) -> list[float]:
    """All numbers of a cell."""
    plain = GROUPED.sub("", ASIDE.sub("", cell)).replace("–", " ")
    return [float(number.replace("−", "-")) for number in NUMBER.findall(plain)]


def figures(cell: str) -> list[float]:
    """A value, or a value with its interval; nothing where the cell has none."""
    found = numbers(cell)
    if "±" in cell:
        return [found[0], round(found[0] - found[1], 6), round(found[0] + found[1], 6)]
    return found[: 3 if len(found) >= 3 and re.search(r"[\[(].*\d.*[\])]", ASIDE.sub("", cell)) else 1]


def plain(name: str) -> str:
    return re.sub(r"[`*]", "", name)


def table(page: str, section: str, wanted: str, cells: tuple[int, ...]) -> Series:
    """Rows whose first cell matches as a whole, and of them these cells. Of several of one name it is the first."""
    found: dict[str, list[list[float]]] = {}
    for row in rows(page, section):
        if re.fullmatch(wanted, plain(row[0])) and len(row) > max(cells):
            found.setdefault(plain(row[0]), [figures(row[i]) for i in cells])
    return found


def lists(page: str, section: str, wanted: str, cell: int = 1) -> Series:
    """The same of tables that have all points of a row in one cell: ``1.2 / 1.1 / 1.0``."""
    found: dict[str, list[list[float]]] = {}
    for row in rows(page, section):
        if re.fullmatch(wanted, plain(row[0])) and "/" in row[cell]:
            found.setdefault(plain(row[0]), [figures(part)[:1] for part in row[cell].split("/")])
    return found


WORTH_CALLS = tuple(2**i for i in range(11))


def worth() -> Series:
    """Perplexity at 1, 2, 4 ... 1,024 calls: students, the teacher with their law and grid, and plainly.

    That of text at matched entropy, that of proteins as sampled.
    """
    return {
        **_worth("text, ", "How many plain calls a student of text is worth", 4),
        **_worth("protein, ", "How many plain calls a student is worth", 2),
    }


def _worth(start: str, section: str, cell: int) -> Series:
    """The curves of one section, from that cell of its first table."""
    found: dict[str, list[list[float]]] = {}
    for name, *cells in rows("recipe.md", section):
        if len(cells) != 5 or not cells[0].isdigit():
            continue
        own = [[value] for value in numbers(cells[cell])[:3]]
        labels = [f"{start}student, seed {seed}" for seed in range(3)]
        if "teacher" in name:
            own = [figures(cells[cell])]
            labels = [f"{start}teacher, {'plain sampling' if name.endswith('plain') else 'same law and grid'}"]
        for label, point in zip(labels, own, strict=True):
            found.setdefault(label, [[] for _ in WORTH_CALLS])[WORTH_CALLS.index(int(cells[0]))] = point
    return found


def first_teachers() -> Series:
    """Change at 4, 8 and 16 steps of each seed of ``didi``; a row without a name has the one above it."""
    found: dict[str, list[list[float]]] = {}
    domain = ""
    for name, *cells in rows("recipe.md", "didi on the first teachers"):
        domain = name or domain
        if len(cells) == 4 and cells[0].isdigit():
            found[f"{domain}, seed {cells[0]}"] = [figures(cell) for cell in cells[1:]]
    return found


def text_laws() -> Series:
    """Perplexity at 4, 8 and 16 steps of teacher and student under each law."""
    found: dict[str, list[list[float]]] = {}
    for name, teacher, student, _ in rows("recipe.md", "What text taught"):
        for model, cell in (("teacher", teacher), ("student", student)):
            if re.match(r"\d", cell):
                found[f"{model}, {name.partition(' ')[0]}"] = [figures(part) for part in cell.split("/")]
    return found


def laws() -> Series:
    """Perplexity at 4, 8 and 16 calls of the teachers alone, proteins and text."""
    found = table("recipe.md", "Law and grid alone", r"\w+, (uniform|power 3)", (1, 2, 3, 4, 5, 6))
    halves = (("protein", slice(3)), ("text", slice(3, 6)))
    return {f"{domain}, {name}": points[half] for domain, half in halves for name, points in found.items()}


def chain() -> Series:
    """Pair KL at 1, 2, 4 and 8 calls of each objective on the chain: the section's first table."""
    return _of_width("The chain", 8)


def control() -> Series:
    """The same over the control's: its second table."""
    return _of_width("The chain", 6)


def _of_width(section: str, width: int) -> Series:
    """Cells 2 to 5 of the rows of that many cells of a section of objectives.md."""
    return {
        plain(row[0]): [figures(cell) for cell in row[2:6]]
        for row in rows("objectives.md", section)
        if len(row) == width and re.fullmatch(r"`\w+`|teacher", row[0])
    }


def columns(page: str, section: str, names: Mapping[str, int], first: str = r"\d+") -> Series:
    """A table by its columns: of the rows whose first cell matches, a series for each of these cells."""
    kept = [row for row in rows(page, section) if re.fullmatch(first, plain(row[0]))]
    return {name: [figures(row[i]) for row in kept] for name, i in names.items()}


def floor() -> Series:
    """Pair KL at 1, 2, 4 and 8 calls: what no student can pass, what an exact teacher has, and the teacher."""
    names = {"lower bound for a student": 1, "exact posterior, iid": 2, "teacher, stratified": 3}
    return columns("objectives.md", "How near a student can come", names)


def precision() -> Series:
    """Perplexity of drawn tokens at 16, 128 and 1024 steps, exactly and by the joint draw."""
    return columns("precision.md", "How much it matters", {"exact": 1, "fp32 joint draw": 2})


def masked() -> Series:
    """Share still masked after half of the steps: of what was drawn, by the formula."""
    return columns("precision.md", "Agreement", {"drawn": 2, "by the formula": 3})


def ablation(cell: int) -> Series:
    """The rows of the ablation on proteins and on text, and of them one cell."""
    found: dict[str, list[list[float]]] = {}
    for section in ("Proteins", "Text"):
        for name, *cells in rows("ablation.md", section):
            if name and set(name) != {"-"}:
                found[f"{section}: {name}"] = [figures(cells[cell - 1])]
    return found


def savings() -> Series:
    """Time of the plain way over ours, with its range, of each case; and memory of the plain way over ours."""
    found: dict[str, list[list[float]]] = {}
    script = ""
    for name, _, case, time, memory, *_ in (row for row in rows("benchmarks.md", "") if len(row) == 6):
        script = plain(name) or script
        if numbers(time):
            case = re.sub(r" \(.*?\)", "", case)
            found[f"{script.replace('_', ' ')}: {case}"] = [figures(time), figures(memory)]
    return found


def updates() -> Series:
    """Milliseconds of an update at 169 M on the GPU at two commits, by objective."""
    wanted = r"update, (objective=didi|objective=didi_paper|the released recipe written plainly)"
    found: dict[str, list[list[float]]] = {}
    for row in rows("benchmarks.md", "On a GPU"):
        if re.fullmatch(wanted, plain(row[0])):
            name = plain(row[0]).removeprefix("update, ").removeprefix("objective=")
            found.setdefault(name, [figures(cell)[:1] for cell in row[2:4]])
    return found
