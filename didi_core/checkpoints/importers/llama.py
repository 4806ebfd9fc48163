"""Layouts of large masked language models: LLaDA, Dream, SDAR and LLaDA2, as their authors put them on the hub.

All are read into ``didi_core.models.llama.Llama``, in the type that the file has, without a copy. They are recognised
by ``model_type``. Facts: LLaDA's ``modeling_llada.py`` (OLMo's names), Dream's ``modeling_dream.py`` (Qwen2, whose
logits are moved by one position), SDAR's ``modeling_sdar.py`` and ``generate.py`` (Qwen3, attention in blocks),
LLaDA2's ``modeling_llada2_moe.py`` in inclusionAI/dInfer (fused projections, mixtures of experts, attention in blocks).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from didi_core.checkpoints.importers.parts import Imported
from didi_core.checkpoints.importers.sources import Held
from didi_core.checkpoints.weights import check_finite, check_sizes
from didi_core.config import build
from didi_core.errors import InputError, first_line
from didi_core.models.llama import Llama, LlamaConfig
from didi_core.types import Vocabulary

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Positions of a block where a configuration gives none: those of the authors' code for sampling.
SDAR_BLOCK, LLADA2_BLOCK = 4, 32

# LLaDA's names, by those of the network.
LLADA_NAMES = {
    EMBEDDING: "model.transformer.wte.weight",
    "model.norm.weight": "model.transformer.ln_f.weight",
    HEAD: "model.transformer.ff_out.weight",
}
LLADA_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
# LLaDA2's names, where they differ. Queries, keys and values are the rows of one tensor, in this order.
LLADA2_PARTS = {
    "self_attn.q_proj": "attention.query_key_value",
    "self_attn.k_proj": "attention.query_key_value",
    "self_attn.v_proj": "attention.query_key_value",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
}
OF_A_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class Family:
    """One layout.

    label: in words. sizes: names in config.json of the fields of ``LlamaConfig``; extra: fields that are the same for
    all models of the family. needed: entries that config.json must have for the network to be the one built here,
    with None where it may be absent. named: the file's name of a tensor of the network; several may be the rows of one.
    block: positions of a block where config.json gives none; 0 for a model that attends to all positions. experts:
    names in config.json of the fields of ``ExpertsConfig``, all of which must be there; empty for no mixtures.
    """

    label: str
    sizes: Mapping[str, str]
    extra: Mapping[str, Any]
    needed: Mapping[str, tuple[Any, ...]]
    named: Callable[[str], str] = str
    block: int = 0
    experts: Mapping[str, str] = field(default_factory=dict)


def llada_name(name: str) -> str:
    """LLaDA's name of a tensor."""
    found = OF_A_LAYER.fullmatch(name)
    if found is None:
        return LLADA_NAMES.get(name, name)
    return f"model.transformer.blocks.{found[1]}.{LLADA_PARTS[found[2]]}.{found[3]}"


def llada2_name(name: str) -> str:
    """LLaDA2's name of a tensor."""
    if name == EMBEDDING:
        return "model.word_embeddings.weight"
    found = OF_A_LAYER.fullmatch(name)
    return name if found is None else f"model.layers.{found[1]}.{LLADA2_PARTS.get(found[2], found[2])}.{found[3]}"


QWEN = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "intermediate": "intermediate_size",
    "rows": "vocab_size",
    "tied": "tie_word_embeddings",
    "norm_eps": "rms_norm_eps",
}
QWEN_NEEDED = {"hidden_act": ("silu", None), "rope_scaling": (None,), "use_sliding_window": (False, None)}
FAMILIES: dict[str, Family] = {
    "llada": Family(
        "LLaDA",
        {
            "hidden": "d_model",
            "layers": "n_layers",
            "heads": "n_heads",
            "kv_heads": "n_kv_heads",
            "intermediate": "mlp_hidden_size",
            "rows": "embedding_size",
            "tied": "weight_tying",
            "qkv_bias": "include_qkv_bias",
            "norm_eps": "rms_norm_eps",
        },
        {},
        {
            "block_type": ("llama",),
            "activation_type": ("silu",),
            "layer_norm_type": ("rms",),
            "rope": (True,),
            "alibi": (False, None),
            "attention_layer_norm": (False, None),
            "include_bias": (False, None),
            "bias_for_layer_norm": (False, None),
            "input_emb_norm": (False, None),
            "scale_logits": (False, None),
            "block_group_size": (1, None),
            "multi_query_attention": (False, None),
            "weight_tying": (False, True),
        },
        llada_name,
    ),
    "Dream": Family("Dream", QWEN, {"qkv_bias": True, "shifted": True}, QWEN_NEEDED),
    "sdar": Family(
        "SDAR", QWEN, {"qk_norm": True}, {**QWEN_NEEDED, "attention_bias": (False, None)}, block=SDAR_BLOCK
    ),
    "llada2_moe": Family(
        "LLaDA2",
        {**QWEN, "qkv_bias": "use_qkv_bias", "rotary": "partial_rotary_factor"},
        {"qk_norm": True},
        {
            **QWEN_NEEDED,
            "use_bias": (False, None),
            "use_qk_norm": (True, None),
            "norm_head": (False, None),
            "num_nextn_predict_layers": (0, None),
            "score_function": ("sigmoid", None),
            "norm_topk_prob": (True, None),
            "moe_router_enable_expert_bias": (True, None),
        },
        llada2_name,
        LLADA2_BLOCK,
        {
            "count": "num_experts",
            "chosen": "num_experts_per_tok",
            "width": "moe_intermediate_size",
            "shared": "num_shared_experts",
            "groups": "n_group",
            "chosen_groups": "topk_group",
            "dense": "first_k_dense_replace",
            "scale": "routed_scaling_factor",
        },
    ),
}
OPTIONAL = {"kv_heads", "head_width", "tied", "qkv_bias"}  # fields that config.json may leave out
# Of a network whose weights, that would give their number, are not there.
MOST_LAYERS, MOST_EXPERTS = 1000, 100_000
THETA = 10_000.0  # base of the rotary frequencies where config.json gives none


