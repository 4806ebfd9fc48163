"""Memory that runs out in training: one message, and what it says to change can be run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from didi_core.cli import main
from didi_core.device import Machine
from didi_core.objectives.registry import read_objective
from didi_core.training.engine import Engine
from didi_core.training.memory import TooLarge, advice, memory_advice
from didi_core.training.settings import TrainingSettings

CPU = Machine(torch.device("cpu"), "fp32")
SHORT = ("training.steps=2", "training.batch_size=16", "training.warmup=0")
# sixteen sequences: two groups of the chain's default objective


def any_slices(training: TrainingSettings, processes: int) -> None:
    training.slice_size(processes)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"), MemoryError()]
)
def test_the_message_says_where_and_what_to_change(error: Exception) -> None:
    training = TrainingSettings(batch_size=12, accumulate=2)
    wanted = r"slice of 6 sequence.* training.accumulate=3. Slices of 4"
    with pytest.raises(TooLarge, match=wanted) as told, memory_advice(training, CPU, 1, any_slices):
        raise error
    assert CPU.label in str(told.value) and "More" not in str(told.value) and told.value.__cause__ is error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_advice(TrainingSettings(), CPU, 1, any_slices):
        raise RuntimeError("shapes differ")


def test_groups_stay_whole() -> None:
    rules = read_objective({"kind": "didi", "baseline": {"group": 4}}, "distill")
    assert "training.accumulate=2. Slices of 8" in advice(TrainingSettings(batch_size=16), CPU, 1, rules.check)
    assert "training.accumulate=3. Slices of 4" in advice(TrainingSettings(batch_size=12), CPU, 1, rules.check)
    assert "cannot be cut further" in advice(TrainingSettings(batch_size=4), CPU, 1, rules.check)
    assert "training.accumulate=2. Slices of 4" in advice(TrainingSettings(batch_size=16), CPU, 2, rules.check)


def test_half_precision_is_named_where_it_helps() -> None:
    card = Machine(torch.device("cuda"), "fp32")
    assert "precision=bf16" in advice(TrainingSettings(), card, 1, any_slices)
    assert "bf16" not in advice(TrainingSettings(), CPU, 1, any_slices)


@pytest.mark.parametrize("dry", [False, True])
def test_a_command_ends_with_the_message(
    dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Engine, step: int) -> dict[str, float]:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: 8 bytes")

    monkeypatch.setattr(Engine, "step", full)
    words = ["distill", "domain=toy", *SHORT, "evaluate.enabled=false", f"run_dir={tmp_path / 'run'}"]
    assert main([*words, *(["dry_run=true"] if dry else [])]) == 1
    told = capsys.readouterr().err
    assert "out of memory on cpu" in told and "training.accumulate=" in told and "Traceback" not in told


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_elsewhere_is_told_too(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*given: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr("didi_core.commands.sample.generate", full)
    assert main(["sample", "run=bundled", "domain=toy", f"out={tmp_path / 'a.jsonl'}"]) == 1
    told = capsys.readouterr().err
    assert "out of memory: " in told and "batch_size" in told and "Traceback" not in told and "More" not in told


LIMITED = """
import resource, sys
from pathlib import Path
from didi_core.cli import main
from didi_core.training.engine import Engine

step = Engine.step

def limited(engine, number):
    if number == 2:  # a little more than is in use, and a batch that needs more than that
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
    return step(engine, number)

if sys.argv[1] == "limited":
    Engine.step = limited
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux counts it")
def test_a_run_that_ran_out_of_memory_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """With the limit gone, it ends with the weights of a run that never had one."""
    words = ["distill", "domain=toy", "objective=cross_entropy", "device=cpu", "evaluate.enabled=false"]
    words += ["objective.states.samples=8", "objective.states.steps=2", "training.checkpoint_every=1"]
    words += ["training.steps=3", "training.warmup=0", "training.batch_size=512"]

    def run(how: str, name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, how, *words, f"run_dir={tmp_path / name}"]
        # Large tensors go back to the system when they are freed. Else glibc may keep enough for the whole of the step.
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
        return subprocess.run(command, capture_output=True, text=True, env=alone, timeout=500)

    done = run("limited", "cut")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    for word in ("out of memory on cpu", "set training.accumulate=2", "adapter=lora", "that was saved is intact"):
        assert word in done.stderr
    assert (tmp_path / "cut" / "checkpoints" / "step_0000002").is_dir()
    again, whole = run("free", "cut"), run("free", "whole")
    assert again.returncode == whole.returncode == 0, again.stderr + whole.stderr
    assert "continuing after step 2 of 3" in again.stdout + again.stderr
    weights = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]
