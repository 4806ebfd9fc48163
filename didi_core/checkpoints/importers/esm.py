"""ESM-2's layout, which DPLM uses: the state dict of ``EsmForMaskedLM``, bare or under Lightning's prefixes.

It is recognised by ``model_type``, never by ``architectures``, which its authors changed between uploads. Files from
before transformers 5 hold the rotary frequencies once per layer, and a table of positions that rotary models do not
read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from didi_core.checkpoints.importers.parts import Imported
from didi_core.checkpoints.importers.sources import Held
from didi_core.checkpoints.weights import check_finite, check_sizes
from didi_core.config import build
from didi_core.errors import InputError
from didi_core.models.esm import Esm, EsmConfig
from didi_core.streams import seeded
from didi_core.types import Vocabulary

MODEL_TYPE = "esm"
EMBEDDING, DECODER = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
FREQUENCIES = "esm.rotary_embeddings.inv_freq"
OF_A_LAYER = re.compile(r"esm\.encoder\.layer\.(\d+|\*)\.attention\.self\.rotary_embeddings\.inv_freq")
UNUSED = {
    "esm.embeddings.position_embeddings.weight": "a table of absolute positions, which rotary models do not read",
    "esm.embeddings.position_ids": "numbers of positions",
    "esm.contact_head.regression.weight": "ESM-2's contact head, of no use to a diffusion model",
    "esm.contact_head.regression.bias": "ESM-2's contact head, of no use to a diffusion model",
}
# transformers 5.23 writes layer norms under TensorFlow's names (and a frequency "of layer *").
OLD_NORMS = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}
# Entries that a configuration must have for the network to be the one built here.
REQUIRED = {"position_embedding_type": "rotary", "emb_layer_norm_before": False, "is_folding_model": False}


def recognises(held: Held) -> bool:
    """Whether its configuration names ESM or, without a configuration, its tensors are those of ESM."""
    kind = held.setting("model_type")
    return kind == MODEL_TYPE if kind is not None else any(name.endswith(EMBEDDING) for name in held.tensors)


def read_esm(held: Held, vocabulary: Vocabulary, key: str = "source", weights: str = "auto") -> Imported:
    """The denoiser in fp32, tied, in eval mode: of the EMA if there is one, unless ``weights=raw``.

    Raises:
        InputError: another vocabulary or kind of ESM, or tensors that are missing, unexpected or of another shape.
    """
    where = f"{key}={held.source}"
    if weights == "ema" and held.average is None:
        raise InputError(f"weights=ema, but {held.source} has no EMA. Set weights=auto.")
    averaged = held.average if weights != "raw" else None
    tensors, ignored = rename(held.tensors if averaged is None else averaged, where)
    if held.average is not None:
        ignored |= {"ema": "weights=raw"} if averaged is None else {"raw weights": "the EMA is used"}
    _check_settings(held, vocabulary, where)
    shape = tuple(tensors[EMBEDDING].shape)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{where}: {EMBEDDING} has the shape {shape}, not one of embeddings.")
    rows = shape[0]
    if rows != vocabulary.size + 1:
        raise InputError(
            f"{where} has {rows} embeddings, but this domain needs {vocabulary.size + 1} (tokens and mask): it is a "
            "model of another vocabulary, such as DPLM-2 with its structure tokens."
        )
    sizes = _sizes(held, tensors, where)
    tensors.setdefault(DECODER, tensors[EMBEDDING])
    known = () if FREQUENCIES in tensors else (FREQUENCIES,)
    check_sizes(lambda: Esm(sizes, vocabulary), sizes.layers, tensors, where, known)
    check_finite(tensors, where)
    with seeded(0, "weights that the file replaces"):
        denoiser = Esm(sizes, vocabulary)
    tensors.setdefault(FREQUENCIES, denoiser.state_dict()[FREQUENCIES])
    if not torch.equal(tensors[DECODER], tensors[EMBEDDING]):
        raise InputError(f"{where}: {DECODER} and {EMBEDDING} differ, but in ESM-2 they are one matrix.")
    denoiser.load_state_dict({name: value.float() for name, value in tensors.items()})
    return Imported(denoiser.eval(), None, "ESM-2 (DPLM)", "as they are" if averaged is None else "EMA", ignored)


def rename(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under the current names of transformers.

    Returns:
        the tensors by name, and the tensors that are left out, with reasons.

    Raises:
        InputError: there is no embedding, tensors lie beside the network, or layers have frequencies of their own.
    """
    prefix = next((name.removesuffix(EMBEDDING) for name in tensors if name.endswith(EMBEDDING)), None)
    if prefix is None:
        raise InputError(f"{where} is not an ESM-2: it has no tensor {EMBEDDING}.")
    strange = [name for name in tensors if not name.startswith(prefix)]
    if strange:
        raise InputError(f"{where}: unexpected tensors {', '.join(strange[:5])} beside the network under {prefix}*.")
    named = {_present(name.removeprefix(prefix)): value for name, value in tensors.items()}
    ignored = {name: UNUSED[name] for name in named if name in UNUSED}
    of_layers = sorted(name for name in named if OF_A_LAYER.fullmatch(name))
    if any(not torch.equal(named[name], named[of_layers[0]]) for name in of_layers):
        raise InputError(f"{where}: its layers have different rotary frequencies, but ESM-2 has one set for all.")
    kept = {name: value for name, value in named.items() if name not in ignored and name not in of_layers}
    if of_layers:  # not computed again: a file may hold them in half precision, as its network used them in training
        kept.setdefault(FREQUENCIES, named[of_layers[0]])
    return kept, ignored


