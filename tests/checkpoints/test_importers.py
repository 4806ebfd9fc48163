"""Imported checkpoints: logits of their code are reproduced, every tensor is used or named, no foreign code runs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from tolerance import close
from torch import Tensor

from didi_core.checkpoints.importers import import_checkpoint, load_denoiser_from
from didi_core.errors import InputError
from didi_core.types import Vocabulary

RECORDED = json.loads((Path(__file__).resolve().parents[1] / "vectors" / "peers.json").read_text())
TOKENS = torch.tensor(RECORDED["tokens"])
VOCABULARY = Vocabulary(11)
INV_FREQ = 1.0 / 10_000 ** (torch.arange(0, 8, 2).float() / 8)
SUBS = {"parameterization": "subs", "time_conditioning": False, "model": {"n_heads": 2}}


def formula(name: str, shape: list[int], salt: str = "") -> Tensor:
    """Weights that any machine makes alike: a low-discrepancy sequence, shifted by the name."""
    count = torch.Size(shape).numel()
    steps = torch.arange(1, count + 1, dtype=torch.float64) * 0.7548776662466927
    return ((steps + zlib.crc32((salt + name).encode()) / 2**32) % 1 - 0.5).mul(0.8).reshape(shape).float()


def network(prefix: str = "", salt: str = "") -> dict[str, Tensor]:
    """The recorded network's tensors, in the order and under the names that the peers' module gave."""
    made = {n: formula(n, shape, salt) for n, shape in RECORDED["state_dict"].items() if "inv_freq" not in n}
    return {prefix + n: made.get(n, INV_FREQ) for n in RECORDED["state_dict"]}


def discriminator(prefix: str = "") -> dict[str, Tensor]:
    recorded = RECORDED["discriminator"]
    made = {}
    for name, shape in recorded["state_dict"].items():
        vector = recorded["buffers"].get(name)
        made[prefix + name] = torch.tensor(vector) if vector else formula(name, shape, "discriminator ")
    made[prefix + "rotary_emb.inv_freq"] = INV_FREQ
    return made


def shadow() -> list[Tensor]:
    return [formula(name, RECORDED["state_dict"][name]) for name in RECORDED["parameters"]]


def lightning(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any] = SUBS, **more: Any) -> Path:
    """A file as Lightning writes it, the configuration as omegaconf containers."""
    hyper = {"config": OmegaConf.create(dict(config))}
    torch.save({"epoch": 1, "loops": {}, "state_dict": dict(state), "hyper_parameters": hyper, **more}, path)
    return path


def check_logits(network: torch.nn.Module, recorded: list[float]) -> None:
    with torch.no_grad():
        close(network(TOKENS).flatten(), torch.tensor(recorded))


MDLM, DIDI, SDTT = (RECORDED["logits"][name] for name in ("mdlm", "didi", "sdtt"))


def test_mdlm_lightning_takes_the_ema(tmp_path: Path) -> None:
    path = lightning(
        tmp_path / "mdlm.ckpt",
        network("backbone.", salt="raw "),
        ema={"decay": 0.9999, "num_updates": 7, "shadow_params": shadow()},
    )
    found = import_checkpoint(str(path), VOCABULARY)
    check_logits(found.denoiser, MDLM)
    assert found.weights == "EMA" and found.scorer is None
    assert {"raw weights", "epoch", "loops"} <= set(found.ignored)
    raw = import_checkpoint(str(path), VOCABULARY, weights="raw")
    name = "blocks.1.norm2.weight"
    assert torch.equal(raw.denoiser.state_dict()[name], formula(name, [16], "raw "))
    assert "ema" in raw.ignored


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_hub_folder_of_mdlm_or_idlm(tmp_path: Path, file: str) -> None:
    if file.endswith("safetensors"):
        save_file(network("backbone."), tmp_path / file)
    else:
        torch.save(network("backbone."), tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mdlm", "n_heads": 2, "time_conditioning": False}))
    check_logits(load_denoiser_from(tmp_path, VOCABULARY), MDLM)


def test_sdtt_wrapped_twice_and_compiled(tmp_path: Path) -> None:
    config = {"parameterization": {"name": "multi-round-sdtt"}, "time_conditioning": False}
    for prefix in ("backbone.backbone.", "backbone._orig_mod.", "backbone."):
        path = lightning(tmp_path / "sdtt.ckpt", network(prefix), config)
        found = import_checkpoint(str(path), VOCABULARY)
        check_logits(found.denoiser, SDTT)
        assert found.layout == "SDTT"


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module", "net", "weights", None])
@pytest.mark.parametrize(
    "prefix",
    [
        "module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "net.", "backbone.module.", "module._orig_mod.",
        "_orig_mod.module.model.backbone.", "model._fsdp_wrapped_module.module.", "model.net.backbone._orig_mod.",
    ],
)  # fmt: skip
def test_wrappers_in_any_order_and_usual_keys(tmp_path: Path, prefix: str, key: str | None) -> None:
    state = network(prefix)
    torch.save({key: state, "step": 5} if key else state, tmp_path / "x.pt")
    check_logits(load_denoiser_from(tmp_path / "x.pt", VOCABULARY), MDLM)


def test_wrappers_inside_names_and_two_networks_of_one_name(tmp_path: Path) -> None:
    inside = {
        name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module.").replace("blocks.1.", "blocks.1.module."): value
        for name, value in network("module.").items()
    }
    save_file(inside, tmp_path / "x.safetensors")
    check_logits(load_denoiser_from(tmp_path / "x.safetensors", VOCABULARY), MDLM)
    torch.save({**network(), **network("module.")}, tmp_path / "two.pt")
    with pytest.raises(InputError, match="holds two tensors .*, one of them wrapped"):
        load_denoiser_from(tmp_path / "two.pt", VOCABULARY)


def test_didi_lightning_has_student_and_discriminator(tmp_path: Path) -> None:
    state = {
        **network("backbone.", salt="raw "),
        **network("student_ema."),
        **discriminator("discriminator."),
        "reward_baseline": torch.tensor(0.0),
    }
    path = lightning(tmp_path / "didi.ckpt", state, {"algo": {"name": "didi_instruct", "parameterization": "subs"}})
    found = import_checkpoint(str(path), VOCABULARY)
    check_logits(found.denoiser, DIDI)
    assert found.scorer is not None
    check_logits(found.scorer, RECORDED["discriminator"]["logits"])
    assert {"backbone.*", "reward_baseline*"} <= set(found.ignored)


def test_didi_hub_folder(tmp_path: Path) -> None:
    save_file(network(), tmp_path / "model.safetensors")
    save_file(discriminator(), tmp_path / "discriminator.safetensors")
    found = import_checkpoint(str(tmp_path), VOCABULARY)
    check_logits(found.denoiser, DIDI)
    assert found.scorer is not None
    check_logits(found.scorer, RECORDED["discriminator"]["logits"])


def test_a_tokenizer_and_paths_in_the_file_are_not_made(tmp_path: Path) -> None:
    """Lightning keeps the tokenizer object among the hyper-parameters: nothing of it is imported or built."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    hyper = {"config": OmegaConf.create(SUBS), "tokenizer": tokenizer, "out": Path("somewhere")}
    torch.save({"state_dict": network("backbone."), "hyper_parameters": hyper}, tmp_path / "a.ckpt")
    check_logits(load_denoiser_from(tmp_path / "a.ckpt", VOCABULARY), MDLM)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (subprocess.call, ([sys.executable, "-c", f"open({str(self.path)!r}, 'w')"],))


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, kind: str) -> None:
    state, path = {"state_dict": network("backbone."), "extra": Bomb(tmp_path / "burst")}, tmp_path / "bomb.ckpt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(state["extra"], protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch")
    # subprocess.call, under the name that Python 2 had for its module
    with pytest.raises(InputError, match=r"is refused: reading it would run code .*(subprocess|commands)\.call"):
        import_checkpoint(str(path), VOCABULARY)
    assert not (tmp_path / "burst").exists()


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without(network("backbone."), "backbone.blocks.1.norm2.weight"), "missing tensors blocks.1.norm2.weight"),
        ({**network("backbone."), "backbone.blocks.1.gate": torch.ones(3)}, "unexpected tensors blocks.1.gate"),
        ({**network("backbone."), "tail.weight": torch.ones(3)}, "unexpected tensors tail.weight"),
        ({**network(), "blocks.0.attn_out.weight": torch.zeros(16, 8)}, r"attn_out.weight has shape \(16, 8\), not"),
        ({**network(), "rotary_emb.inv_freq": 2 * INV_FREQ}, "rotary frequencies are not those of base 10,000"),
        ({**network(), "backbone.vocab_embed.embedding": torch.zeros(3, 4)}, "two networks under one name"),
        ({"esm.encoder.layer.0.weight": torch.zeros(1)}, "looks like ESM-2"),
        ({"transformer.h.0.attn.weight": torch.zeros(1)}, "looks like GPT-2"),
        ({"base.lora_A.weight": torch.zeros(1)}, "looks like a LoRA adapter"),
        ({"conv.weight": torch.zeros(1)}, "its tensors are conv.weight"),
        (without(network(), "sigma_map.mlp.0.weight"), "not a time-independent DiT"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with pytest.raises(InputError, match=message):
        import_checkpoint(str(path), VOCABULARY)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"algo": {"name": "duo_base", "parameterization": "mean"}}, "uniform-state diffusion model .Duo."),
        ({"algo": {"name": "distillation"}}, "uniform-state"),
        ({"parameterization": "sedd"}, "parameterization=sedd"),
        ({"parameterization": "ar", "backbone": "ar"}, "is an autoregressive model"),
        ({"parameterization": "subs", "time_conditioning": True}, "is conditioned on time"),
    ],
)
def test_other_processes_are_refused_with_the_reason(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    path = lightning(tmp_path / "a.ckpt", network("backbone."), config)
    with pytest.raises(InputError, match=message):
        import_checkpoint(str(path), VOCABULARY)


def test_duo_hub_folder_is_refused(tmp_path: Path) -> None:
    save_file(network("backbone."), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "duo", "architectures": ["DUO"]}))
    with pytest.raises(InputError, match="uniform-state"):
        import_checkpoint(str(tmp_path), VOCABULARY)


