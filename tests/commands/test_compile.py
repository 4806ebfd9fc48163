"""The key ``compile``: the rule of auto, and what run.json and card.json say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from didi_core.commands.compiling import PAYS, SHORT, Blocks, check_compile, sampling_calls, training_calls
from didi_core.device import Machine
from didi_core.errors import InputError
from didi_core.models.compiled import Compilation
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.graphs import Graphs
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
    assert "compile is true or false or one of auto, graphs" in capsys.readouterr().err


def graphs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that repeat a call instead of recording it."""

    def again(call: Callable[[], torch.Tensor]) -> tuple[Callable[[], object], torch.Tensor]:
        out = call().clone()
        return lambda: out.copy_(call()), out

    monkeypatch.setattr(compiling, "Graphs", partial(Graphs, again, "cpu"))


def test_graphs_are_recorded_with_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs_on_a_cpu(monkeypatch)
    drawn = ["sample", "domain=toy", "run=bundled", "num=8", "batch_size=2", "steps=2", "device=cpu", "length=8"]
    for name, word in (("plain", "compile=auto"), ("replayed", "compile=graphs")):
        assert main([*drawn, word, f"run_dir={tmp_path / name}"]) == 0
    record = json.loads((tmp_path / "replayed" / "run.json").read_text())["compile"]
    assert record.startswith("CUDA graphs (asked for): ") and " 0 calls replayed" not in record
    plain, replayed = (next((tmp_path / name).glob("samples.*")).read_text() for name in ("plain", "replayed"))
    assert replayed.replace('"graphs": true, ', "") == plain and '"graphs": true' in replayed


def test_a_distillation_replays_its_teacher_and_the_card_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs_on_a_cpu(monkeypatch)
    words = ["distill", "domain=toy", "objective=cross_entropy", "training.steps=2", "training.batch_size=4"]
    shown = ["compile=graphs", "evaluate.num=4", "evaluate.steps=[2]", "evaluate.teacher_steps=[2]"]
    assert main([*words, *shown, "device=cpu", f"run_dir={tmp_path}"]) == 0
    card = read_card(tmp_path / "student")["training"]["compile"]
    record = json.loads((tmp_path / "run.json").read_text())["compile"]
    assert all(told.startswith("CUDA graphs (asked for): ") for told in (card, record))
    assert " 0 calls replayed" not in record


def test_graphs_are_refused_where_there_can_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="compile=graphs needs a CUDA device, and this is cpu"):
        Blocks.of("graphs", on("cpu"), network(), 1)
    judge = Judge(JudgeConfig(hidden=16, layers=1, heads=2), make_domain("toy", {}).vocabulary)
    with pytest.raises(InputError, match="compile=graphs: a Judge cannot be replayed"):
        Blocks.of("graphs", on("cuda"), judge, 1)
    with pytest.raises(InputError, match="compile=graphs and parallel=shard"):
        check_compile("graphs", "shard", TrainingSettings())
    assert main(["pretrain", *TINY, "compile=graphs"]) == 2
    assert "pretrain makes few" in capsys.readouterr().err


def test_graphs_end_where_networks_are_sharded(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = Blocks.of("graphs", on("cuda"), network(), 1)
    assert blocks.label == "CUDA graphs (asked for): 0 made, 0 calls replayed, 0 as they are" and not blocks.recorded
    blocks.stop("shard", TrainingSettings())
    assert blocks.label == "off (CUDA graphs failed: networks are sharded)"
    assert "networks are sharded" in capsys.readouterr().err
