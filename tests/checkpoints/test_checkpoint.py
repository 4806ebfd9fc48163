"""Model files: what is saved comes back exactly; what is missing, damaged or of another kind is reported by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from didi_core.checkpoints.card import (
    SEALED,
    load_denoiser,
    load_scorer,
    model_folder,
    read_card,
    save_model,
    save_scorer,
)
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_toy import ToyDomain


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, DiT, torch.nn.Module]:
    model = DiT(DiTConfig(16, 2, 2, 8), ToyDomain().vocabulary)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    scorer = scorer_from_trunk(model, 1)
    save_model(tmp_path / "student", model, {"domain": "toy"})
    save_scorer(tmp_path / "student", scorer)
    return tmp_path, model.eval(), scorer.eval()


def test_networks_come_back_exactly(saved: tuple[Path, DiT, torch.nn.Module]) -> None:
    folder, model, scorer = saved
    tokens = ToyDomain().template([5, 9])
    tokens[0, 2] = 3
    for path in (folder, folder / "student"):
        loaded, guide = load_denoiser(path), load_scorer(path)
        assert not loaded.training
        assert torch.equal(loaded(tokens), model(tokens))
        assert guide is not None and torch.equal(guide(tokens), scorer(tokens))


def test_saving_twice_writes_the_same_bytes(saved: tuple[Path, DiT, torch.nn.Module], tmp_path: Path) -> None:
    folder, model, _ = saved
    save_model(tmp_path / "again", model, {"domain": "toy"})
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "student/model.safetensors").read_bytes()


def test_loading_leaves_the_global_random_stream_alone(saved: tuple[Path, DiT, torch.nn.Module]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_denoiser(saved[0])
    load_scorer(saved[0])
    assert torch.equal(torch.rand(1), expected)


def test_model_without_scorer(saved: tuple[Path, DiT, torch.nn.Module], tmp_path: Path) -> None:
    save_model(tmp_path / "bare", saved[1])
    assert load_scorer(tmp_path / "bare") is None


def test_missing_places_are_told_apart(saved: tuple[Path, DiT, torch.nn.Module], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        model_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no model"):
        model_folder(tmp_path / "empty")
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(InputError, match="didi import source=.*empty domain="):
        model_folder(tmp_path / "empty")
    (tmp_path / "empty/run.json").write_text("{}")
    with pytest.raises(InputError, match="has not finished"):
        model_folder(tmp_path / "empty")
    (saved[0] / "student/model.safetensors").unlink()
    with pytest.raises(InputError, match="model.safetensors is missing"):
        load_denoiser(saved[0])


def test_flipped_byte_is_noticed(saved: tuple[Path, DiT, torch.nn.Module]) -> None:
    for name, load in (("scorer", load_scorer), ("model", load_denoiser)):
        path = saved[0] / "student" / f"{name}.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(InputError, match=f"{name}.safetensors does not match the hash"):
            load(saved[0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "judge"}, "holds a judge, not a denoiser"),
        ({"architecture": "dot"}, "unknown architecture 'dot'.*Did you mean 'dit'"),
        ({"config": {"hidden": 16, "layers": 3, "heads": 2, "conditioning": 8}}, "does not fit a network of its sizes"),
        ({"config": {"hiden": 16}}, "cannot be built"),
        ({"vocabulary": {"size": 0}}, "cannot be built"),
    ],
)
def test_card_of_another_model(saved: tuple[Path, DiT, torch.nn.Module], change: dict[str, object], told: str) -> None:
    path = saved[0] / "student/card.json"
    changed = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="card.json has changed since it was written"):
        load_denoiser(saved[0])
    del changed["card_sha256"]
    path.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=told):
        load_denoiser(saved[0])


def test_a_flipped_bit_in_a_card_is_refused_or_changes_nothing(saved: tuple[Path, DiT, torch.nn.Module]) -> None:
    folder = saved[0] / "student"
    content, card = (folder / "card.json").read_bytes(), read_card(folder)
    refused = 0
    for at in range(0, len(content), 5):
        (folder / "card.json").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            found = read_card(folder)
        except InputError as error:
            assert str(folder / "card.json") in str(error)
            refused += 1
        else:
            assert {key: found.get(key) for key in SEALED} == {key: card.get(key) for key in SEALED}
    assert refused > 0.8 * len(content) / 5


def test_a_card_may_be_added_to_and_an_older_one_is_read_with_a_word(
    saved: tuple[Path, DiT, torch.nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved[0] / "student/card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "note": "mine"}))
    load_denoiser(saved[0])
    assert capsys.readouterr().err == ""
    del card["card_sha256"]
    path.write_text(json.dumps(card))
    load_denoiser(saved[0])
    assert f"{path} is of an older version" in capsys.readouterr().err


def test_damaged_card(saved: tuple[Path, DiT, torch.nn.Module]) -> None:
    path = saved[0] / "student/card.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(InputError, match="card.json is damaged"):
        load_denoiser(saved[0])
    path.write_text("{}")
    with pytest.raises(InputError, match="not a model card: it lacks architecture, config, vocabulary, sha256"):
        load_denoiser(saved[0])


def test_only_networks_with_weights_are_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ExactTeacher cannot be saved"):
        save_model(tmp_path, ToyDomain().teacher("exact"))
