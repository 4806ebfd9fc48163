"""DPLM's files for tests: random weights of any size in the hub's layout, with the names that transformers 4 wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EsmConfig, EsmForMaskedLM

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
# The hub's config.json but for the sizes; the first upload of it had other architectures and no dplm_type.
CONFIG: dict[str, Any] = {
    "_name_or_path": "facebook/esm2_t30_150M_UR50D",
    "architectures": ["EsmForDPLM"],
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": None,
    "dplm_type": "dplm_esm",
    "emb_layer_norm_before": False,
    "esmfold_config": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "is_folding_model": False,
    "layer_norm_eps": 1e-05,
    "mask_token_id": 32,
    "max_position_embeddings": 1026,
    "model_type": "esm",
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "torch_dtype": "float32",
    "transformers_version": "4.39.2",
    "use_cache": True,
    "vocab_list": None,
    "vocab_size": 33,
    **TINY,
}


def legacy_names(model: EsmForMaskedLM) -> dict[str, Tensor]:
    """The state dict as transformers 4 wrote it: frequencies in every layer, a table of positions."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    frequencies = state.pop("esm.rotary_embeddings.inv_freq")
    for i in range(model.config.num_hidden_layers):
        state[f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq"] = frequencies.clone()
    state["esm.embeddings.position_embeddings.weight"] = torch.randn(1026, model.config.hidden_size)
    return state


def random_model(noise: float = 0.2, **sizes: int) -> EsmForMaskedLM:
    """transformers' own network; with noise every part of it shows in the logits."""
    torch.manual_seed(0)
    model = EsmForMaskedLM(EsmConfig(**{**CONFIG, **sizes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * noise)
    return model.eval()


def write_folder(folder: Path, model: EsmForMaskedLM, **changes: object) -> Path:
    """config.json and pytorch_model.bin."""
    sizes = {name: getattr(model.config, name) for name in TINY}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **sizes, **changes}))
    torch.save(legacy_names(model), folder / "pytorch_model.bin")
    return folder
