"""Ctrl-C, SIGTERM and SIGHUP end a training after the current step is saved; the printed command continues it."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from didi_core.cli import INTERRUPTED, main
from didi_core.processes import STARTED_BY
from didi_core.training import stopping as module
from didi_core.training.engine import Engine
from didi_core.training.stopping import REPEATED, SIGNALS, end_like_ctrl_c, stopping

TOY = ["pretrain", "domain=toy", "model=micro", "training.batch_size=8", "validation_batches=1", "training.steps=4"]


@pytest.fixture(autouse=True)
def signals_that_act() -> Iterator[None]:
    """A training leaves signals ignored that its starter ignores: SIGHUP under nohup, SIGINT behind a shell's ``&``."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in (number for number, handler in before.items() if handler == signal.SIG_IGN):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopping() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("number", SIGNALS)
def test_what_torchrun_hands_on_is_no_second_signal(
    number: signal.Signals, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm sends its signal to torchrun and to the processes that it has started, and torchrun sends it to them."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(module, "_taken", float("-inf"))
    for name in STARTED_BY:
        monkeypatch.setenv(name, "1")
    end_like_ctrl_c()
    if training:
        with stopping() as asked:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            assert asked()
            now = REPEATED + 1
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    else:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # while the command says that it was interrupted


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopped_training_is_saved_and_goes_on_by_the_line_that_is_printed(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "it's a run=1"
    assert main([*TOY, f"run_dir={whole}"]) == 0
    own = Engine.step

    def step(engine: Engine, number_of_step: int) -> dict[str, float]:
        if number_of_step == 1:
            os.kill(os.getpid(), number)
        return own(engine, number_of_step)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "step", step)
        assert main([*TOY, f"run_dir={folder}"]) == INTERRUPTED
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_0000002"]
    line = re.search(r"To go on: didi (.*)", capsys.readouterr().err)
    assert line is not None
    assert main(shlex.split(line[1])) == 0
    assert (folder / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


def test_dropout_is_that_of_the_step_and_of_the_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, weights = [*TOY, "model.dropout=0.3"], "model/model.safetensors"
    whole, again, stopped, cut, other = (tmp_path / name for name in ("whole", "again", "stopped", "cut", "other"))
    assert main([*words, f"run_dir={whole}"]) == 0
    torch.rand(7)  # a state that the program finds is not what it goes by
    assert main([*words, f"run_dir={again}"]) == 0
    own = Engine.step
    with monkeypatch.context() as patched:

        def step(engine: Engine, number: int) -> dict[str, float]:
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return own(engine, number)

        patched.setattr(Engine, "step", step)
        assert main([*words, f"run_dir={stopped}"]) == INTERRUPTED
    torch.rand(3)
    assert main([*words, f"run_dir={stopped}"]) == 0
    assert main([*TOY, f"run_dir={cut}"]) == main([*words, f"run_dir={other}", "seed=1"]) == 0
    found = [(folder / weights).read_bytes() for folder in (whole, again, stopped)]
    assert found[0] == found[1] == found[2]
    assert (cut / weights).read_bytes() != found[0] != (other / weights).read_bytes()
