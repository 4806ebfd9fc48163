"""Planning before a run, recipes that compose, and the memory of a step at the full vocabulary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from didi_core.cli import main
from didi_core.commands import find
from didi_core.commands.compose import compose_jobs, group_options
from didi_core.config import build
from didi_core.training.components import Component, components
from didi_core.training.objective import Learner
from didi_core.training.optimiser import OptimiserSettings
from didi_core.training.planning import Plan, Resident, Stage, duration, forget_peak
from didi_core.training.trainee import Trainee


def test_memory_is_counted_by_network() -> None:
    student, frozen = nn.Linear(10, 10), nn.Linear(3, 1).requires_grad_(False)
    trainee = Trainee(Learner("student", student, OptimiserSettings(), ema=0.9))
    student(torch.zeros(1, 10)).sum().backward()
    trainee.optimiser.step()
    found = components({"teacher": frozen}, [trainee])
    # two fp32 moments of 110 numbers, and a step count for each of the two tensors
    assert found == (Component("teacher", 4, 0, 16, 0, 0, 0), Component("student", 110, 110, 440, 440, 888, 440))
    assert found[1].kept == 1768


def test_the_peak_is_shared_out() -> None:
    """One network learns at a time, so that only the largest gradients count; the process is what was there before."""
    networks = (Component("teacher", 1, 0, 100, 0, 0, 0), Component("fake", 1, 1, 40, 40, 80, 0))
    plan = Plan("cpu", (*networks, Component("student", 1, 1, 60, 60, 120, 60)), 1000, 300, 1, 1.0, ())
    assert plan.process == 300 - 260 and plan.gradients == 60
    assert plan.activations == 1000 - 40 - 60 - (100 + 120 + 240)


def test_memory_of_the_process_is_read_where_linux_counts_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    assert Resident.read(status) == Resident(1024 * 1024, 2048 * 1024)
    elsewhere = Resident.read(tmp_path / "absent")
    assert elsewhere.now == elsewhere.most > 1 << 20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts it")
def test_a_peak_can_be_forgotten() -> None:
    torch.ones(25_000_000)
    high = Resident.read().most
    forget_peak(torch.device("cpu"))
    assert Resident.read().most < high - 50e6


def test_time_in_words() -> None:
    assert [duration(s) for s in (0.5, 75, 3700, 200_000)] == ["0.5 s", "1 min 15 s", "1 h 1 min", "2.3 days"]
    assert Stage("steps", 10, 0.5).seconds == 5


TINY = ["training.batch_size=4", "device=cpu"]


@pytest.mark.parametrize(
    ("words", "networks"),
    [
        (
            ["distill", "domain=toy", "objective=didi", *TINY, "objective.baseline.group=2"],
            ["teacher", "student", "scorer", "fake"],
        ),
        (["pretrain", "domain=toy", *TINY, "model=micro"], ["model"]),
    ],
)
def test_a_dry_run_writes_nothing_but_a_table(
    words: list[str],
    networks: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert all(f" {name} " in said for name in networks)
    assert "training steps" in said and "tokens a step" in said and "Nothing was written" in said
    assert ("warm-up steps" in said) == (words[0] == "distill")  # those of the critics, which cost less
    assert not list(tmp_path.iterdir())


RECIPES = [name for name in group_options("experiment") if name.startswith(("owt_", "dplm_"))]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_composes_and_can_be_overridden(name: str) -> None:
    command = "pretrain" if name.endswith("_pretrain") else "distill"
    config = compose_jobs(command, [f"experiment={name}", "training.steps=7"])[0].config
    settings = build(find(command).settings, config)
    assert settings.training.steps == 7
    if name.startswith("dplm_"):
        assert settings.domain == "protein" and settings.teacher == name
    else:
        assert settings.domain == "language" and (settings.data["tokenizer"], settings.data["length"]) == ("gpt2", 1024)


# A domain of 50,257 tokens whose blocks are all masks, and a trunk so small that the vocabulary is all that costs.
FULL = """
import resource, sys, torch
sys.path.insert(0, sys.argv[1])
from gpu_language import Setting, our_step
from didi_core.models.dit import DiTConfig
torch.set_num_threads(1)
config = DiTConfig(hidden=16, layers=1, heads=2, conditioning=8)
step = our_step(Setting(config, 50_257, 4, 128, (), 1, torch.device("cpu")))
for i in range(3):
    told = step(i)
    assert all(torch.isfinite(torch.tensor(value)) for value in told.values()), told
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_three_steps_at_the_full_vocabulary_stay_within_two_gigabytes() -> None:
    """A tenth of a GB is one tensor of logits over all positions here; measured 1.1 GB, Python and torch included."""
    benchmarks = Path(__file__).resolve().parents[2] / "benchmarks"
    done = subprocess.run([sys.executable, "-c", FULL, str(benchmarks)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 2048
