"""Every command line of README, pages, notebooks, docstrings, messages and help is one that the program takes."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from checked_commands import examples, fault
from command_lines import ROOT, Line, all_lines, of_markdown, of_notebook, of_python

from didi_core.commands import compose
from didi_core.plugins import discovery

LINES = [*all_lines(), *examples()]
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


@pytest.fixture(scope="module", autouse=True)
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The plugins of the repository and those of docs/extending.md, beside what is installed."""
    folder = tmp_path_factory.mktemp("plugins")
    modules = {}
    for name, code in re.findall(r"^```python (\w+)\.py\n(.*?)^```", EXTENDING, re.M | re.S):
        if "@hookimpl" in code:
            (folder / f"{name}.py").write_text(code)
            modules[name] = name
    for path in sorted((ROOT / "plugins").glob("*/*/plugin.py")):
        modules[path.parent.name.removeprefix("didi_")] = f"{path.parent.name}.plugin"
    real = [*importlib.metadata.entry_points(group=discovery.GROUP)]
    known = {point.name for point in real}
    more = [importlib.metadata.EntryPoint(n, m, discovery.GROUP) for n, m in modules.items() if n not in known]
    with pytest.MonkeyPatch.context() as patch:
        for place in (folder, *(ROOT / "plugins").iterdir()):
            patch.syspath_prepend(str(place))
        patch.chdir(folder)
        patch.setattr(compose, "_compose", kept(compose._compose))
        patch.setattr(importlib.metadata, "entry_points", lambda group: [*real, *more])
        discovery.registry.cache_clear()
        yield
    for name in modules.values():
        sys.modules.pop(name, None)
    discovery.registry.cache_clear()
    discovery.registry()  # the catalogues forget what is no longer installed


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; what it makes of a choice of groups is kept, since hundreds of lines choose the same."""
    made: dict[Any, Any] = {}

    def cached(command: str, groups: Sequence[Any], whole: bool = False) -> Any:
        key = (command, whole, *(group.word for group in groups))
        if key not in made:
            made[key] = function(command, groups, whole)
        return copy.deepcopy(made[key])

    return cached


def test_pages_and_code_have_command_lines() -> None:
    files = {line.file for line in LINES}
    assert len(LINES) > 150
    assert {"README.md", "CONTRIBUTING.md", "docs/design.md", "plugins/didi_dna/README.md", "didi --help"} <= files
    assert {"configs/experiment/owt_small.yaml", "didi_core/__init__.py", "benchmarks/objectives.py"} <= files


@pytest.mark.parametrize("file", sorted({line.file for line in LINES}))
def test_every_command_line_of_a_file_is_taken(file: str) -> None:
    faults = {line.place: fault(line) for line in LINES if line.file == file}
    assert not {place: problem for place, problem in faults.items() if problem}


WRONG = {
    "```bash\ndidi distil domain=toy\n```": ("page.md:2", "unknown command 'distil'"),
    "```bash\n# first\ndidi distill domain=toy \\\n    training.stepps=3\n```": ("page.md:3", "training.stepps"),
    "    didi distill domain=tyo": ("page.md:1", "unknown domain 'tyo'"),
    "Say `didi distill domain=toy objective=many_calls`.": ("page.md:1", "unknown objective 'many_calls'"),
    "    didi distill domain=toy training.steps=many": ("page.md:1", "training.steps is an integer"),
    "    didi distill domain=toy -m seed=0,-1": ("page.md:1", "must not be negative"),
    "    didi sample run=<run> contigs=5": ("page.md:1", "Did you mean 'contig'"),
    "    didi evaluate run=<run> laws=[iid,random]": ("page.md:1", "unknown unmasking law 'random'"),
    "    didi import source=a domain=language data.tokeniser=gpt2": ("page.md:1", "data.tokenizer"),
    "    didi report compared=[a,b]": ("page.md:1", "Did you mean 'compare'"),
    "    didi distill domain=toy --sweep seed=1,2": ("page.md:1", "unknown flag --sweep"),
    "    didi new-plugin mine --kind lwa": ("page.md:1", "unknown kind of plugin 'lwa'"),
    "    torchrun --nproc-per-node=2 -m didi_core report ablation=a": ("page.md:1", "runs in one process"),
    "    python benchmarks/objectives.py toy runs --pace 30": ("page.md:1", "--pace"),
    "    python benchmarks/objectifs.py": ("page.md:1", "there is no benchmarks/objectifs.py"),
    "    python -m didi_toy.flor": ("page.md:1", "there is no module didi_toy.flor"),
    "    pip install -e '.[tests]'": ("page.md:1", "unknown extra 'tests'"),
    "    pip install ./plugins/didi_rna": ("page.md:1", "there is no distribution"),
    "```bash\nwegt https://example.org\n```": ("page.md:2", "unknown program 'wegt'"),
    "    didi sample run=<run> prompt='open": ("page.md:1", "quotation"),
}


@pytest.mark.parametrize("page", WRONG)
def test_a_wrong_line_is_found_with_its_place(page: str) -> None:
    place, words = WRONG[page]
    (line,) = of_markdown(page, "page.md")
    assert line.place.startswith(f"{place}: ")
    assert words in (fault(line) or "nothing"), fault(line)


def test_wrong_lines_of_notebooks_and_docstrings_are_found() -> None:
    cells = [{"cell_type": "markdown", "source": ["Say `didi x y=1`."]}, {"cell_type": "code", "source": ["!didi z"]}]
    code = 'def f():\n    """Do it.\n\n    Or ``didi q a=1``:\n\n        didi r\n    """\n    raise E(f"`didi s {x}`")'
    found = [*of_notebook(json.dumps({"cells": cells}), "a.ipynb"), *of_python(code, "a.py")]
    assert [line.place.split(": ")[0] for line in found] == ["a.ipynb:1", "a.ipynb:2", "a.py:4", "a.py:6", "a.py:8"]
    assert all("unknown command" in (fault(line) or "") for line in found)


def test_a_command_that_is_only_named_in_a_sentence_may_lack_its_settings() -> None:
    assert fault(Line("page.md", 1, "didi sample", inline=True)) is None
    assert "run is missing" in (fault(Line("page.md", 1, "didi sample")) or "")
