"""The key ``compile``: the rule of auto, and what run.json and card.json say of it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tolerance import close

from didi_core.checkpoints.card import read_card
from didi_core.cli import main
from didi_core.commands import compiling
from didi_core.commands.common import make_domain
from didi_core.commands.compiling import PAYS, SHORT, Blocks, sampling_calls, training_calls
from didi_core.device import Machine
from didi_core.models.compiled import Compilation
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.run import Run
from didi_core.training.settings import TrainingSettings

TINY = ["domain=toy", "model.hidden=16", "model.layers=1", "model.heads=2", "model.conditioning=8"]
SHORT_RUN = ["training.steps=3", "training.batch_size=4", "validate_every=3", "validation_batches=1", "device=cpu"]


def network(layers: int = 2) -> DiT:
    return DiT(DiTConfig(hidden=16, layers=layers, heads=2, conditioning=8), make_domain("toy", {}).vocabulary)


def on(kind: str) -> Run:
    return Run(make_domain("toy", {}), Machine(torch.device(kind), "fp32"))


@pytest.mark.parametrize(
    ("kind", "calls", "seconds", "label"),
    [
        ("cpu", PAYS, 0, "off (auto: on cpu)"),
        ("cuda", PAYS // 2 - 1, 0, f"off (auto: some {PAYS - 2:,} calls of a block, fewer than {PAYS:,})"),
        ("cuda", PAYS // 2, 0, "on (auto: long enough to pay)"),
        ("cuda", PAYS, SHORT - 1, f"off (auto: training.seconds={SHORT - 1:g} is below {SHORT:g})"),
        ("cuda", PAYS, SHORT, "on (auto: long enough to pay)"),
    ],
)
def test_auto_compiles_on_cuda_where_it_pays(kind: str, calls: int, seconds: float, label: str) -> None:
    blocks = Blocks.of("auto", on(kind), network(), calls, seconds)
    assert blocks.label == label and blocks.compiled == label.startswith("on")


def test_asked_for_it_is_on_or_off_anywhere() -> None:
    assert Blocks.of(True, on("cpu"), network(), 1).label == "on (asked for)"
    assert Blocks.of(False, on("cuda"), network(), PAYS).label == "off (asked for)"


def test_calls_are_those_of_the_whole_command() -> None:
    assert training_calls(TrainingSettings(steps=10, batch_size=32, accumulate=4), 20) == 800
    assert sampling_calls(num=65, batch_size=64, steps=16) == 32


def test_a_network_without_such_blocks_is_refused_or_recorded() -> None:
    judge = Judge(JudgeConfig(hidden=16, layers=1, heads=2), make_domain("toy", {}).vocabulary)
    assert Blocks.of("auto", on("cuda"), judge, PAYS).label == "off (a Judge has no blocks that can be compiled)"
    with pytest.raises(Exception, match="compile=true: a Judge has no blocks"):
        Blocks.of(True, on("cpu"), judge, PAYS)


def pretrained(tmp_path: Path, name: str, *words: str) -> tuple[dict[str, torch.Tensor], str, str]:
    """Weights of a short run, and what its record and its card say."""
    place = tmp_path / name
    assert main(["pretrain", *TINY, *SHORT_RUN, f"run_dir={place}", *words]) == 0
    said = json.loads((place / "run.json").read_text())["compile"]
    card = read_card(place / "model")["training"]["compile"]
    return load_file(place / "model" / "model.safetensors"), said, card


def test_a_run_with_compiled_blocks_makes_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "Compilation", partial(Compilation, "aot_eager"))
    plain, off, also = pretrained(tmp_path, "plain")
    assert off == also == "off (auto: on cpu)"
    weights, said, card = pretrained(tmp_path, "compiled", "compile=true")
    assert said == card == "on (asked for)" and list(weights) == list(plain)
    for name, weight in weights.items():
        close(weight, plain[name], name=name)

    drawn = ["sample", f"run={tmp_path / 'compiled'}", "num=2", "steps=2", "device=cpu"]
    assert main([*drawn, "compile=true", f"run_dir={tmp_path / 'drawn'}"]) == 0
    assert json.loads((tmp_path / "drawn" / "run.json").read_text())["compile"] == "on (asked for)"
    assert '"compiled": true' in next((tmp_path / "drawn").glob("samples.*")).read_text()


def test_a_run_goes_on_where_compilation_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(graph: object, inputs: object) -> object:
        raise RuntimeError("g++ is not installed")

    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "Compilation", partial(Compilation, absent))
    weights, said, card = pretrained(tmp_path, "failed", "compile=true")
    assert said == card == "off (failed: RuntimeError: g++ is not installed)" and weights
    assert capsys.readouterr().err.count("torch.compile failed") == 1


@pytest.mark.parametrize("word", ["compile=maybe", "compile=1", "compile=null"])
def test_another_value_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *TINY, word]) == 2
    assert "compile is true or false or one of auto" in capsys.readouterr().err
