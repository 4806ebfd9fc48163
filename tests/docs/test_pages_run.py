"""How-tos do what they say: the commands of a page are executed in its order, small, in a folder with the files that
the page names. What cannot be executed here is listed with the reason."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from command_lines import Line
from workshop import commands, furnish, one_sweep, small

from didi_core.cli import main

PAGES = (
    "start.md", "training.md", "scale.md", "language.md", "protein_teachers.md", "design.md", "structures.md",
    "checkpoints.md", "evaluation.md", "demo.md", "motif_tutorial.md",
)  # fmt: skip
GPUS = "several processes; tests/training/test_parallel.py and tests/commands/test_shared_work.py run two"
WEIGHTS = "weights of the hub, which no test fetches; tests/domains/protein has networks of random weights"
PREDICTOR = "structures of another program; tests/domains/protein/test_structures.py writes such folders"
UNFOLDED = "a filter by structures, which nothing here predicts"
ELSEWHERE = {  # page and beginning of a command -> why it is not executed here
    ("scale.md", "torchrun"): GPUS,
    ("training.md", "torchrun"): GPUS,
    ("scale.md", "didi distill domain=toy seed=0,1,2 --multirun run_dir=runs/sweep hydra/launcher"): "an extra",
    ("scale.md", "didi distill domain=protein seed=0,1,2"): "Slurm; tests/commands/test_sweeps.py has submitit",
    ("scale.md", "didi pretrain domain=toy 'training.lr=interval"): "Optuna, an extra; tests/commands/test_sweeps.py",
    ("training.md", "didi distill teacher=<large teacher>"): WEIGHTS,
    ("training.md", "didi distill domain=protein compile=true"): "a minute of compiling; tests/models/test_compiled.py",
    ("training.md", "didi sample run=bundled domain=protein num=1000 compile"): "CUDA; tests/commands/test_compile.py",
    ("language.md", "didi distill domain=language data.tokenizer=gpt2"): WEIGHTS,
    ("protein_teachers.md", "didi"): f"DPLM: {WEIGHTS}",
    ("design.md", "didi score input=designs.fasta fold=esmfold"): WEIGHTS,
    ("design.md", "didi score input=designs.fasta fold=none pppl="): WEIGHTS,
    ("design.md", "didi filter input=scored min.plddt"): UNFOLDED,
    ("design.md", "didi filter input=scored preset=strict"): UNFOLDED,
    ("structures.md", "didi"): PREDICTOR,
    ("checkpoints.md", "didi import"): "a checkpoint of others; tests/checkpoints/test_importers.py has their layouts",
    ("checkpoints.md", "didi sample run=mdlm"): "a checkpoint of others",
    ("checkpoints.md", "didi push run=<run> to=<owner>"): "the hub; tests/commands/test_push.py has a stand-in for it",
    ("checkpoints.md", "didi sample run=<owner>"): "the hub",
    ("checkpoints.md", "didi pull"): "the hub",
    ("checkpoints.md", "didi evaluate run=<run> autoregressive"): "tests/sampling/test_autoregressive.py trains one",
    ("evaluation.md", "didi evaluate samples=[part1.txt"): "chains of letters; tests/evaluation/test_evaluate.py",
    ("evaluation.md", "didi distill experiment=didi_ablation"): "21 runs; tests/commands/test_cli.py has two rows",
    ("evaluation.md", "didi report ablation=runs/ablation"): "those runs",
    ("demo.md", "didi demo"): "serves until it is ended; tests/web starts it in a browser",
    ("motif_tutorial.md", "didi"): "tests/docs/test_motif_tutorial.py executes the page",
}  # fmt: skip
THE_READERS = {  # what a page calls a run of the reader's -> the domain of the one that stands there
    "checkpoints.md": {"a_run": "protein"},
    "design.md": {"a_run": "protein"},
    "evaluation.md": {"a_run": "protein", "RUN": "toy", "RUN_A": "toy", "RUN_B": "toy"},
    "language.md": {"a_run": "language"},
    "start.md": {"a_run": "protein"},
}
NEW_FOLDER = "<new folder>"


def why_not(line: Line) -> str:
    """Why a command is not executed here; '' if it is."""
    plain = re.sub(r" +", " ", line.text)
    return next((why for (page, start), why in ELSEWHERE.items() if page == line.file and plain.startswith(start)), "")


def test_every_reason_is_for_a_command_that_is_there() -> None:
    lines = [(page, re.sub(r" +", " ", line.text)) for page in PAGES for line in commands(page)]
    unused = [one for one in ELSEWHERE if not any(page == one[0] and text.startswith(one[1]) for page, text in lines)]
    assert not unused


def test_all_of_getting_started_is_executed() -> None:
    assert len(commands("start.md")) > 12 and not any(map(why_not, commands("start.md")))


def test_a_sweep_is_cut_to_two_jobs() -> None:
    swept = ["distill", "seed=0,1,2", "steps=[1,2]", "training.lr=1e-4,3e-4", "-m"]
    assert one_sweep(swept) == ["distill", "seed=0,1", "steps=[1,2]", "training.lr=1e-4", "-m"]
    assert one_sweep(swept[:-1]) == swept[:-1]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The finished run of a domain, trained when it is first asked for."""

    @cache
    def made(domain: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / domain
        assert main(small(["distill", f"domain={domain}", f"run_dir={folder}"])) == 0
        return folder

    return made


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if not all(map(why_not, commands(p)))])
def test_a_page_can_be_followed(
    page: str, tiny_run: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where texts are kept as tokens
    furnish(tmp_path)
    for name, domain in THE_READERS.get(page, {}).items():
        shutil.copytree(tiny_run(domain), tmp_path / name)
    lines = [line for line in commands(page) if not why_not(line)]
    if any("adapter=lora" in line.text for line in lines):
        pytest.importorskip("peft")
    for line in lines:
        (words,) = replace(line, text=line.text.replace(NEW_FOLDER, "a_folder")).commands("a_run")
        words = small(one_sweep([word.replace("a_run,a_run", "a_run,runs/student") for word in words[1:]]))
        assert main(words) == 0, f"{line.place}\nas {' '.join(words)}"
