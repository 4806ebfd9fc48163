"""Memory that runs out in training: one message, and what it says to change can be run."""

from __future__ import annotations

from pathlib import Path

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