def family(held: Held) -> Family | None:
    """The layout that a checkpoint's configuration names; None for another."""
    return FAMILIES.get(str(held.setting("model_type")))


def recognises(held: Held) -> bool:
    """Whether the configuration names one of these models."""
    return family(held) is not None


def read_llama(held: Held, vocabulary: Vocabulary, key: str = "source") -> Imported:
    """The denoiser in the type of its weights, in eval mode. Its tensors are those of the file, without a copy.

    Raises:
        InputError: another kind of network, another mask or tokenizer, or tensors that are missing, unexpected, of
            another shape or of a quantised type.
    """
    where, kind = f"{key}={held.source}", family(held)
    assert kind is not None, "recognised before"
    sizes = sizes_of(held, kind, vocabulary, where)
    check_mask(sizes, vocabulary, where)
    tensors, ignored = dict(held.tensors), dict[str, str]()
    own_head, embedding = kind.named(HEAD), kind.named(EMBEDDING)
    if sizes.tied and own_head in tensors:
        if not torch.equal(tensors[own_head], tensors.get(embedding, tensors[own_head].new_empty(0))):
            raise InputError(f"{where}: config.json ties {own_head} to {embedding}, but the file has another one.")
        del tensors[own_head]
        ignored[own_head] = f"the same as {embedding}"
    check_experts(sizes, len(tensors), f"its weights are {len(tensors):,} tensors", where)
    check_sizes(lambda: _empty(sizes, vocabulary, where), sizes.layers, tensors, where, named=kind.named)
    strange = {name: value.dtype for name, value in tensors.items() if value.dtype not in FLOATS}
    if strange:
        name = next(iter(strange))
        raise InputError(f"{where}: {name} is of type {strange[name]}: quantised weights are not read. Get the others.")
    check_finite(tensors, where)
    denoiser = _empty(sizes, vocabulary, where)
    denoiser.load_state_dict(_by_own_names(denoiser, tensors, kind.named), assign=True)
    return Imported(denoiser.eval(), None, kind.label, _type(tensors), ignored)


def _by_own_names(network: Llama, tensors: Mapping[str, Tensor], named: Callable[[str], str]) -> dict[str, Tensor]:
    """The tensors of a file by the network's names, without a copy: where several are the rows of one, views of it."""
    own, inside = network.state_dict(), defaultdict[str, list[str]](list)
    for name in own:
        inside[named(name)].append(name)
    return {
        name: part
        for held, names in inside.items()
        for name, part in zip(names, tensors[held].split([len(own[name]) for name in names]), strict=True)
    }


def outline(config: Mapping[str, Any], source: str, vocabulary: Vocabulary, key: str) -> Llama | None:
    """The network of a configuration, without weights: on the meta device, in the type that the weights have.

    None where the configuration is not one of these models'.

    Raises:
        InputError: the configuration describes no network that can be planned for.
    """
    held, where = Held(source, Path(source), {}, config=config), f"{key}={source}"
    kind = family(held)
    if kind is None:
        return None
    sizes = sizes_of(held, kind, vocabulary, where)
    check_mask(sizes, vocabulary, where)
    named = str(held.setting("torch_dtype") or held.setting("dtype") or "bfloat16")  # LLaDA's names none
    dtype = getattr(torch, named, None)
    if dtype not in FLOATS:
        raise InputError(f"{where}: config.json has torch_dtype={named}; only float types are read.")
    if sizes.layers > MOST_LAYERS:
        raise InputError(f"{where}: config.json has {sizes.layers:,} layers; at most {MOST_LAYERS:,} are planned for.")
    check_experts(sizes, MOST_EXPERTS, f"at most {MOST_EXPERTS:,} are planned for", where)
    return _empty(sizes, vocabulary, where).to(dtype).eval()


