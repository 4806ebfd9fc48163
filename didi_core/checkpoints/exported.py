"""A folder of ``export`` or ``push`` as a folder of networks, read without transformers.

``config.json`` holds what ``card.json`` does, and ``model.safetensors`` both networks, each under a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from didi_core.checkpoints.weights import read_weights
from didi_core.errors import InputError
from didi_core.storage.files import read_json, sha256

MODEL_TYPES = {"didi_dit": "dit", "didi_esm": "esm", "didi_llama": "llama"}  # of transformers: architectures
# Classes of didi_core.huggingface that read a model, by its architecture.
PUBLIC = {
    "dit": "DiTForMaskedDiffusion",
    "esm": "EsmForMaskedDiffusion",
    "llama": "LlamaForMaskedDiffusion",
}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
DENOISER, GUIDE = "denoiser.", "scorer."  # prefixes of the two networks' tensors


def is_export(folder: Path) -> bool:
    """Whether a folder was written by ``export`` or ``push``."""
    return (folder / CONFIG).is_file() and str(read_json(folder / CONFIG).get("model_type")) in MODEL_TYPES


def card_of(folder: Path) -> dict[str, Any]:
    """The card of an exported folder. Raises InputError where config.json or the weights lack a part."""
    config = read_json(folder / CONFIG)
    missing = [key for key in ("network", "vocabulary", "card") if not isinstance(config.get(key), Mapping)]
    if missing:
        raise InputError(
            f"{folder / CONFIG} has no entry {missing[0]!r}, so the export is incomplete. "
            "Export the model again."
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder / WEIGHTS} is missing. Get the folder again.")
    guide = config.get("scorer")
    digest = sha256(folder / WEIGHTS)
    return {
        **config["card"],
        "kind": "denoiser",
        "architecture": MODEL_TYPES[config["model_type"]],
        "config": config["network"],
        "vocabulary": config["vocabulary"],
        "sha256": {WEIGHTS: digest, **({} if guide is None else {"scorer.safetensors": digest})},
        **({} if guide is None else {"scorer": guide}),
    }


def tensors_of(folder: Path, prefix: str, digest: Any) -> dict[str, Tensor]:
    """The tensors of one network of an exported folder, under their names in the network.

    digest: SHA-256 of the weights, by ``card_of``.

    Raises:
        InputError: the file is damaged, or holds tensors of no such network.
    """
    path = folder / WEIGHTS
    found = read_weights(path, digest)
    strange = [name for name in found if not name.startswith((DENOISER, GUIDE))]
    if strange:
        raise InputError(f"{path} holds tensors of no network of an export: {', '.join(strange[:3])}. Get it again.")
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
