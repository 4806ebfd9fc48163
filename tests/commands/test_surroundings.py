"""The surroundings of the program: limited terminals, foreign modules beside it, small file limits, long names."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from didi_core.cli import FAILED, WRONG, disk_trouble, main

BARE = ["sample", "run=bundled", "domain=toy", "num=2", "steps=2"]


def started(
    words: list[str], folder: Path, largest: int | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """``python -m didi_core`` in a folder."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.run(
        [sys.executable, "-m", "didi_core", *words],
        cwd=folder,
        env={**os.environ, **environment},
        preexec_fn=limit,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_some_letters(tmp_path: Path, encoding: str) -> None:
    done = started([*BARE, "out=größe_模型.jsonl"], tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "größe_模型.jsonl").is_file() and "\\u6a21" in done.stdout


def test_modules_of_the_users_do_not_stand_in_for_libraries(tmp_path: Path) -> None:
    for name in ("datasets", "token", "torch", "types", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was imported')")
    done = started([*BARE, "out=x.jsonl"], tmp_path)
    assert done.returncode == 0 and (tmp_path / "x.jsonl").is_file(), done.stderr


@pytest.mark.parametrize("largest", [50_000, 800_000], ids=["a network", "its optimiser"])
def test_a_limit_on_the_size_of_files_is_one_message(tmp_path: Path, largest: int) -> None:
    words = ["pretrain", "domain=toy", "model=micro", "training.steps=1", "training.batch_size=8", "run_dir=run"]
    done = started(words, tmp_path, largest=largest)
    assert done.returncode == WRONG and "larger than the system allows" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "To go on: didi pretrain" in done.stderr
    assert started(words, tmp_path).returncode == 0, "what was written before is whole"


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000 + "b"])
def test_a_name_that_is_too_long_is_one_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ([*BARE, f"out={name}"], [*BARE, f"run_dir={name}"], ["sample", f"run={name}"]):
        assert main(words) == WRONG, words[-1][:20]
        err = capsys.readouterr().err
        assert "too long" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["distill", "--resolve"], None),
        (["distill", "domain=toy", "--resolve", "run_dir=never"], "belongs to --cfg job"),
        (["distill", "--info"], "unknown flag --info"),
        (["distill", "--hydra-help"], "unknown flag --hydra-help"),
        (["distill", "--cfg", "hydra"], "write --cfg job"),
        (["--completion", "tcsh"], "unknown shell 'tcsh'"),
    ],
)
def test_flags_act_or_are_refused(words: list[str], told: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words, "--cfg", "job"] if told is None else words
    assert main(words) == (0 if told is None else WRONG)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and (told or "") in shown.err


def test_markup_in_what_a_user_gives_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ids.fasta").write_text(">a[/B]\nMKTAYIAKQRQISFVKSHFSRQLEERLG\n>[red]b\nMSDNGPQNQRNAPRITFGGPSDSTGSNQ\n")
    words = ["score", "fold=none", f"input={tmp_path / 'ids.fasta'}", "labels=[x[/y]]", f"out={tmp_path / '[bold]'}"]
    words[3] = "labels='[/y]'"
    assert main(words) in (0, WRONG)
    assert "Traceback" not in capsys.readouterr().err
    assert main(["doctor", "device=cpu"]) == 0
    assert "didi-core[" in capsys.readouterr().out
    assert FAILED == 1


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.ENOSPC, "the disk is full.* Make room, or name another place"),
        (errno.EROFS, "the disk is read-only.* whole. Name another place"),
        (errno.EACCES, "permission is denied.* whole. Name another place"),
    ],
)
def test_room_is_asked_for_where_there_is_none(number: int, todo: str) -> None:
    assert re.search(todo, disk_trouble(OSError(number, "no", "out/run")) or "")
