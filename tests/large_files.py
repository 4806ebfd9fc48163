"""Tiny checkpoints in the layouts of large teachers, and transformers' networks with the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from didi_core.types import Vocabulary

ROWS, MASK_ROW, BLOCK = 40, 33, 4
VOCABULARY = Vocabulary(36, forbidden=(MASK_ROW, 34), own_mask=MASK_ROW)  # as LLaDA's: rows of no token behind
HIDDEN, LAYERS, HEADS, KV, INNER = 32, 2, 4, 2, 48
PARTS = {
    "attn_norm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_norm": "post_attention_layernorm",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
# The entries of GSAI-ML/LLaDA-8B-Instruct's config.json, with small sizes.
LLADA = {
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModel": "modeling_llada.LLaDAModelLM"},
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": HIDDEN,
    "embedding_dropout": 0.0,
    "embedding_size": ROWS,
    "eos_token_id": 34,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_device": "meta",
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": MASK_ROW,
    "max_sequence_length": 64,
    "mlp_hidden_size": INNER,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": HEADS,
    "n_kv_heads": KV,
    "n_layers": LAYERS,
    "pad_token_id": 34,
    "residual_dropout": 0.0,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "use_cache": False,
    "vocab_size": ROWS,
    "weight_tying": False,
}
QWEN = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "mask_token_id": MASK_ROW,
    "max_position_embeddings": 64,
    "max_window_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": ROWS,
}
DREAM = {**QWEN, "architectures": ["DreamModel"], "model_type": "Dream", "sliding_window": None, "pad_token_id": 34}
SDAR = {
    **QWEN,
    "architectures": ["SDARForCausalLM"],
    "model_type": "sdar",
    "attention_bias": False,
    "block_size": BLOCK,
    "head_dim": 10,  # not hidden / heads, as in SDAR-4B
    "fuse_cross_entropy": True,
}
# The entries of inclusionAI/LLaDA2.0-mini's config.json, with small sizes.
LLADA2 = {
    "architectures": ["LLaDA2MoeModelLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_llada2_moe.LLaDA2MoeConfig"},
    "block_size": BLOCK,
    "dtype": "bfloat16",
    "embedding_dropout": 0.0,
    "first_k_dense_replace": 1,
    "head_dim": 12,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "mask_token_id": MASK_ROW,
    "max_position_embeddings": 64,
    "model_type": "llada2_moe",
    "moe_intermediate_size": 20,
    "moe_router_enable_expert_bias": True,
    "n_group": 4,
    "norm_head": False,
    "norm_topk_prob": True,
    "num_attention_heads": HEADS,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV,
    "num_shared_experts": 1,
    "output_router_logits": False,
    "pad_token_id": 34,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 600000,
    "routed_scaling_factor": 2.5,
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 2,
    "use_bias": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "vocab_size": ROWS,
}
# The sizes of LLaDA2.0-mini, and its parameters, counted by hand: attention with two norms of heads and two of layers,
# a router of 256 scores, 256 experts and a shared one of three matrices; a first layer with an MLP; embedding, head.
LLADA2_MINI = {
    "first_k_dense_replace": 1, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 5120,
    "mask_token_id": 156895, "moe_intermediate_size": 512, "n_group": 8, "num_attention_heads": 16, "num_experts": 256,
    "num_experts_per_tok": 8, "num_hidden_layers": 20, "num_key_value_heads": 4, "topk_group": 4, "vocab_size": 157184,
}  # fmt: skip
_ATTENTION = 2048 * (16 + 2 * 4) * 128 + 2 * 128 + 16 * 128 * 2048 + 2 * 2048
LLADA2_MINI_LAYER = _ATTENTION + 256 * 2048 + 257 * 3 * 2048 * 512
LLADA2_MINI_PARAMETERS = 19 * LLADA2_MINI_LAYER + _ATTENTION + 3 * 2048 * 5120 + 2048 + 2 * 157184 * 2048
KINDS = {"llada": LLADA, "dream": DREAM, "sdar": SDAR, "llada2": LLADA2}
IN_BLOCKS = ("sdar", "llada2")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def twin(kind: str, tied: bool = False) -> PreTrainedModel:
    """transformers' causal network that the kind is made from, with weights in which every part shows."""
    shape: dict[str, Any] = {
        "vocab_size": ROWS,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "tie_word_embeddings": tied,
        "attn_implementation": "eager",
    }
    torch.manual_seed(0)
    made: PreTrainedModel
    if kind == "llada":
        rope = {"rope_theta": 500000.0, "rope_type": "default"}
        made = LlamaForCausalLM(LlamaConfig(**shape, rms_norm_eps=1e-5, rope_parameters=rope))
    elif kind == "llada2":
        made = Glm4MoeForCausalLM(Glm4MoeConfig(**shape, **glm()))
    else:
        shape |= {"rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
        made = Qwen2ForCausalLM(Qwen2Config(**shape)) if kind == "dream" else Qwen3ForCausalLM(
            Qwen3Config(**shape, head_dim=10)
        )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
        for name, buffer in made.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.add_(torch.randn(buffer.shape) * 0.2)
    return made.eval()


def glm() -> dict[str, Any]:
    """What GLM-4.5 needs to be LLaDA2: norms of queries and keys, half of the rotary positions, groups of experts."""
    return {
        "head_dim": LLADA2["head_dim"],
        "rms_norm_eps": LLADA2["rms_norm_eps"],
        "rope_parameters": {"rope_theta": 600000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
        "use_qk_norm": True,
        "n_routed_experts": LLADA2["num_experts"],
        "n_shared_experts": LLADA2["num_shared_experts"],
        **{
            name: LLADA2[name]
            for name in (
                "moe_intermediate_size", "num_experts_per_tok", "routed_scaling_factor", "n_group", "topk_group",
                "first_k_dense_replace", "norm_topk_prob",
            )
        },
    }  # fmt: skip


def tensors(kind: str, model: PreTrainedModel, tied: bool = False) -> dict[str, Tensor]:
    """The twin's weights under the names of the kind's hub folder."""
    state = {name: value for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    if kind == "llada2":
        return llada2(state)
    if kind != "llada":
        return state
    top = {"model.embed_tokens": "wte", "model.norm": "ln_f", "lm_head": "ff_out"}
    theirs = {ours: f"model.transformer.{name}" for ours, name in top.items()}
    for layer in range(LAYERS):
        theirs |= {f"model.layers.{layer}.{o}": f"model.transformer.blocks.{layer}.{t}" for t, o in PARTS.items()}
    return {f"{theirs[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()}


def llada2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of GLM-4.5 in LLaDA2's layout: queries, keys and values in one tensor, each expert in three."""
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        before, _, last = name.partition(".self_attn.")
        part, _, end = last.rpartition(".")
        if part in ("q_proj", "k_proj", "v_proj"):
            fused = f"{before}.attention.query_key_value.{end}"
            made[fused] = torch.cat([made[fused], value]) if fused in made else value
        elif part:
            theirs = {"o_proj": "dense", "q_norm": "query_layernorm", "k_norm": "key_layernorm"}
            made[f"{before}.attention.{theirs[part]}.{end}"] = value
        elif name.endswith("mlp.experts.gate_up_proj"):
            for expert, both in enumerate(value):
                gate, up = both.chunk(2)
                stem = name.replace("gate_up_proj", str(expert))
                made |= {f"{stem}.gate_proj.weight": gate, f"{stem}.up_proj.weight": up}
        elif name.endswith("mlp.experts.down_proj"):
            made |= {name.replace("down_proj", f"{i}.down_proj.weight"): one for i, one in enumerate(value)}
        else:
            renamed = name.replace("embed_tokens", "word_embeddings")
            made[renamed.replace("e_score_correction_bias", "expert_bias")] = value
    return made


def folder(
    path: Path,
    kind: str,
    *,
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    tied: bool = False,
) -> Path:
    """A hub folder: config.json and safetensors, with an index where there are several files."""
    path.mkdir(parents=True, exist_ok=True)
    ties = {"weight_tying": tied} if kind == "llada" else {"tie_word_embeddings": tied}
    (path / "config.json").write_text(json.dumps({**KINDS[kind], **ties, **(config or {})}))
    held = tensors(kind, twin(kind, tied), tied) if state is None else state
    held = {name: value.to(dtype).contiguous() for name, value in held.items()}
    if shards == 1:
        save_file(held, path / "model.safetensors")
        return path
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    where = {name: files[i % shards] for i, name in enumerate(held)}
    for file in files:
        save_file({name: value for name, value in held.items() if where[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


def tokenizer(path: Path, mask: str = "<|mdm_mask|>", chat: str | None = CHAT) -> Path:
    """A tokenizer of letters with special tokens: begin 30, end 31, turn 32, mask 33, start 34, more 35."""
    spelled = "abcdefghijklmnopqrstuvwxyz .?\n"
    backend = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(spelled)}, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    special = ["<|begin|>", "<|end|>", "<|turn|>", mask, "<|start|>", "<|more|>"]
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>")
    made.chat_template = chat
    made.save_pretrained(path)
    return path
