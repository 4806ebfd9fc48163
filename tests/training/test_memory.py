"""Memory that runs out in training: one message, and what it says to change can be run."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from didi_core.cli import main
from didi_core.device import Machine
from didi_core.objectives.registry import read_objective
from didi_core.training.components import GIB
from didi_core.training.engine import Engine
from didi_core.training.memory import Need, TooLarge, advice, asked_for, memory_advice
from didi_core.training.planning import Resident
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


# --- estimates


def of_gib(networks: float, slice: float, limit: float) -> Need:
    return Need(*(round(size * GIB) for size in (networks, slice, limit)))


@pytest.mark.parametrize(
    ("need", "cut", "in_all"),
    [
        (of_gib(10, 40, 40), 2, "30.00 GiB"),  # 10 + 40 / 2
        (of_gib(10, 80, 40), 4, "30.00 GiB"),
        (of_gib(10, 56, 40), 4, "24.00 GiB"),  # with 10 + 28 of 40 no tenth more would be left for the slice
        (of_gib(30, 40, 40), 8, "35.00 GiB"),
        (None, 2, ""),
    ],
)
def test_slices_are_as_large_as_the_estimate_lets_them(need: Need | None, cut: int, in_all: str) -> None:
    training = TrainingSettings(batch_size=16)
    said = advice(training, CPU, 1, any_slices, need)
    assert f"Set training.accumulate={cut}. Slices of {16 // cut} add up" in said and in_all in said
    assert need is None or need.fits(1 / cut) and not need.fits(2 / cut)


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (of_gib(41, 10, 40), ["networks alone take all the memory", "parallel=shard"]),
        (of_gib(16, 96, 40), ["training.accumulate=4, which is not enough alone", "sequences of 91% of"]),
        (of_gib(16, 160, 40), ["training.accumulate=4", "sequences of 55% of the present length", "data.max_length"]),
        (of_gib(16, 160, 40), ["training.activation_checkpointing=true keeps only the inputs"]),
    ],
)
def test_where_no_slices_fit_it_says_what_would(need: Need, words: list[str]) -> None:
    said = advice(TrainingSettings(batch_size=4), CPU, 1, any_slices, need)
    for word in words:
        assert word in said


def test_what_is_on_already_is_not_advised() -> None:
    training = TrainingSettings(batch_size=4, activation_checkpointing=True)
    assert "checkpointing" not in advice(training, CPU, 1, any_slices, of_gib(16, 160, 40))


@pytest.mark.parametrize(("slice", "end"), [(40, "30.00 GiB in all, which fits"), (90, "55.00 GiB in all, which does")])
def test_half_precision_is_weighed(slice: float, end: str) -> None:
    card = Machine(torch.device("cuda"), "fp32")
    assert f"precision=bf16 halves activations: some {end}" in advice(
        TrainingSettings(batch_size=16), card, 1, any_slices, of_gib(10, slice, 40)
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has", 5 << 29),
        ("CUDA out of memory. Tried to allocate 20.00 MiB.", 20 << 20),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes. Error code 12", 8 << 30),
        ("not enough memory", 0),
    ],
)
def test_what_was_asked_for_is_read_from_the_message(text: str, size: int) -> None:
    assert asked_for(RuntimeError(text)) == size


@pytest.mark.parametrize(
    ("held", "limit"),
    [((10, 30, 8, 40), 38), ((10, 30, 20, 40), 40), ((0, 30, 8, 40), None), ((40, 30, 8, 40), None)],
)
def test_the_limit_is_no_more_than_what_did_not_fit(held: tuple[int, int, int, int], limit: int | None) -> None:
    networks, most, asked, has = held
    found = Need.of(networks, most, asked, has)
    assert found == (None if limit is None else Need(networks, most + asked - networks, limit))


@pytest.mark.parametrize("dry", [False, True])
def test_a_command_estimates_what_fits_on_its_device(
    dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device with three times what the process holds before the first step, and a slice that needs four times it."""
    held = Resident.read().now

    def full(self: Engine, step: int) -> dict[str, float]:
        monkeypatch.setattr(Resident, "read", classmethod(lambda cls: cls(held, 2 * held)))
        raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {3 * held} bytes.")

    monkeypatch.setattr(Resident, "read", classmethod(lambda cls: cls(held, held)))
    monkeypatch.setattr("didi_core.training.memory.memory", lambda device: 3 * held)
    monkeypatch.setattr(Engine, "step", full)
    words = ["objective=cross_entropy", "objective.states.samples=8", "objective.states.steps=2", *SHORT]
    words += ["evaluate.enabled=false", f"run_dir={tmp_path / 'run'}", *(["dry_run=true"] if dry else [])]
    assert main(["distill", "domain=toy", *words]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "Set training.accumulate=4. Slices of 4" in told and "of the networks (weights" in told


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
    for word in ("out of memory on cpu", "adapter=lora", "that was saved is intact"):
        assert word in done.stderr
    cut = re.search(r"Set training\.accumulate=(\d+)", done.stderr)  # how many is of the machine
    assert cut and 512 % int(cut[1]) == 0 and f"lices of {512 // int(cut[1])} " in done.stderr
    assert (tmp_path / "cut" / "checkpoints" / "step_0000002").is_dir()
    again, whole = run("free", "cut"), run("free", "whole")
    assert again.returncode == whole.returncode == 0, again.stderr + whole.stderr
    assert "continuing after step 2 of 3" in again.stdout + again.stderr
    weights = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]