def test_an_ema_of_another_network_is_refused(tmp_path: Path) -> None:
    path = lightning(tmp_path / "a.ckpt", network("backbone."), ema={"shadow_params": shadow()[:-1]})
    with pytest.raises(InputError, match="EMA has 29 tensors, the network 30 parameters.*weights=raw"):
        import_checkpoint(str(path), VOCABULARY)
    swapped = [*shadow()[1:], shadow()[0]]
    path = lightning(tmp_path / "b.ckpt", network("backbone."), ema={"shadow_params": swapped})
    with pytest.raises(InputError, match="in the place of vocab_embed.embedding has shape"):
        import_checkpoint(str(path), VOCABULARY)
    path = lightning(tmp_path / "c.ckpt", network("backbone."), ema={"weights": 1})
    with pytest.raises(InputError, match="no list of tensors 'shadow_params'"):
        import_checkpoint(str(path), VOCABULARY)
    path = lightning(tmp_path / "d.ckpt", network("backbone."))
    with pytest.raises(InputError, match="weights=ema, but"):
        import_checkpoint(str(path), VOCABULARY, weights="ema")


def test_heads_are_asked_for_where_the_file_does_not_tell(tmp_path: Path) -> None:
    save_file(without(network(), "rotary_emb.inv_freq"), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="give heads="):
        import_checkpoint(str(tmp_path), VOCABULARY)
    check_logits(import_checkpoint(str(tmp_path), VOCABULARY, heads=2).denoiser, MDLM)
    (tmp_path / "config.json").write_text(json.dumps({"n_heads": 2}))
    check_logits(import_checkpoint(str(tmp_path), VOCABULARY).denoiser, MDLM)


