"""Several processes: the same run as one with as many slices, resumed to the bit, one message when something fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from process_group import alone, outcome, start
from safetensors.torch import load_file
from tolerance import close

from didi_core.cli import check_parallel
from didi_core.errors import InputError
from didi_core.objectives.advantage import BaselineSettings
from didi_core.objectives.didi import Didi
from didi_core.processes import Processes, Pulse
from didi_core.storage.files import sha256
from didi_core.storage.run_dir import RunDirectory
from didi_core.training.engine import mean_scalars
from didi_core.training.settings import TrainingSettings

STEPS = 8
TOGETHER = """
import atexit, json, sys, torch
from didi_core.cli import guarded
from didi_core.errors import InputError
from didi_core import processes as runtime

def gradients(here):
    first, second, third = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((3,), (2, 2), (1,)))
    half = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    first.grad = torch.arange(3.0) * (here.rank + 1)
    half.grad = torch.full((2,), 1.0 + 2 * here.rank, dtype=torch.bfloat16)
    if here.rank == 1:
        second.grad = torch.full((2, 2), 4.0)
    here.all_reduce_gradients([first, second, third, half])
    assert third.grad is None
    return [p.grad.float().flatten().tolist() for p in (first, second, half)]

def act():
    with runtime.joined() as here:
        print("spoken by", here.rank)
        if sys.argv[1] == "all":
            raise InputError("the same mistake everywhere")
        if sys.argv[1] == "one" and here.rank == 1:
            raise InputError("only process 1 sees this")
        if sys.argv[1] == "killed" and here.rank == 1:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        received = here.broadcast({"run": here.rank})
        runtime.BUCKET = 3
        found = {"rank": here.rank, "received": received, "mean": here.mean({"b": here.rank, "a": 1})}
        print(json.dumps(found | {"gradients": gradients(here)}), file=sys.stderr)

class Left:
    def __del__(self):
        import os
        os.abort()

left = Left()  # as a thread of the group may do, where the interpreter ends while it is at work
atexit.register(print, "called at exit")
runtime.leave(guarded(act, ["distill"]))
"""


def same_weights(first: Path, second: Path) -> None:
    ours, theirs = load_file(first), load_file(second)
    assert ours.keys() == theirs.keys()
    for name in ours:
        close(ours[name], theirs[name], name=name)


def words(run_dir: Path, *more: str) -> list[str]:
    small = ["training.batch_size=16", "objective.baseline.group=4", "objective.reward.warmup=2"]
    return [
        "distill", "domain=toy", "objective=didi", f"run_dir={run_dir}",
        f"training.steps={STEPS}", "training.checkpoint_every=2",
        "training.log_every=1", "objective.reference=data", "evaluate.enabled=false", *small, *more,
    ]  # fmt: skip


# --- which process computes which slice


def test_slices_of_all_processes_are_the_slices_of_one() -> None:
    shared = [number for rank in range(3) for number in Processes(rank, 3).slices(2)]
    assert shared == list(Processes().slices(6)) == list(range(6))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    training = TrainingSettings(batch_size=24, accumulate=2)
    assert training.slice_size(3) == 4
    with pytest.raises(InputError, match="batch_size=24 cannot be shared evenly by 5 processes in 2 slice.*of 10"):
        training.slice_size(5)
    with pytest.raises(InputError, match=r"group=12 must divide the batch: got 24 samples in 4 slices of 6"):
        Didi(baseline=BaselineSettings(group=12)).check(training, 2)


def test_scalars_are_averaged_over_the_slices_that_have_them() -> None:
    assert mean_scalars([{"a": 1.0}, {"a": 3.0, "norm": 5.0}]) == {"a": 2.0, "norm": 5.0}
    assert Processes().mean({"a": 1.5}) == {"a": 1.5}


@pytest.mark.parametrize("asked", [["filter"], ["distill", "seed=1,2", "--multirun"]])
def test_what_runs_in_one_process_says_so(asked: list[str]) -> None:
    with pytest.raises(InputError, match="runs in one process: start it with didi .*distill, pretrain, sample"):
        check_parallel(asked)
    check_parallel(["pretrain", "seed=1"])


def test_a_gpu_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    Processes(0, 2).check_device(torch.device("cpu"))
    with pytest.raises(InputError, match=r"started 2 processes on a machine with 1 GPU: use --nproc-per-node=1"):
        Processes(0, 2).check_device(torch.device("cuda"))


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}, (), 2):
        pass
    with pytest.raises(InputError, match=r"begun by 2 process\(es\), and 1 would continue.*Start 2"):
        RunDirectory.open(tmp_path / "run", {}, ()).__enter__()
    assert "continued" not in json.loads((tmp_path / "run" / "run.json").read_text())


# --- signs of life


@pytest.mark.parametrize("silent", ["other", "store", "nobody", "failed"])
def test_a_process_ends_where_the_next_one_gives_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], silent: str
) -> None:
    """Whatever it waits for; and where the store does not answer, or another one has failed before."""
    ended, asked = threading.Event(), list[int]()
    monkeypatch.setattr("os._exit", lambda code: (asked.append(code), ended.set(), pulse.over.set()))
    store = dist.HashStore()
    monkeypatch.setattr("didi_core.processes._current", Processes(0, 2, store=store))
    if silent == "failed":
        store.set("failure", "1 2")
    pulse, other = Pulse(0, 2, store, 0.3), Pulse(1, 2, store, 0.3)
    if silent == "store":
        mute = SimpleNamespace(set=lambda *_: ended.wait(), get=lambda _: b"", check=lambda _: False)
        monkeypatch.setattr(pulse, "store", mute)
    pulse.start()
    if silent in ("nobody", "failed"):
        other.start()
    assert ended.wait(0.6 if silent == "nobody" else 10.0) == (silent != "nobody")
    pulse.stop()
    if silent in ("nobody", "failed"):
        other.stop()
    said = capsys.readouterr().err
    assert asked[:1] == {"nobody": [], "failed": [2]}.get(silent, [1])
    assert said.count("process 0 of 2 has had no sign of life from process 1 for 0.005 min") == (
        silent in ("other", "store")
    )


# --- two processes


def test_gradients_scalars_and_what_the_first_broadcasts(tmp_path: Path) -> None:
    codes, out, err = outcome(["-c", TOGETHER, "works"])
    assert codes == [0, 0], err
    assert out == ["spoken by 0\ncalled at exit\n", "called at exit\n"], "and nothing aborts after that"
    found = [json.loads(text.splitlines()[-1]) for text in err]
    for rank in (0, 1):
        assert found[rank]["rank"] == rank and found[rank]["received"] == {"run": 0}
        assert found[rank]["gradients"] == [[0.0, 1.5, 3.0], [2.0] * 4, [2.0, 2.0]]
        assert found[rank]["mean"] == {"b": 0.5, "a": 1.0}


@pytest.mark.parametrize(
    ("who", "codes", "message"),
    [
        pytest.param("all", [2, 2], "the same mistake everywhere", marks=pytest.mark.slow),
        ("one", [2, 2], "only process 1 sees this"),
        pytest.param("killed", [1, -signal.SIGKILL], "process 0 of 2 lost the conn.*repeat", marks=pytest.mark.slow),
    ],
)
def test_a_failure_ends_all_with_one_message(who: str, codes: list[int], message: str) -> None:
    ended, _, err = outcome(["-c", TOGETHER, who])
    assert ended == codes, err
    said = [line for text in err for line in text.splitlines() if line.startswith("didi_core:")]
    assert len(said) == 1 and re.search(message, said[0]), err


def killed_after(words: list[str], run_dir: Path, step: int, size: int) -> None:
    """Start a run in so many processes, and kill them all when a checkpoint is there."""
    started, store = start(["-m", "didi_core", *words], size)
    deadline = time.monotonic() + 240
    while not (run_dir / "checkpoints" / f"step_{step:07d}").exists():
        assert started[0].poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    for process in started:
        process.kill()
        process.communicate()
    del store
    assert not (run_dir / "student").exists()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
def test_two_processes_are_one_with_two_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: str) -> None:
    """Also that a run killed in the middle and repeated ends with the same bytes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of all: only then do they add in one order
    one, two, cut = (tmp_path / name for name in ("one", "two", "cut"))
    how = f"parallel={parallel}"
    alone(words(one, "training.accumulate=2"))
    command = ["-m", "didi_core", *words(two, how)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *command]
    done = subprocess.run(torchrun, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run directory:") == 1 and done.stderr.count(f"distill {STEPS}/{STEPS}") == 1
    for name in ("model.safetensors", "scorer.safetensors"):
        same_weights(two / "student" / name, one / "student" / name)
    record = json.loads((two / "run.json").read_text())
    assert (record["world_size"], record["backend"], record["finished"]) == (2, "gloo", True)
    steps = [json.loads(line)["step"] for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 + STEPS + 1))

    killed_after(words(cut, how), cut, 4, 2)
    codes, _, err = outcome(["-m", "didi_core", *words(cut, how)])
    assert codes == [0, 0] and "continuing after step" in err[0] + err[1], err
    for name in ("model.safetensors", "scorer.safetensors"):
        assert sha256(cut / "student" / name) == sha256(two / "student" / name)


