"""Files around the code that nothing imports: they name what is there, and say the same of it."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def loaded(*names: str) -> Any:
    return yaml.safe_load(ROOT.joinpath(*names).read_text())


def test_the_citation_is_of_this_version_and_licence() -> None:
    cited = loaded("CITATION.cff")
    assert [cited[key] for key in ("title", "version", "license")] == [
        PROJECT["name"].replace("-", "_"),
        PROJECT["version"],
        PROJECT["license"],
    ]
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
    papers = [one["value"] for reference in cited["references"] for one in reference["identifiers"]]
    assert PROJECT["urls"]["Paper"].rpartition("/")[2] in "".join(papers)


def lacking(address: str) -> list[str]:
    """Files that people copy the repository's address from, and that do not have this one."""
    install = f"pip install git+{address}"
    wanted = {"README.md": install, "CITATION.cff": f"repository-code: {address}"}
    wanted |= {str(path.relative_to(ROOT)): install for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    return sorted(name for name, text in wanted.items() if text not in (ROOT / name).read_text())


def test_the_address_is_everywhere_or_nowhere() -> None:
    """CONTRIBUTING.md says where it goes first."""
    address = PROJECT["urls"].get("Source")
    assert len(lacking("https://github.com/someone/else")) == 5
    assert lacking(address) == [] if address else "github.com/" not in (ROOT / "CITATION.cff").read_text()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == "Unreleased"


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_something(form: Path) -> None:
    made = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= {*made}
    ids = [field["id"] for field in made["body"]]
    assert len({*ids}) == len(ids) and any(field.get("validations", {}).get("required") for field in made["body"])
    assert all(field["attributes"]["label"] for field in made["body"])


def test_scripts_that_are_run_can_be_run() -> None:
    jobs = loaded(".github", "workflows", "ci.yml")["jobs"].values()
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert steps and all(os.access(ROOT / step, os.X_OK) for step in steps)
    for hook in loaded(".pre-commit-config.yaml")["repos"][0]["hooks"]:
        program, *words = shlex.split(hook["entry"])
        assert program in ("ruff", "mypy") or (ROOT / words[0]).is_file()


def test_the_image_is_made_of_what_is_there() -> None:
    copied = [word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied and {*copied} == sent and all((ROOT / name).exists() for name in copied)
    torch = next(one for one in PROJECT["dependencies"] if one.startswith("torch>"))
    assert f'"{torch}"' in DOCKERFILE and "ARG TORCH=cpu" in DOCKERFILE


def test_extras_that_are_named_exist() -> None:
    given = re.search(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.M)
    pip = next(one["pip"] for one in loaded("environment.yml")["dependencies"] if isinstance(one, dict))
    named = re.search(r"\[(.+)\]", pip[0])
    assert given and named
    assert {*given[1].split(","), *named[1].split(",")} <= {*PROJECT["optional-dependencies"]}


def test_the_sdist_lists_what_is_there() -> None:
    made = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [name for name in made if not (ROOT / name[1:]).exists()] == []
    read = {"tests", "docs", "plugins", "benchmarks", "domains", "configs", "didi_core", ".ci", ".github"}  # by tests
    assert {f"/{name}" for name in read} <= {*made}