def test_another_vocabulary_is_told_in_numbers(tmp_path: Path) -> None:
    save_file(network(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="teacher=.* has 12 rows .*: 11 tokens and the mask.* has 33 tokens"):
        load_denoiser_from(tmp_path, Vocabulary(33))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gguf", b"GGUF0000", "a GGUF file"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("a.ckpt", b"<!DOCTYPE html><html>", "a web page"),
        ("a.safetensors", b"12345678not a header", "is damaged"),
        ("a.msgpack", b"\x81", "a Flax file"),
        ("a.xyz", b"\x81", "a file of unknown kind"),
        ("a.ckpt", b"PK\x03\x04 cut short", "cannot be read as a torch file|is refused"),
        ("a.ckpt", b"hello", "a.ckpt cannot be read as a torch file: it is neither an archive nor a pickle"),
    ],
)
def test_files_of_other_kinds_are_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_checkpoint(str(tmp_path / name), VOCABULARY)


def test_folders_and_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no single checkpoint"):
        import_checkpoint(str(tmp_path), VOCABULARY)
    with pytest.raises(InputError, match="no such file or folder, and it is not a hub id"):
        import_checkpoint("nowhere.ckpt", VOCABULARY)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list"):
        import_checkpoint(str(tmp_path / "list.pt"), VOCABULARY)
    torch.save({"weights": 1}, tmp_path / "numbers.pt")
    with pytest.raises(InputError, match="entries that are not tensors .weights."):
        import_checkpoint(str(tmp_path / "numbers.pt"), VOCABULARY)