def _present(name: str) -> str:
    """The name that a tensor has in memory."""
    for old, new in OLD_NORMS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _check_settings(held: Held, vocabulary: Vocabulary, where: str) -> None:
    """Raise InputError for a configuration of another kind of ESM."""
    if held.setting("model_type") != MODEL_TYPE:
        return  # a training file without a configuration: its tensors decide
    for name, needed in REQUIRED.items():
        found = held.setting(name)
        if found != needed and not (found is None and needed is False):
            raise InputError(f"{where}: config.json has {name}={found}; only {name}={needed} (ESM-2, DPLM) is read.")
    mask = held.setting("mask_token_id")
    if mask not in (None, vocabulary.mask):
        raise InputError(f"{where}: config.json has mask_token_id={mask}; this domain's mask is {vocabulary.mask}.")


def _sizes(held: Held, tensors: Mapping[str, Tensor], where: str) -> EsmConfig:
    """Sizes from the configuration if there is one, otherwise from the tensors."""
    if held.setting("model_type") == MODEL_TYPE:
        names = {
            "hidden": "hidden_size",
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "intermediate": "intermediate_size",
        }
        missing = [theirs for theirs in names.values() if not isinstance(held.setting(theirs), int)]
        if missing:
            raise InputError(f"{where}: config.json does not have {', '.join(missing)}.")
        sizes: dict[str, Any] = {ours: held.setting(theirs) for ours, theirs in names.items()}
        for name, default in (("layer_norm_eps", 1e-5), ("rope_theta", 10_000.0), ("token_dropout", False)):
            found = held.setting(name)
            sizes[name] = default if found is None else found
        return build(EsmConfig, sizes, f"{where}: config.json: model")
    if FREQUENCIES not in tensors:
        raise InputError(
            f"{where} does not contain its number of heads: it has neither rotary frequencies nor a configuration. "
            "Give a folder with its weights as pytorch_model.bin and the config.json of the model it was trained from."
        )
    hidden, width = tensors[EMBEDDING].shape[1], 2 * tensors[FREQUENCIES].numel()
    layers = {name.split(".")[3] for name in tensors if name.startswith("esm.encoder.layer.")}
    wide = next((v.shape[0] for n, v in tensors.items() if n.endswith("layer.0.intermediate.dense.weight")), 4 * hidden)
    return EsmConfig(hidden=hidden, layers=len(layers), heads=max(hidden // width, 1), intermediate=wide)