@pytest.mark.slow
def test_a_sharded_run_is_killed_and_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """Begun by four, continued by two and then by one, which holds everything, and by two that replicate."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    alone(words(whole, "training.accumulate=4"))
    killed_after(words(cut, "parallel=shard"), cut, 2, 4)
    killed_after(words(cut, "parallel=shard", "training.accumulate=2"), cut, 4, 2)
    newest = max((cut / "checkpoints").iterdir())
    assert {p.name for p in newest.glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}
    killed_after(words(cut, "parallel=shard", "training.accumulate=4"), cut, 6, 1)
    codes, _, err = outcome(["-m", "didi_core", *words(cut, "parallel=replicate", "training.accumulate=2")])
    assert codes == [0, 0] and "continuing after step" in err[0], err
    for name in ("model.safetensors", "scorer.safetensors"):
        same_weights(cut / "student" / name, whole / "student" / name)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
def test_pretrain_with_two_processes(tmp_path: Path, parallel: str) -> None:
    sizes = ["training.steps=3", "training.batch_size=8", "validate_every=3", "validation_batches=1"]
    common = ["pretrain", "domain=toy", "model=nano", *sizes]
    alone([*common, f"run_dir={tmp_path / 'one'}", "training.accumulate=2"])
    codes, out, err = outcome(["-m", "didi_core", *common, f"run_dir={tmp_path / 'two'}", f"parallel={parallel}"])
    assert codes == [0, 0], err
    assert "validation loss" in out[0] and not out[1]
    same_weights(*(tmp_path / run / "model" / "model.safetensors" for run in ("one", "two")))


@pytest.mark.slow
def test_a_wrong_setting_under_several_processes_is_one_message(tmp_path: Path) -> None:
    codes, _, err = outcome(["-m", "didi_core", *words(tmp_path / "run", "training.stepz=3")])
    assert codes == [2, 2]
    assert sum(text.count("didi_core:") for text in err) == 1 and not any("Traceback" in text for text in err), err
    codes, _, err = outcome(["-m", "didi_core", *words(tmp_path / "run", "objective.baseline.group=16")])
    assert codes == [2, 2] and not (tmp_path / "run").exists()
    assert "got 16 samples in 2 slices of 8" in err[0] + err[1]