def test_an_unreachable_hub_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="teacher=kuleshov-group/mdlm-owt .*give teacher=<folder>"):
        load_denoiser_from("kuleshov-group/mdlm-owt", VOCABULARY)


PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "backbone.", "net.")
WRAPPED = map("".join, (*permutations(PREFIXES, 2), ("_forward_module.", "model.")))


@pytest.mark.parametrize("prefix", [*WRAPPED, "", "denoiser.", "module.module.", "model.module._orig_mod.backbone."])
def test_prefixes_in_any_order(tmp_path: Path, prefix: str) -> None:
    path = lightning(tmp_path / "x.ckpt", network(prefix))
    check_logits(import_checkpoint(str(path), VOCABULARY).denoiser, MDLM)


KEYS = ("state_dict", "model", "module", "model_state_dict", "ema", "ema_state_dict", "model_ema", "student", "x", "")


@pytest.mark.parametrize("key", KEYS)
def test_usual_keys_of_the_weights(tmp_path: Path, key: str) -> None:
    held = {key: network("module."), "optimizer": {"state": {}}, "epoch": 3} if key else network("module.")
    torch.save(held, tmp_path / "x.pt")
    check_logits(import_checkpoint(str(tmp_path / "x.pt"), VOCABULARY, heads=2).denoiser, MDLM)


@pytest.mark.parametrize(
    ("raw", "average"),
    [("model", ("ema",)), ("state_dict", ("ema_state_dict",)), ("model", ("ema", "module")), ("net", ("ema", "x"))],
)
def test_a_named_average_is_taken_unless_raw_is_asked_for(tmp_path: Path, raw: str, average: tuple[str, ...]) -> None:
    held: Any = network("module.")
    for key in reversed(average):
        held = {key: held}
    torch.save({raw: network(salt="raw "), **held, "step": 3}, tmp_path / "x.pt")
    for weights in ("auto", "ema"):
        found = import_checkpoint(str(tmp_path / "x.pt"), VOCABULARY, heads=2, weights=weights)
        assert found.weights == "EMA" and found.ignored["raw weights"] == "the EMA is used"
        check_logits(found.denoiser, MDLM)
    other = import_checkpoint(str(tmp_path / "x.pt"), VOCABULARY, heads=2, weights="raw")
    assert not torch.equal(other.denoiser.vocab_embed.embedding, found.denoiser.vocab_embed.embedding)  # type: ignore[union-attr]


def test_torchs_average_of_a_model_is_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {**network("module."), "n_averaged": torch.tensor(9)}}, tmp_path / "x.pt")
    check_logits(import_checkpoint(str(tmp_path / "x.pt"), VOCABULARY, heads=2).denoiser, MDLM)


def test_several_networks_are_told(tmp_path: Path) -> None:
    torch.save({"generator": network(), "critic": network(salt="raw ")}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"holds several networks \(generator, critic\)"):
        import_checkpoint(str(tmp_path / "x.pt"), VOCABULARY)
