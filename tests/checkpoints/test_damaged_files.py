"""Files that are not what they should be end in one message with the file's name, and never in other weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from didi_core.checkpoints.card import load_denoiser, write_card
from didi_core.checkpoints.importers import import_checkpoint
from didi_core.checkpoints.weights import check_finite
from didi_core.cli import WRONG, main
from didi_core.errors import InputError
from didi_core.storage.files import sha256
from didi_toy import ToyDomain

TOY = ["domain=toy", "model=micro", "training.batch_size=8", "validation_batches=1", "training.steps=1"]
NO_OBJECTS = ["", "[]", "3", '"x"', "null", '{"a": ', "[" * 3000, "NaN", "\ufffe{}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model, samples and a report."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["pretrain", *TOY, f"run_dir={folder / 'run'}"]) == 0
    assert main(["sample", f"run={folder / 'run'}", "num=4", "steps=2", f"out={folder / 's.jsonl'}"]) == 0
    words = [f"samples={folder / 's.jsonl'}", "domain=toy", "num=4", f"out={folder / 'report'}"]
    assert main(["evaluate", *words]) == 0
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def refused(words: list[str], named: Path | str, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that ends with exit code 2 and names the file."""
    assert main(words) == WRONG
    err = capsys.readouterr().err
    assert str(named) in err and "Traceback" not in err
    return err


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("text", NO_OBJECTS)
@pytest.mark.parametrize("name", ["run/model/card.json", "run/run.json", "report/report.json", "report/run.json"])
def test_json_that_is_no_object(own: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (own / name).write_text(text)
    words = {
        "run/model/card.json": ["sample", f"run={own / 'run'}", f"out={own / 'x.jsonl'}"],
        "run/run.json": ["evaluate", f"run={own / 'run'}", "teacher=bundled", f"out={own / 'x'}"],
        "report/report.json": ["report", "compare", str(own / "report"), str(own / "report")],
        "report/run.json": ["report", "compare", str(own / "report"), str(own / "report")],
    }[name]
    refused(words, own / name, capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", []), ("config", {"hidden": -4}), ("config", {"layers": "many"}), ("vocabulary", {"size": 10**30}),
        ("vocabulary", 3), ("sha256", "abc"), ("architecture", 7), ("architecture", "dti"), ("data", [1]),
        ("lengths", 5),
    ],
)  # fmt: skip
def test_a_card_with_a_strange_entry(own: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(own / "run/model/card.json", lambda card: card.update({key: value}))
    refused(["sample", f"run={own / 'run'}", f"out={own / 'x.jsonl'}"], own / "run/model/card.json", capsys)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(own: Path, value: float) -> None:
    path = own / "run/model/model.safetensors"
    tensors = load_file(path)
    name = sorted(name for name, tensor in tensors.items() if tensor.is_floating_point())[3]
    tensors[name].view(-1)[1] = value
    save_file(tensors, path)
    card = json.loads(path.with_name("card.json").read_text())
    write_card(path.parent, {**card, "sha256": {path.name: sha256(path)}})
    with pytest.raises(InputError, match=f"1 of .* values of {name} are nan or inf"):
        load_denoiser(own / "run")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_of_many_that_is_none_is_found(value: float, dtype: torch.dtype) -> None:
    for at in (0, 1, 40, 98):
        weight = torch.randn(99, generator=torch.Generator().manual_seed(at)).to(dtype)
        check_finite({"w": weight, "none": weight[:0], "count": torch.tensor(3)}, "x")
        weight[at] = value
        with pytest.raises(InputError, match="x: 1 of 99 values of w are nan or inf"):
            check_finite({"w": weight}, "x")


def test_a_peers_weights_that_are_no_numbers_are_refused_by_name(own: Path, tmp_path: Path) -> None:
    tensors = load_file(own / "run/model/model.safetensors")
    tensors["vocab_embed.embedding"][0, 0] = torch.nan
    (tmp_path / "peer").mkdir()
    save_file(tensors, tmp_path / "peer/model.safetensors")
    with pytest.raises(InputError, match="vocab_embed.embedding are nan or inf"):
        import_checkpoint(str(tmp_path / "peer"), ToyDomain().vocabulary, heads=2)


@pytest.mark.parametrize("weight_map", [3, {"a": 1}, {"a": "../x"}, {}, None])
def test_an_index_that_names_no_files(tmp_path: Path, weight_map: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError, match="index.json"):
        import_checkpoint(str(tmp_path), ToyDomain().vocabulary)


@pytest.mark.parametrize("line", ["[1]", '{"step": "x"}', "3"])
def test_a_line_that_is_no_line_of_metrics(own: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = own / "run/metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    words = ["evaluate", f"run={own / 'run'}", "teacher=bundled", "num=4", "steps=[2]", "teacher_steps=[2]"]
    refused([*words, f"out={own / 'x'}"], path, capsys)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_changed_cache_is_named_and_drawn_again(own: Path, share: float, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", f"run={own / 'run'}", "num=4", "steps=[2]", "teacher=bundled", "teacher_steps=[2]"]
    assert main([*words, f"out={own / 'first'}"]) == 0
    kept = sorted((own / "run/evaluation").glob("*.jsonl"))
    before = [path.read_bytes().partition(b"\n")[2] for path in kept]
    for path in kept:
        content = bytearray(path.read_bytes())
        content[int(share * len(content))] ^= 1
        path.write_bytes(bytes(content))
    capsys.readouterr()
    assert main([*words, f"out={own / 'second'}"]) == 0
    assert capsys.readouterr().err.count("its samples are drawn again") == len(kept)
    assert [path.read_bytes().partition(b"\n")[2] for path in kept] == before
