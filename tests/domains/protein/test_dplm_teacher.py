"""DPLM checkpoints as teachers: the hub's layout with its old names, Lightning files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dplm_files import CONFIG, legacy_names, random_model, write_folder
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from tolerance import close
from torch import Tensor
from transformers import EsmForMaskedLM

from didi_core.checkpoints.importers import import_checkpoint
from didi_core.errors import InputError
from didi_protein.domain import ProteinDomain
from didi_protein.teachers import DPLM
from didi_protein.vocabulary import EOS, MASK, PAD, VOCABULARY


@pytest.fixture(scope="module")
def original() -> EsmForMaskedLM:
    return random_model()


@pytest.fixture
def folder(original: EsmForMaskedLM, tmp_path: Path) -> Path:
    return write_folder(tmp_path, original)


def tokens() -> Tensor:
    """Two proteins of different length, partly masked."""
    rows = torch.full((2, 16), PAD)
    for row, length in zip(rows, (14, 9), strict=True):
        row[0], row[length + 1] = 0, EOS
        row[1 : length + 1] = torch.arange(length) + 4
        row[3:7] = MASK
    return rows


@torch.no_grad()
def check_same(original: EsmForMaskedLM, teacher: torch.nn.Module) -> None:
    batch = tokens()
    real = batch != PAD
    theirs = original(input_ids=batch, attention_mask=real).logits
    close(teacher(batch)[real], theirs[real])
    assert not teacher.training


def test_hub_layout_with_its_old_names(original: EsmForMaskedLM, folder: Path) -> None:
    check_same(original, ProteinDomain().teacher(str(folder)))
    told = import_checkpoint(str(folder), VOCABULARY)
    assert {name.split(".")[1] for name in told.ignored} == {"embeddings", "contact_head"}


def test_first_upload_is_known_by_its_model_type(original: EsmForMaskedLM, folder: Path) -> None:
    changed = {k: v for k, v in CONFIG.items() if k != "dplm_type"} | {"architectures": ["ESM_HF_FLASHATTN"]}
    (folder / "config.json").write_text(json.dumps(changed))
    check_same(original, ProteinDomain().teacher(str(folder)))


def test_several_files_with_an_index(original: EsmForMaskedLM, folder: Path) -> None:
    """As dplm_3b is published."""
    state = legacy_names(original)
    names = sorted(state)
    (folder / "pytorch_model.bin").unlink()
    places = {name: f"pytorch_model-0000{1 + i % 4}-of-00004.bin" for i, name in enumerate(names)}
    for file in set(places.values()):
        torch.save({name: state[name] for name in names if places[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    check_same(original, ProteinDomain().teacher(str(folder)))
    (folder / "pytorch_model-00002-of-00004.bin").unlink()
    with pytest.raises(InputError, match="pytorch_model-00002-of-00004.bin is missing"):
        ProteinDomain().teacher(str(folder))


def test_safetensors_of_present_transformers(original: EsmForMaskedLM, tmp_path: Path) -> None:
    original.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    check_same(original, ProteinDomain().teacher(str(tmp_path)))


@pytest.mark.parametrize("prefix", ["model.net.", "net.", "model."])
def test_lightning_file_needs_no_configuration(original: EsmForMaskedLM, tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: value for name, value in legacy_names(original).items()}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 10}, tmp_path / "last.ckpt")
    check_same(original, ProteinDomain().teacher(str(tmp_path / "last.ckpt")))


def test_bare_safetensors_file(original: EsmForMaskedLM, tmp_path: Path) -> None:
    state = legacy_names(original)
    state.pop("lm_head.decoder.weight")  # tied, so some writers leave it out
    save_file(state, tmp_path / "weights.safetensors")
    check_same(original, ProteinDomain().teacher(str(tmp_path / "weights.safetensors")))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "bert"}, "not a checkpoint of MDLM's family"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type=absolute; only position_embedding_type=rot"),
        ({"is_folding_model": True}, "is_folding_model=True"),
        ({"mask_token_id": 31}, "mask_token_id=31; this domain's mask is 32"),
        ({"num_hidden_layers": 3}, "missing tensors esm.encoder.layer.2"),
        ({"hidden_size": None}, "does not have hidden_size"),
    ],
)
def test_another_model_is_refused(folder: Path, change: dict[str, object], told: str) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(InputError, match=told):
        ProteinDomain().teacher(str(folder))


def spoil(state: dict[str, Tensor], what: str) -> None:
    if what == "vocabulary":
        for name in ("esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"):
            state[name] = torch.randn(8229, 32)
        state["lm_head.bias"] = torch.randn(8229)
    elif what == "untied":
        state["lm_head.decoder.weight"] = state["lm_head.decoder.weight"] + 1
    elif what == "frequencies":
        state["esm.encoder.layer.1.attention.self.rotary_embeddings.inv_freq"].mul_(2)
    elif what == "adapter":
        state["esm.encoder.layer.0.attention.self.query.lora_A.weight"] = torch.randn(4, 32)
    elif what == "beside":
        state["optimizer.weight"] = torch.randn(4)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("vocabulary", "8229 embeddings.*needs 33"),
        ("untied", "differ, but in ESM-2 they are one matrix"),
        ("frequencies", "different rotary frequencies"),
        ("adapter", "unexpected tensors esm.encoder.layer.0.attention.self.query.lora_A.weight"),
        ("beside", "unexpected tensors optimizer.weight"),
    ],
)
def test_every_tensor_is_used_or_named(original: EsmForMaskedLM, folder: Path, what: str, told: str) -> None:
    state = {f"model.net.{name}" if what == "beside" else name: v for name, v in legacy_names(original).items()}
    spoil(state, what)
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=told):
        ProteinDomain().teacher(str(folder))


@pytest.mark.parametrize("name", [*DPLM, "airkingbd/dplm_150m"])
def test_without_network_the_key_and_the_bundled_teacher_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, revision: str | None = None, **_: object) -> str:
        asked.append((repository, revision))
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(InputError, match=r"teacher=airkingbd/dplm_.*cannot be reached.*teacher=bundled needs no"):
        ProteinDomain().teacher(name)
    repository, revision = asked[0]
    assert repository.startswith("airkingbd/dplm_") and (revision is None or len(revision) == 40)


def test_hub_folder_is_read_like_any_other(
    original: EsmForMaskedLM, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    check_same(original, ProteinDomain().teacher("dplm_150m"))


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown teacher 'dplm_150'. Did you mean 'dplm_150m'"):
        ProteinDomain().teacher("dplm_150")
