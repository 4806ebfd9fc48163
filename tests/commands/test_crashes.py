"""Killed at any file operation, every command can continue: the same words succeed, with bit-identical files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from didi_core.cli import WRONG, main

KILLED = 137
TOY = ["domain=toy", "training.batch_size=8", "training.checkpoint_every=1", "training.log_every=1", "training.steps=3"]
SAMPLED = {"pretrain": 3, "sample": 1, "score": 1, "export": 1}  # kills in the fast tests; the heavy ones try all
CACHES = ("evaluation", "reference")
SAME = (".safetensors", ".jsonl", ".fasta", ".csv", "card.json")  # files that must come out to the bit


@dataclass
class Runner:
    """A process that forks one child a command."""

    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        script = Path(__file__).parent.parent / "crash_runner.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        )

    def __call__(self, words: list[str], folder: Path, kill: int = 0) -> tuple[int, int]:
        """Exit code, and number of operations on files below the folder."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"words": words, "folder": str(folder), "kill": kill}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["operations"]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands start from: a teacher, samples, designs, scores."""
    folder = tmp_path_factory.mktemp("ready")
    assert main(["pretrain", *TOY, "model=micro", "validation_batches=1", f"run_dir={folder / 'teacher'}"]) == 0
    sampled = ["num=8", "steps=2", "batch_size=4", f"out={folder / 'samples.jsonl'}"]
    assert main(["sample", f"run={folder / 'teacher'}", *sampled]) == 0
    (folder / "designs.fasta").write_text(">a\nMKTAYIAKQRQISFVKSHFSRQLEERLG\n>b\nMSDNGPQNQRNAPRITFGGPSDSTGSNQ\n")
    scored = ["fold=none", f"input={folder / 'designs.fasta'}", f"out={folder / 'scored'}"]
    assert main(["score", *scored]) == 0
    return folder


def commands(ready: Path) -> dict[str, list[str]]:
    """Words of every command that writes, without the folder that it writes to."""
    few = ["evaluate.num=8", "evaluate.steps=[2]", "evaluate.teacher_steps=[2]", "evaluate.temperatures=[1.0]"]
    reference = [
        "objective=didi",
        "objective.reference_samples=8",
        "objective.reference_steps=2",
        "objective.critic.warmup=1",
    ]
    return {
        "pretrain": ["pretrain", *TOY, "model=micro", "validation_batches=1", "run_dir="],
        "distill": ["distill", *TOY, *few, *reference, f"teacher={ready / 'teacher'}", "run_dir="],
        "sample": ["sample", f"run={ready / 'teacher'}", "num=8", "steps=2", "run_dir="],
        "sample to a file": ["sample", f"run={ready / 'teacher'}", "num=8", "steps=2", "out=/samples.jsonl"],
        "evaluate": ["evaluate", f"samples={ready / 'samples.jsonl'}", "domain=toy", "num=8", "out="],
        "score": ["score", "fold=none", f"input={ready / 'designs.fasta'}", "out="],
        "filter": ["filter", f"input={ready / 'scored'}", "top=1", "out="],
        "import": ["import", f"source={ready / 'teacher'}", "domain=toy", "run_dir="],
        "export": ["export", f"run={ready / 'teacher'}", "format=didi", "out=/exported"],
        "export hf": ["export", f"run={ready / 'teacher'}", "out=/exported"],
    }


def into(words: list[str], folder: Path) -> list[str]:
    """The words with the folder that they write to."""
    key, _, below = words[-1].partition("=")
    return [*words[:-1], f"{key}={folder}{below}"]


def content(folder: Path) -> dict[str, bytes]:
    """The files that must come out the same, checkpoints left out: an older one may be gone."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name.endswith(SAME) and "checkpoints" not in name and path.name != "metrics.jsonl":
            found[name] = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
            if path.parent.name in CACHES:  # their first line says how long it took
                found[name] = found[name].partition(b"\n")[2]
    return found


def tried(runner: Runner, words: list[str], place: Path, kills: list[int], expected: dict[str, bytes]) -> list[str]:
    """What went wrong, of some kills."""
    wrong = []
    for kill in kills:
        folder = place / f"killed_{kill}"
        killed, _ = runner(into(words, folder), folder, kill)
        again, _ = runner(into(words, folder), folder)
        left = [str(path) for path in folder.rglob("*.part")]
        whole = again == 0 or (words[0] == "export" and again == WRONG)  # it was complete: its place is taken
        if killed != KILLED or not whole or content(folder) != expected or left:
            log = Path(f"{folder}.log").read_text()[-600:]
            differ = sorted(k for k in {*expected, *content(folder)} if expected.get(k) != content(folder).get(k))
            wrong.append(f"operation {kill}: {killed}, then {again}; differ: {differ}; left: {left}\n{log}")
    return wrong


NAMES = [*commands(Path())]


@pytest.mark.parametrize("name", SAMPLED)
def test_some_kills(name: str, runner: Runner, ready: Path, tmp_path: Path) -> None:
    words = commands(ready)[name]
    code, operations = runner(into(words, tmp_path / "whole"), tmp_path / "whole")
    assert code == 0 and operations > 3
    many = SAMPLED[name]
    kills = sorted({round((i + 0.6) * operations / many) for i in range(many)})
    wrong = tried(runner, words, tmp_path, kills, content(tmp_path / "whole"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.heavy  # some eight minutes a command on one core
@pytest.mark.parametrize("name", NAMES)
def test_every_kill(name: str, runner: Runner, ready: Path, tmp_path: Path) -> None:
    words = commands(ready)[name]
    _, operations = runner(into(words, tmp_path / "whole"), tmp_path / "whole")
    wrong = tried(runner, words, tmp_path, list(range(1, operations + 1)), content(tmp_path / "whole"))
    print(f"{name}: {operations - len(wrong)} of {operations} survived with the same results")
    assert not wrong, "\n".join(wrong)