def _empty(sizes: LlamaConfig, vocabulary: Vocabulary, where: str) -> Llama:
    """The network on the meta device: no memory for weights. Raises InputError for sizes that no tensor can have."""
    try:
        with torch.device("meta"):
            return Llama(sizes, vocabulary)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = first_line(error, "no reason given").rstrip(".")
        raise InputError(f"{where}: config.json describes a network that cannot be built: {reason}.") from None


def sizes_of(held: Held, kind: Family, vocabulary: Vocabulary, where: str) -> LlamaConfig:
    """The sizes in config.json. Raises InputError where one is absent, or the network is another than that built."""
    for name, needed in kind.needed.items():
        found = held.setting(name)
        if found not in needed:
            raise InputError(
                f"{where}: config.json has {name}={found}; only {name}={needed[0]} ({kind.label}) is read."
            )
    read = {field: held.setting(name) for field, name in kind.sizes.items()}
    mask = held.setting("mask_token_id")
    read["mask_row"] = vocabulary.own_mask if mask is None else mask
    missing = [kind.sizes.get(f, "mask_token_id") for f, value in read.items() if value is None and f not in OPTIONAL]
    missing += [name for name in kind.experts.values() if held.setting(name) is None]
    if missing:
        raise InputError(f"{where}: config.json does not have {', '.join(missing)}.")
    given: dict[str, Any] = {field: value for field, value in read.items() if value is not None} | dict(kind.extra)
    wrong = [name for name in ("hidden", "layers", "heads", "rows") if type(given[name]) is not int or given[name] < 1]
    if wrong:
        raise InputError(f"{where}: config.json has {kind.sizes[wrong[0]]}={given[wrong[0]]}; a number is needed.")
    given.setdefault("kv_heads", given["heads"])
    given.setdefault("head_width", given["hidden"] // given["heads"])
    given["rope_theta"] = _theta(held, where)
    if kind.block:
        size = held.setting("block_size")
        given["block"] = kind.block if size is None else size
    if kind.experts:
        given["experts"] = {field: held.setting(name) for field, name in kind.experts.items()}
    return build(LlamaConfig, given, f"{where}: config.json: model")


def check_experts(sizes: LlamaConfig, most: int, reason: str, where: str) -> None:
    """Raise InputError for more experts than ``most`` in all layers, before a network is made of them."""
    own = sizes.experts
    number = 0 if own is None else own.count * max(0, sizes.layers - own.dense)
    if number > most:
        raise InputError(f"{where}: config.json describes {number:,} experts in {sizes.layers:,} layers; {reason}.")


def check_mask(sizes: LlamaConfig, vocabulary: Vocabulary, where: str) -> None:
    """Raise InputError where the tokenizer's mask is not the model's, or its tokens are more than the model's rows."""
    row, own = sizes.mask_row, vocabulary.own_mask
    if vocabulary.size > sizes.rows:
        raise InputError(
            f"{where} has {sizes.rows} rows of embeddings, and the domain's tokenizer {vocabulary.size} tokens: it is "
            "that of another model. Set data.tokenizer to the model's own folder or hub id."
        )
    if own is not None and own != row:
        raise InputError(
            f"{where}: the model's mask is token {row} (mask_token_id of config.json), and that of the domain's "
            f"tokenizer is token {own}. Set data.tokenizer to the model's own folder or hub id."
        )
    if own is None and row < vocabulary.size and row not in vocabulary.forbidden:
        raise InputError(
            f"{where}: the model's mask is token {row} (mask_token_id of config.json), which is an ordinary token of "
            "the domain's tokenizer. Set data.tokenizer to the model's own folder or hub id."
        )


def _theta(held: Held, where: str) -> float:
    """Base of the rotary frequencies: its own entry, or under ``rope_parameters`` as transformers 5 writes it."""
    kind = held.setting("rope_parameters", "rope_type")
    if kind not in (None, "default"):
        raise InputError(f"{where}: config.json has rope_type={kind}; only rotary positions without scaling are read.")
    found = held.setting("rope_theta")
    found = held.setting("rope_parameters", "rope_theta") if found is None else found
    return THETA if found is None else found


def _type(tensors: Mapping[str, Tensor]) -> str:
    """The types of the tensors, in words."""
    names = sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    return f"as they are ({', '.join(names)})"
