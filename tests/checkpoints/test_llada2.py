"""LLaDA2 from a folder in its layout, beyond what it shares with other large teachers (``test_large_teachers.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from large_files import (
    BLOCK,
    KINDS,
    LLADA2_MINI,
    LLADA2_MINI_LAYER,
    LLADA2_MINI_PARAMETERS,
    MASK_ROW,
    VOCABULARY,
    folder,
    tensors,
    twin,
)
from safetensors.torch import load_file, save_file

from didi_core.checkpoints.card import load_denoiser, save_model
from didi_core.checkpoints.importers import import_checkpoint, outline_of
from didi_core.checkpoints.importers.llama import FAMILIES, sizes_of
from didi_core.checkpoints.importers.sources import Held
from didi_core.errors import InputError
from didi_core.models.llama import Llama
from didi_core.types import Vocabulary


def load(path: Path, vocabulary: Vocabulary = VOCABULARY) -> Llama:
    made = import_checkpoint(str(path), vocabulary, key="teacher").denoiser
    assert isinstance(made, Llama)
    return made


def test_llada2_has_these_tensors(tmp_path: Path) -> None:
    path = folder(tmp_path, "llada2")
    mlp = [f"{part}_proj.weight" for part in ("gate", "up", "down")]
    parts = [f"attention.{part}" for part in ("query_key_value", "dense", "query_layernorm", "key_layernorm")]
    every = [f"{part}.weight" for part in (*parts, "input_layernorm", "post_attention_layernorm")]
    sparse = ["gate.weight", "gate.expert_bias", *(f"shared_experts.{name}" for name in mlp)]
    sparse += [f"experts.{number}.{name}" for number in range(8) for name in mlp]
    layers = [[*every, *(f"mlp.{name}" for name in own)] for own in (mlp, sparse)]
    names = {f"model.layers.{number}.{name}" for number, layer in enumerate(layers) for name in layer}
    top = {"model.word_embeddings.weight", "model.norm.weight", "lm_head.weight"}
    assert load_file(path / "model.safetensors").keys() == names | top
    assert load(path).config.experts is not None


def test_the_bias_of_a_router_keeps_its_own_type(tmp_path: Path) -> None:
    bias = "model.layers.1.mlp.gate.expert_bias"
    whole = {name: value.bfloat16() for name, value in tensors("llada2", twin("llada2")).items()}
    exact = tensors("llada2", twin("llada2"))[bias]
    path = folder(tmp_path, "llada2", state={})
    save_file({**{name: value.contiguous() for name, value in whole.items()}, bias: exact}, path / "model.safetensors")
    model = load(path)
    assert torch.equal(model.get_buffer(bias), exact) and {p.dtype for p in model.parameters()} == {torch.bfloat16}
    save_model(tmp_path / "ours", model)
    again = load_denoiser(tmp_path / "ours")
    assert torch.equal(again.get_buffer(bias), exact) and again.get_buffer(bias).dtype == torch.float32


def test_the_fused_projection_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_file(folder(tmp_path, "llada2") / "model.safetensors")
    monkeypatch.setattr("didi_core.checkpoints.importers.sources.load_file", lambda path: found)
    model, fused = load(tmp_path), found["model.layers.0.attention.query_key_value.weight"]
    parts = [getattr(model.blocks[0].self_attn, f"{part}_proj").weight for part in "qkv"]  # type: ignore[union-attr]
    assert torch.equal(torch.cat(parts), fused)
    assert {part.untyped_storage().data_ptr() for part in parts} == {fused.untyped_storage().data_ptr()}


@pytest.mark.parametrize(("config", "block"), [({}, BLOCK), ({"block_size": None}, 32), ({"block_size": 8}, 8)])
def test_the_block_of_llada2_is_that_of_its_configuration_or_32(
    config: dict[str, Any], block: int, tmp_path: Path
) -> None:
    assert load(folder(tmp_path, "llada2", config=config)).block_size == block


@pytest.mark.parametrize("kind", ["llada2", "sdar"])
def test_a_mask_that_only_the_tokenizer_names_is_taken(kind: str, tmp_path: Path) -> None:
    path = folder(tmp_path, kind, config={"mask_token_id": None})
    assert load(path).config.mask_row == MASK_ROW
    with pytest.raises(InputError, match="does not have mask_token_id"):
        load(path, Vocabulary(36))


MANY = 10**9
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n_group": None}, "does not have n_group"),
    ({"partial_rotary_factor": None}, "does not have partial_rotary_factor"),
    ({"partial_rotary_factor": 1.5}, "rotary=1.5 is out of range"),
    ({"partial_rotary_factor": 0.3}, "head_width=12 times rotary=0.3 must be even"),
    ({"num_experts": 9}, "count=9 experts do not divide into groups=4"),
    ({"num_experts": MANY}, "1,000,000,000 experts in 2 layers; its weights are"),
    ({"num_experts_per_tok": 5}, "chosen=5 is more than the 4 experts"),
    ({"num_shared_experts": "one"}, "shared='one' does not fit"),
    ({"score_function": "softmax"}, "only score_function=sigmoid"),
    ({"norm_topk_prob": False}, "only norm_topk_prob=True"),
    ({"use_bias": True}, "only use_bias=False"),
    ({"num_nextn_predict_layers": 1}, "only num_nextn_predict_layers=0"),
]


@pytest.mark.parametrize(("config", "reason"), REFUSED, ids=lambda x: str(x)[:40])
def test_other_configurations_are_refused(config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        load(folder(tmp_path, "llada2", config=config))


def test_experts_that_no_machine_has_are_not_planned_for(tmp_path: Path) -> None:
    path = folder(tmp_path, "llada2", config={"num_experts": MANY}, state={"x": torch.zeros(1)})
    with pytest.raises(InputError, match="1,000,000,000 experts in 2 layers; at most 100,000 are planned for"):
        outline_of(str(path), VOCABULARY)


def parameters(config: dict[str, Any]) -> int:
    """Of the network of a configuration, without its weights."""
    vocabulary = Vocabulary(config["mask_token_id"])
    sizes = sizes_of(Held("x", Path("x"), {}, config=config), FAMILIES["llada2_moe"], vocabulary, "x")
    with torch.device("meta"):
        return sum(p.numel() for p in Llama(sizes, vocabulary).parameters())


def test_llada2_mini_has_16_billion_parameters() -> None:
    one, two = (parameters({**KINDS["llada2"], **LLADA2_MINI, "num_hidden_layers": n}) for n in (1, 2))
    assert two - one == LLADA2_MINI_LAYER  # all layers but the first are like the second
    assert one + 19 * LLADA2_MINI_LAYER == LLADA2_MINI_PARAMETERS and round(LLADA2_MINI_PARAMETERS / 1e9) == 16
