"""Checkpoints out and back: bit for bit, through the commands, as a user would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from large_files import folder, tokenizer
from safetensors.torch import load_file, save_file
from tolerance import close

from didi_core.checkpoints.card import load_denoiser, load_scorer, read_card, save_model, save_scorer
from didi_core.cli import main
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.esm import Esm, EsmConfig
from didi_core.models.llama import Llama
from didi_core.models.scorer import scorer_from_trunk
from didi_core.streams import seeded
from didi_protein.vocabulary import VOCABULARY
from didi_toy import ToyDomain

TOKENS = ToyDomain().template([5, 9])


def make_run(folder: Path, normed: bool = True, positions: int = 0) -> Path:
    with seeded(0, "test"):
        model = DiT(DiTConfig(16, 2, 2, 8, positions=positions), ToyDomain().vocabulary).eval()
        scorer = scorer_from_trunk(model, 1, normed=normed)
    card = {"domain": "toy", "data": {}, "lengths": {"32": 1}, "training": {"steps": 3}}
    save_model(folder / "student", model, card)
    save_scorer(folder / "student", scorer)
    return folder


def same_networks(first: Path, second: Path) -> bool:
    pairs = [(load_denoiser(first), load_denoiser(second)), (load_scorer(first), load_scorer(second))]
    states = [(a.state_dict(), b.state_dict()) for a, b in pairs if a is not None and b is not None]
    assert len(states) == 2
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in states)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("layout", ["hf", "didi"])
def test_out_and_back_is_exact(tmp_path: Path, layout: str, normed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run, out, back = make_run(tmp_path / "run", normed), tmp_path / "out", tmp_path / "back"
    assert main(["export", f"run={run}", f"format={layout}", f"out={out}"]) == 0
    said = capsys.readouterr().out
    assert ("which their discriminator lacks" in said) == (layout == "didi" and normed)
    assert main(["import", f"source={out}", f"run_dir={back}", "domain=toy"]) == 0
    assert same_networks(run, back)
    if layout == "hf":
        assert read_card(back / "student")["training"] == {"steps": 3}
    assert main(["sample", f"run={back}", "num=2", "steps=2", f"out={tmp_path / 'made.jsonl'}"]) == 0


def test_a_network_of_esms_architecture_goes_out_and_back(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    from didi_core.huggingface import EsmForMaskedDiffusion

    with seeded(0, "test"):
        model = Esm(EsmConfig(16, 2, 2, 32), VOCABULARY).eval()
        scorer = scorer_from_trunk(model, 1)
    run, out, back = tmp_path / "run", tmp_path / "out", tmp_path / "back"
    save_model(run / "student", model, {"domain": "protein", "data": {}, "lengths": {"8": 1}})
    save_scorer(run / "student", scorer)
    assert main(["export", f"run={run}", f"out={out}"]) == 0
    assert main(["import", f"source={out}", f"run_dir={back}", "domain=protein"]) == 0
    assert same_networks(run, back) and same_networks(run, out)
    tokens = torch.tensor([[0, 32, 5, 32, 2], [0, 32, 32, 2, 1]])
    read = AutoModelForMaskedLM.from_pretrained(out)
    assert isinstance(read, EsmForMaskedDiffusion)
    close(read(input_ids=tokens).logits, model(tokens))
    made = read.generate(num=2, steps=2, contig="2/MKT/3")
    assert all(sample.text[2:5] == "MKT" for sample in made.samples)
    read.save_pretrained(tmp_path / "again")
    assert same_networks(run, tmp_path / "again")
    assert main(["push", f"run={run}", f"to={tmp_path / 'pushed'}"]) == 0
    assert "import EsmForMaskedDiffusion" in (tmp_path / "pushed" / "README.md").read_text()


@pytest.mark.parametrize(("kind", "tied"), [("llada", True), ("llada2", False)])
def test_a_network_like_lladas_goes_out_and_back_in_its_type(kind: str, tied: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    from didi_core.huggingface import LlamaForMaskedDiffusion

    hub = tokenizer(folder(tmp_path / "hub", kind, tied=tied, dtype=torch.bfloat16))
    run, out, back = tmp_path / "run", tmp_path / "out", tmp_path / "back"
    data = ("domain=language", f"data.tokenizer={hub}", "data.length=12")
    assert main(["import", f"source={hub}", f"run_dir={run}", *data]) == 0
    model = load_denoiser(run)
    with seeded(0, "test"):
        save_scorer(run / "student", scorer_from_trunk(model, 1))
    assert main(["export", f"run={run}", f"out={out}"]) == 0
    assert main(["import", f"source={out}", f"run_dir={back}", *data]) == 0
    assert same_networks(run, back) and same_networks(run, out)
    read = AutoModelForMaskedLM.from_pretrained(out)
    assert isinstance(read, LlamaForMaskedDiffusion) and isinstance(model, Llama)
    for network in (load_denoiser(out), load_denoiser(back), read.denoiser):
        assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    tokens = torch.full((2, 6), model.vocabulary.mask)
    assert torch.equal(read(input_ids=tokens).logits, model(tokens))
    assert len(read.generate(num=2, steps=2).samples) == 2
    assert main(["push", f"run={run}", f"to={tmp_path / 'pushed'}"]) == 0
    assert "import LlamaForMaskedDiffusion" in (tmp_path / "pushed" / "README.md").read_text()


def test_what_didi_instructs_layout_has_no_place_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "run" / "student", Esm(EsmConfig(16, 1, 2, 32), VOCABULARY), {"domain": "protein"})
    assert main(["export", f"run={tmp_path / 'run'}", "format=didi", f"out={tmp_path / 'out'}"]) == 2
    assert "holds a Esm" in capsys.readouterr().err


def test_a_hugging_face_folder_loads_like_any_other(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    from didi_core.huggingface import DiTForMaskedDiffusion

    run = make_run(tmp_path / "run", positions=16)
    assert main(["export", f"run={run}", f"out={tmp_path / 'out'}"]) == 0
    own, auto = (kind.from_pretrained(tmp_path / "out") for kind in (DiTForMaskedDiffusion, AutoModelForMaskedLM))
    expected, scorer = load_denoiser(run)(TOKENS), load_scorer(run)
    for model in (own, auto):
        assert not model.training and torch.equal(model(input_ids=TOKENS).logits, expected)
        assert scorer is not None and torch.equal(model.scorer(TOKENS), scorer(TOKENS))
    labels = torch.full_like(TOKENS, -100)
    labels[0, 1] = 3
    close(own(TOKENS, labels=labels).loss, torch.nn.functional.cross_entropy(expected[0, 1:2], labels[0, 1:2]))
    own.save_pretrained(tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_didi_layout_has_their_names(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", normed=False)
    assert main(["export", f"run={run}", "format=didi", f"out={tmp_path / 'out'}"]) == 0
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(load_denoiser(run).state_dict())
    names = set(load_file(tmp_path / "out" / "discriminator.safetensors"))
    head = {name for name in names if name.startswith("output_layer.")}
    classic = ("weight_orig", "weight_u", "weight_v", "bias")
    assert head == {f"output_layer.main.{i}.{part}" for i in (0, 2) for part in classic}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import"], "source is missing"),
        (["import", "source=a.ckpt"], "domain is missing"),
        (["import", "source=a.ckpt", "domain=toy"], "source=a.ckpt: there is no such file"),
        (["import", "source=a.ckpt", "domain=toy", "weights=best"], "unknown weights 'best'"),
        (["import", "source=a.ckpt", "domain=toy", "heads=0"], "heads=0 is out of range"),
        (["export", "out=somewhere"], "run is missing"),
        (["export", "run=nowhere", "out=somewhere"], "nowhere does not exist"),
        (["export", "run=a", "out=b", "format=onnx"], "unknown format 'onnx'"),
    ],
)
def test_wrong_input_is_told(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", positions=16)
    assert main(["export", f"run={run}", "format=didi", f"out={tmp_path / 'out'}"]) == 2
    assert "a table of 16 absolute positions" in capsys.readouterr().err
    assert main(["export", f"run={run}", f"out={run}"]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_damaged_export_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    assert main(["export", f"run={run}", f"out={out}"]) == 0
    tensors = load_file(out / "model.safetensors")
    tensors.pop("denoiser.blocks.0.attn_out.weight")
    save_file(tensors, out / "model.safetensors")
    assert main(["import", f"source={out}", "domain=toy", f"run_dir={tmp_path / 'back'}"]) == 2
    said = capsys.readouterr().err
    assert "config.json does not fit a network of its sizes: missing tensors blocks.0.attn_out.weight" in said
    assert main(["import", f"source={run}", "domain=toy", "data.symbols=7", f"run_dir={tmp_path / 'back'}"]) == 2
    assert "was made for a vocabulary of" in capsys.readouterr().err
