"""A distillation killed at any moment and repeated ends with the weights of an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from didi_core.cli import main
from didi_core.storage.files import sha256

STEPS = 12


def words(run_dir: Path) -> list[str]:
    small = ["training.batch_size=16", "objective.reward.warmup=3", "objective.reference_samples=32"]
    return [
        "distill", "domain=toy", "objective=didi", f"run_dir={run_dir}",
        f"training.steps={STEPS}", "training.checkpoint_every=2",
        "training.log_every=1", "objective.reference_steps=4", "evaluate.enabled=false", *small,
    ]  # fmt: skip


def weights(run_dir: Path) -> dict[str, str]:
    return {name: sha256(run_dir / "student" / name) for name in ("model.safetensors", "scorer.safetensors")}


def start_and_kill(run_dir: Path, checkpoint: str) -> None:
    """Start the command in a process of its own and kill it as soon as a checkpoint is there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "didi_core", *words(run_dir)], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (run_dir / "checkpoints" / checkpoint).exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in four minutes"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_runs_end_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start_and_kill(cut, "step_0000004")
    start_and_kill(cut, "step_0000010")
    assert not (cut / "student").exists()
    for run_dir in (whole, cut):
        done = subprocess.run([sys.executable, "-m", "didi_core", *words(run_dir)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert weights(cut) == weights(whole)
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 3 + STEPS + 1))
    assert "continued" in json.loads((cut / "run.json").read_text())


@pytest.mark.slow
def test_a_finished_run_repeated_changes_nothing(tmp_path: Path) -> None:
    assert main(words(tmp_path / "run")) == 0
    before = weights(tmp_path / "run")
    assert main(words(tmp_path / "run")) == 0
    assert weights(tmp_path / "run") == before


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    assert main(words(tmp_path / "run")) == 0
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in files:
        assert main(["sample", f"run={tmp_path / 'run'}", "num=6", "steps=4", "seed=3", f"out={path}"]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    other = tmp_path / "c.jsonl"
    assert main(["sample", f"run={tmp_path / 'run'}", "num=6", "steps=4", "seed=4", f"out={other}"]) == 0
    assert other.read_bytes() != files[0].read_bytes()
