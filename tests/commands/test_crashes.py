"""Killed at any file operation, every command can be repeated: the same words succeed, with bit-identical files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crashes import Killed, content, into, outcome, play
from hub_server import served, use
from predictor_files import WRITERS

from didi_core.cli import main
from didi_core.commands import push

TOY = ["domain=toy", "training.batch_size=8", "training.checkpoint_every=1", "training.log_every=1", "training.steps=3"]
ONE = "MKTAYIAKQRQISFVKSHFSRQLEERLG"
NAME = "someone/chain"
TEXT = "The cat sat on the mat and saw the dog. " * 30


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands start from: a teacher, samples, reports, designs with a structure, scores, documents."""
    folder = tmp_path_factory.mktemp("ready")
    assert main(["pretrain", *TOY, "model=micro", "validation_batches=1", f"run_dir={folder / 'teacher'}"]) == 0
    sampled = ["num=8", "steps=2", "batch_size=4", f"out={folder / 'samples.jsonl'}"]
    assert main(["sample", f"run={folder / 'teacher'}", *sampled]) == 0
    for name in "ab":
        assert main([*commands(folder)["evaluate run"][:-1], f"out={folder / name}"]) == 0
    (folder / "designs.fasta").write_text(f">a\n{ONE}\n>b\nMSDNGPQNQRNAPRITFGGPSDSTGSNQ\n")
    WRITERS["boltz"](folder / "boltz", "a", [ONE])
    assert main(["score", "fold=none", f"input={folder / 'designs.fasta'}", f"out={folder / 'scored'}"]) == 0
    assert main(["push", f"run={folder / 'teacher'}", "report=none", f"to={folder / 'pushed'}"]) == 0
    (folder / "texts.txt").write_text("\n\n".join([TEXT] * 6))
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
    small = ["model=micro", "validation_batches=1"]
    text = ["data.length=32", "data.documents=blank_lines", "data.validation=2", "data.cache=FOLDER.cache"]
    return {
        "pretrain": ["pretrain", *TOY, *small, "run_dir="],
        "pretrain text": [
            "pretrain", "domain=language", *TOY[1:], *small, *text, f"data.path={ready / 'texts.txt'}", "run_dir="
        ],
        "distill": ["distill", *TOY, *few, *reference, f"teacher={ready / 'teacher'}", "run_dir="],
        "sample": ["sample", f"run={ready / 'teacher'}", "num=8", "steps=2", "batch_size=4", "run_dir="],
        "sample to a file": ["sample", f"run={ready / 'teacher'}", "num=8", "steps=2", "out=/samples.jsonl"],
        "evaluate files": ["evaluate", f"samples={ready / 'samples.jsonl'}", "domain=toy", "num=8", "out="],
        "evaluate run": ["evaluate", f"run={ready / 'teacher'}", "num=8", "steps=[2]", "out="],
        "score": ["score", "fold=none", f"input={ready / 'designs.fasta'}", "out="],
        "score structures": ["score", f"structures={ready / 'boltz'}", f"input={ready / 'designs.fasta'}", "out="],
        "filter": ["filter", f"input={ready / 'scored'}", "top=1", "out="],
        "report": ["report", "compare", str(ready / "a"), str(ready / "b"), "out="],
        "import": ["import", f"source={ready / 'teacher'}", "domain=toy", "run_dir="],
        "export": ["export", f"run={ready / 'teacher'}", "format=didi", "out=/exported"],
        "export hf": ["export", f"run={ready / 'teacher'}", "out=/exported"],
        "push": ["push", f"run={ready / 'teacher'}", "report=none", "to=/pushed"],
        "pull": ["pull", f"source={ready / 'pushed'}", "run_dir="],
        "new-plugin": ["new-plugin", "dnx", "out=/plugin"],
    }  # fmt: skip


NAMES = [*commands(Path())]
SAMPLED = {  # kills in the fast tests
    "pretrain": 4, "sample": 2, "score": 2, "filter": 1, "export": 2, "pull": 2, "new-plugin": 2
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_some_kills(name: str, ready: Path, tmp_path: Path) -> None:
    words, many = commands(ready)[name], SAMPLED[name]
    code, operations, said = play(into(words, tmp_path / "whole"), tmp_path / "whole")
    assert code == 0 and operations > 3, said
    kills = sorted({round((i + 0.6) * operations / many) for i in range(many)})
    found = outcome(name, words, tmp_path, kills, content(tmp_path / "whole"))
    assert not found.wrong, "\n".join(found.wrong)


def test_a_push_to_the_hub_that_was_killed_can_be_repeated(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any operation, and between its folder and the upload: the same words put the same files on the hub."""
    words = ["push", f"run={ready / 'teacher'}", "report=none", f"to={NAME}", "out=/pushed"]
    with served() as hub:
        use(hub, tmp_path, monkeypatch, hub.token)
        code, operations, said = play(into(words, tmp_path / "whole"), tmp_path / "whole")
        assert code == 0, said
        whole = hub.repositories.pop(NAME)
        for kill in (1, operations // 2, operations - 1, operations, 0):
            folder = tmp_path / f"k{kill}"
            with monkeypatch.context() as patched:
                if not kill:
                    patched.setattr(push, "upload", gone)
                assert play(into(words, folder), folder, kill)[0] is None and NAME not in hub.repositories
            code, _, said = play(into(words, folder), folder)
            assert code == 0 and hub.repositories.pop(NAME) == whole, said
            assert not list(folder.rglob("*.part"))


def gone(*given: Any) -> Any:
    raise Killed


@pytest.mark.heavy  # a quarter of an hour for all of them on a busy core
@pytest.mark.parametrize("name", NAMES)
def test_every_kill(name: str, ready: Path, tmp_path: Path) -> None:
    words = commands(ready)[name]
    code, operations, said = play(into(words, tmp_path / "whole"), tmp_path / "whole")
    assert code == 0, said
    found = outcome(name, words, tmp_path, list(range(1, operations + 1)), content(tmp_path / "whole"))
    print(f"\n{found}")
    assert not found.wrong, "\n".join(found.wrong)
