"""A folder in the layout of LLaDA-8B-Instruct on the hub, with random weights, and a tokenizer of its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

SPREAD = 0.02  # standard deviation of the weights
WRITERS = 3  # files that are written at the same time
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,?!\n"


@dataclass(frozen=True)
class Sizes:
    """Of the network, its tokenizer and its files.

    rows: of the embedding; tokens: of the tokenizer, which are fewer; mask: one of them. files: of the weights.
    """

    hidden: int
    layers: int
    heads: int
    intermediate: int
    rows: int
    tokens: int
    mask: int
    files: int

    @property
    def of_layers(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.intermediate)


EIGHT = Sizes(4096, 32, 32, 12288, 126464, 126349, 126336, 6)
TINY = Sizes(32, 2, 4, 48, 160, 150, 140, 2)


def config(sizes: Sizes) -> dict[str, Any]:
    """The entries of LLaDA-8B-Instruct's config.json."""
    return {
        "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0, "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
        "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModel": "modeling_llada.LLaDAModelLM"},
        "bias_for_layer_norm": False, "block_group_size": 1, "block_type": "llama", "d_model": sizes.hidden,
        "embedding_dropout": 0.0, "embedding_size": sizes.rows, "eos_token_id": sizes.mask - 1,
        "flash_attention": False, "include_bias": False, "include_qkv_bias": False, "init_device": "meta",
        "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True,
        "mask_token_id": sizes.mask, "max_sequence_length": 4096, "mlp_hidden_size": sizes.intermediate,
        "mlp_ratio": 4, "model_type": "llada", "multi_query_attention": None, "n_heads": sizes.heads,
        "n_kv_heads": sizes.heads, "n_layers": sizes.layers, "pad_token_id": sizes.mask - 1, "residual_dropout": 0.0,
        "rms_norm_eps": 1e-05, "rope": True, "rope_full_precision": True, "rope_theta": 500000.0,
        "scale_logits": False, "use_cache": False, "vocab_size": sizes.rows, "weight_tying": False,
    }  # fmt: skip


def shapes(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """All tensors by LLaDA's names."""
    width, inner = sizes.hidden, sizes.intermediate
    yield "model.transformer.wte.weight", (sizes.rows, width)
    for layer in range(sizes.layers):
        stem = f"model.transformer.blocks.{layer}"
        for name in ("attn_norm", "ff_norm"):
            yield f"{stem}.{name}.weight", (width,)
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            yield f"{stem}.{name}.weight", (width, width)
        for name in ("ff_proj", "up_proj"):
            yield f"{stem}.{name}.weight", (inner, width)
        yield f"{stem}.ff_out.weight", (width, inner)
    yield "model.transformer.ln_f.weight", (width,)
    yield "model.transformer.ff_out.weight", (sizes.rows, width)


def write_teacher(folder: Path, sizes: Sizes, device: torch.device) -> int:
    """Write the folder; the weights are drawn on the device. Returns the bytes of all tensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(sizes)))
    wanted = list(shapes(sizes))
    where = {name: number * sizes.files // len(wanted) for number, (name, _) in enumerate(wanted)}
    files = [f"model-{i + 1:05d}-of-{sizes.files:05d}.safetensors" for i in range(sizes.files)]

    def fill(number: int) -> int:
        stream = torch.Generator(device).manual_seed(number)
        held = {name: _drawn(shape, stream).cpu() for name, shape in wanted if where[name] == number}
        save_file(held, folder / files[number])
        return sum(value.nbytes for value in held.values())

    with ThreadPoolExecutor(WRITERS) as pool:
        size = sum(pool.map(fill, range(sizes.files)))
    index = {"metadata": {"total_size": size}, "weight_map": {name: files[i] for name, i in where.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def _drawn(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Weights in bf16: norms of ones, matrices of normal numbers."""
    made = torch.ones(shape, dtype=torch.bfloat16, device=stream.device)
    return made if len(shape) == 1 else made.normal_(0, SPREAD, generator=stream)


def write_tokenizer(folder: Path, sizes: Sizes) -> None:
    """One token a letter, and so many that no text has that the mask has its own id."""
    begin, end, mask = sizes.mask - 2, sizes.mask - 1, sizes.mask
    special = {"<|startoftext|>": begin, "<|endoftext|>": end, "<|mdm_mask|>": mask}
    others = [i for i in range(sizes.tokens) if i not in special.values()]
    spelled = {(LETTERS[n] if n < len(LETTERS) else f"<{i}>"): i for n, i in enumerate(others)}
    backend = Tokenizer(models.WordLevel({**spelled, **special}, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


def write_prompts(path: Path, num: int) -> None:
    """Prompts without responses."""
    asked = (f"What is {number} times {number + 7}, and why so?" for number in range(num))
    path.write_text("".join(f"{json.dumps({'prompt': prompt})}\n" for prompt in asked))
