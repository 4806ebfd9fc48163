"""Figures of the README come from the recipe, and those of the recipe's first row from the record of its run."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.wording import change

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text().replace("&nbsp;", " ")
RECIPE = (ROOT / "docs" / "recipe.md").read_text()
ONE_LINE = " ".join(RECIPE.replace("\\\n", " ").split())  # commands too, which go on after a backslash
RECORD = json.loads((ROOT / "docs" / "results" / "protein_0.json").read_text())
SCRIPT = ROOT / "docs" / "site" / "plots.py"
NAMES = re.findall(r'^    "(\w+)": Plot\(', SCRIPT.read_text(), re.M)
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
OPENING = " ".join(README.partition("\n## ")[0].split())
CLAIMS = README.partition("\n## How good is it\n")[2].partition("\n## ")[0]


def changed(ratios: Sequence[float]) -> str:
    """The change that a ratio of perplexities is, with its interval, as the tables write it."""
    value, low, high = ratios
    return change(Interval(value, low, high, n=0), places=0)


def changed_by(logs: Sequence[float]) -> str:
    """A difference of logarithms with its interval, as the tables write it."""
    return changed([math.exp(one) for one in logs])


def test_rows_of_the_readme_are_rows_of_the_recipe() -> None:
    lines = [line for line in CLAIMS.splitlines() if line.startswith("| ") and "[" in line]
    rows = [line.removeprefix("| ").partition(" | ") for line in lines]
    assert [name for name, *_ in rows] == ["protein", "its control", "text", "its control"]
    names = ("protein, seed 0", "protein, cross-entropy", "text, seed 0", "text, cross-entropy")
    assert not [name for name, (*_, cells) in zip(names, rows, strict=True) if f"| {name} | {cells}" not in RECIPE]


def test_every_change_in_the_readme_is_one_of_the_recipe() -> None:
    """Also in sentences: a figure with its interval, wherever it stands."""
    found = re.findall(r"[+−]\d+ %[^.;|\[]* (\[[+−]\d+, [+−]\d+\])", " ".join(README.split()))
    assert len(found) > 20
    assert not [interval for interval in found if interval not in RECIPE]


def test_the_row_of_seed_0_is_that_of_its_run() -> None:
    assert RECORD["command"] == "didi distill domain=protein seed=0"
    cells = []
    for found in sorted(RECORD["comparisons"], key=lambda each: each["steps"]):
        cells.append(changed([found["ratio"][key] for key in ("value", "low", "high")]))
    assert f"| protein, seed 0 | {' | '.join(cells)} |" in RECIPE


def test_the_plot_of_the_readme_shows_the_records(plots: ModuleType) -> None:
    """Every perplexity of the records is a point of the plot, and there is no other."""
    results = ROOT / "docs" / "results"
    record, text = (json.loads((results / f"worth_{domain}.json").read_text()) for domain in ("protein", "text"))
    drawn = plots.PLOTS["worth"].read()
    assert "(docs/images/worth.svg)" in CLAIMS
    rows = [("protein", row, row["perplexity"][0]) for row in record["rows"]]
    rows += [("text", row, row["matched"]["quality"][0]) for row in text["rows"]]
    for domain, row, found in rows:
        how = "plain sampling" if row["law"] == "iid" else "same law and grid"
        name = row["model"] if row["model"].startswith("student") else f"teacher, {how}"
        assert drawn[f"{domain}, {name}"][int(math.log2(row["calls"]))][0] == pytest.approx(found, rel=0.006)
    assert sum(map(bool, itertools.chain(*drawn.values()))) == len(rows)
    assert f"held-out proteins have {record['held out']['perplexity'][0]:.2f}" in " ".join(CLAIMS.split())


def test_what_a_student_is_worth_is_that_of_its_record() -> None:
    record = json.loads((ROOT / "docs" / "results" / "worth_protein.json").read_text())
    kinds = {"student over plain teacher": "student", "law and grid alone over plain teacher": "law and grid alone"}
    assert record["command"] in ONE_LINE and not missing_rows(record, kinds)
    compared = record["student over plain teacher"]
    assert all(seed[2] < 0 for seed in compared["16"]["128"]["seeds"])
    value, low_high = changed_by(compared["16"]["128"]["mean"]).split(" % ")
    assert f"Sixteen calls of the protein student beat 128 ({value} % {low_high})" in OPENING
    assert f"{value} % perplexity, with a 95 % interval of {low_high}," in " ".join(CLAIMS.split())
    assert all(abs(row["entropy"][0] / record["entropy"] - 1) < 0.01 for row in record["rows"])


def test_what_a_student_of_text_is_worth_is_that_of_its_record() -> None:
    record = json.loads((ROOT / "docs" / "results" / "worth_text.json").read_text())
    kinds = {"student over plain teacher": "text student", "law and grid alone over plain teacher": "text, law alone"}
    assert record["command"] in ONE_LINE and not missing_rows(record, kinds)
    compared = record["student over plain teacher"]
    assert all(seed[2] < 0 for calls in ("128", "1024") for seed in compared["8"][calls]["seeds"])
    value, low_high = changed_by(compared["8"]["128"]["mean"]).split(" % ")
    assert f"beat 128 calls of its teacher at equal entropy ({value} % perplexity {low_high})" in OPENING
    claims, level = " ".join(CLAIMS.split()), changed_by(compared["4"]["64"]["mean"])
    assert f"better than 128 plain calls of its teacher, {value} % {low_high}, and than 1,024, in each" in claims
    assert f"Four are level with 64 as a mean, {level}." in claims
    assert all(row["samples"] == 1000 for row in record["rows"] if row["law"] != "iid" or row["calls"] <= 128)


def test_the_wider_teacher_is_that_of_its_record() -> None:
    record = json.loads((ROOT / "docs" / "results" / "wide_teacher.json").read_text())
    for row in record["rows"]:
        if row["law"] != "iid" and row["calls"] in (4, 8, 16):
            value, low, high = row["perplexity"]
            assert f"{value:.2f} [{low:.2f}, {high:.2f}]" in RECIPE, (row["model"], row["calls"])
    for name, key in (("wide teacher", "teacher"), *((f"its student, seed {i}", f"p_{i}") for i in range(3))):
        assert f"| {name} | {families(record['families by temperature']['1.0'], key, 16)} |" in RECIPE
    cooled = families(record["families by temperature"]["0.7"], "teacher", 16)
    assert f"| wide teacher, temperature 0.7 | {cooled} |" in RECIPE
    compared = record["student over teacher of equal calls"]
    for how in (lambda each: each["mean"], lambda each: each["at matched variety"]["mean"]):
        told = [changed_by(how(compared[calls])) for calls in ("4", "8", "16")]
        assert f"{told[0]}, {told[1]} and {told[2]}" in ONE_LINE
    other, longer = (record["on a CPU"][f"{length}|seed 0|16"] for length in (266, 290))
    value, low, high = longer["perplexity"]
    shorter = f"{other['perplexity'][0]:.2f}, {other['effective']:.1f} families"
    assert f"({value:.2f} [{low:.2f}, {high:.2f}]; 266 letters: {shorter})" in ONE_LINE


def test_families_by_objective_are_those_of_the_record() -> None:
    record = json.loads((ROOT / "docs" / "results" / "families_objectives.json").read_text())
    shown = {line for line in RECIPE.splitlines() if re.match(r"  \| `\w+` \| (4|16) \|", line)}
    assert len(shown) == 10
    for objective, calls in re.findall(r"  \| `(\w+)` \| (4|16) \|", "\n".join(sorted(shown))):
        assert f"  | `{objective}` | {calls} | {families(record, objective, calls)} |" in shown


def families(record: dict[str, Any], model: str, calls: object) -> str:
    """Perplexity and effective number of families at 266 and 290 letters, as the tables write them."""
    found = [record[f"{length}|{model}|{calls}"] for length in (266, 290)]
    cells = [f"{'{:.3g} [{:.3g}, {:.3g}]'.format(*one['perplexity'])} | {one['effective']:.1f}" for one in found]
    return " | ".join(cells)


def missing_rows(record: dict[str, Any], kinds: dict[str, str]) -> list[str]:
    """Rows of ratios to the plain teacher that the record has and the recipe has not."""
    found = []
    for kind, name in kinds.items():
        for calls, against in record[kind].items():
            cells = [changed_by(told["mean"]) if "mean" in told else "no claim" for told in against.values()]
            found.append(f"| {name}, {calls} call{'s' * (calls != '1')} | {' | '.join(cells)} |")
    assert len(found) >= 6
    return [row for row in found if row not in RECIPE]


def test_the_film_of_the_readme_is_drawn_from_its_record() -> None:
    """Every letter of the two proteins stands in the group of the call that wrote it."""
    text = (ROOT / "docs" / "images" / "film.svg").read_text()
    films = json.loads((ROOT / "docs" / "results" / "film.json").read_text())["films"]
    assert "(docs/images/film.svg)" in OPENING and set(films) == {"teacher", "student"}
    for name, film in films.items():
        groups = re.findall(rf'<g style="animation-name: {name}(\d+)">(.*?)</g>', text, re.S)
        drawn = {int(call): "".join(re.findall(r">([A-Z])</text>", group)) for call, group in groups}
        wrote = {call: "" for call in range(1, film["calls"] + 1)}
        for letter, call in zip(film["letters"], film["written"], strict=True):
            wrote[call] += letter
        assert drawn == wrote and f"{film['calls']} calls" in text
    assert f"in {films['teacher']['calls']} calls, its student in {films['student']['calls']}:" in OPENING


def test_pictures_and_pages_that_the_readme_links_to_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(links) > 12
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize(
    "line", ["pip install -e . && python -m didi_core distill domain=protein", 'pip install -e ".[test]" && pytest']
)
def test_the_two_commands_of_a_fresh_machine_stand_in_the_readme(line: str) -> None:
    assert f"```bash\n{line}\n```" in README.partition("\n## ")[0]


def test_every_extra_is_named_in_the_readme() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    install = README.partition("\n## Install\n")[2].partition("\n## ")[0]
    assert len(extras) >= 8
    assert not [extra for extra in extras if not re.search(rf"\b{extra}\b", install)]


@pytest.fixture(scope="module")
def plots() -> ModuleType:
    """docs/site/plots.py."""
    return loaded(SCRIPT)


def loaded(script: Path) -> ModuleType:
    """A script that is no module of a package."""
    spec = importlib.util.spec_from_file_location(f"script_{script.stem}", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_plot_shows_the_figures_of_its_table(plots: ModuleType, name: str) -> None:
    series = plots.PLOTS[name].read()
    assert len(series) >= 2 and len({len(points) for points in series.values()}) == 1
    assert sum(map(bool, itertools.chain(*series.values()))) >= 3, "hardly a cell has a figure"
    assert plots.shown(name) == series, f"a table has changed: python docs/site/plots.py {name} draws it again"
    assert any(f"(images/{name}.svg)" in page for page in PAGES.values())


def test_every_plot_is_compared_with_its_table(plots: ModuleType) -> None:
    assert set(plots.PLOTS) == set(NAMES) and len(NAMES) > 15
    drawn = {path.stem for path in (ROOT / "docs" / "images").glob("*.svg")} - {"concept", "film", "logo"}
    assert drawn == set(NAMES)


@pytest.mark.parametrize("page", ["recipe", "objectives", "ablation", "benchmarks", "precision", "evaluation"])
def test_a_page_with_results_has_its_plots(page: str) -> None:
    assert set(re.findall(r"\(images/(\w+)\.svg\)", PAGES[page])) & set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_plot_fits_a_phone(name: str) -> None:
    """Its letters have nine pixels or more where it is 358 wide, and nothing of it is left to colour alone."""
    text = (ROOT / "docs" / "images" / f"{name}.svg").read_text()
    width = float(re.findall(r'<svg[^>]* width="([\d.]+)pt"', text)[0]) * 4 / 3
    sizes = {float(size) for size in re.findall(r"font(?:-size)?: ?(?:\d+ )?([\d.]+)px", text)}
    assert sizes and min(sizes) * 4 / 3 * 358 / width > 9


def test_coupled_noise_is_as_in_its_record() -> None:
    """Changes against the teacher by training seed, and all lengths of a model together."""
    record = json.loads((ROOT / "docs" / "results" / "coupled.json").read_text())
    page = PAGES["objectives"].partition("\n## Coupled noise\n")[2].partition("\n## ")[0]
    changes, checked = record["change in % against the teacher at equal calls"], 0
    names = {"matched entropy": "", "matched entropy per position": ", per position"}
    other = {"matched entropy, few_calls": ", `few_calls`"}
    other |= {"matched entropy per position, few_calls": ", `few_calls`, per position"}
    for kind, name in {**names, **other}.items():
        for seed, found in changes[kind].items():
            cells = [changed([1 + each / 100 for each in found[calls]]) for calls in ("1", "2", "4", "8", "16")]
            assert f"| seed {seed}{name} | {' | '.join(cells)} |" in page
            checked += 1
    script = loaded(ROOT / "benchmarks" / "families.py")
    for line in script.together(record["families"]).splitlines()[2:]:
        name, calls, lengths, perplexity, effective = line.strip("| ").split(" | ")
        column = {"1": 1, "2": 2, "4": 3, "16": 4}.get(calls)
        if column is not None:
            (row,) = [one for one in page.splitlines() if one.replace("`", "").startswith(f"| {name} | ")]
            assert lengths == "6" and row.split(" | ")[column].removesuffix(" |") == f"{perplexity}, {effective}"
            checked += 1
    assert checked >= 12 + 4 * 6
    for name, found in record["the chain"].items():
        cells = [f"{value:.3g} [{low:.3g}, {high:.3g}]" for value, low, high in found["pair KL"].values()]
        cells += [f"{found[key]:.3g}" for key in ("unigram KL at 8", "entropy at 8")]
        assert f"| `{name}` | {' | '.join(cells)} |" in page
