"""Pseudo-perplexity under a masked language model that is not the teacher: ESM-2 or ESM C.

``exp(-1/L sum_l log p(x_l | x without l))``, with each residue masked in turn. Like every perplexity it rewards repeats
and copies, so read it beside low complexity and identity. DPLM descends from ESM-2, so ESM-2 favours its designs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.errors import InputError
from didi_core.sequences.batches import padded
from didi_core.streams import derive_seed

from ..vocabulary import MASK, VOCABULARY, residue_ids
from .models import config_of, load_strictly

KINDS = {"esm": "EsmForMaskedLM", "esmc": "EsmcForMaskedLM"}
PACKAGE = "esm:"
ROUND = 4096  # tokens of a call
BESIDE = "attrs einops zstd cloudpathlib tenacity pandas scipy biotite brotli msgpack-numpy httpx"

Logits = Callable[[Int[Tensor, "B L"]], Float[Tensor, "B L K"]]


def pseudo_perplexity(logits: Logits, sequence: str, positions: int | None = None, seed: int = 0) -> float:
    """Pseudo-perplexity of one protein, from ``positions`` residues drawn for it, or from all.

    Args:
        logits: tokens [B, L] with <cls> and <eos>, no padding, to raw logits in the order of ESM's vocabulary.
    """
    tokens = padded([residue_ids(sequence)], VOCABULARY)[0]
    chosen = np.arange(len(sequence))
    if positions is not None and positions < len(sequence):
        stream = np.random.default_rng(derive_seed(seed, "pppl", sequence))
        chosen = np.sort(stream.choice(len(sequence), positions, replace=False))
    total, at_once = 0.0, max(ROUND // len(tokens), 1)
    for start in range(0, len(chosen), at_once):
        hidden = torch.from_numpy(chosen[start : start + at_once]) + 1  # <cls> comes first
        rows = torch.arange(len(hidden))
        masked = tokens.repeat(len(hidden), 1)
        masked[rows, hidden] = MASK
        with torch.no_grad():
            log_p = logits(masked)[rows, hidden].float().log_softmax(-1).cpu()
        total -= float(log_p[rows, tokens[hidden]].double().sum())
    return float(np.exp(total / len(chosen)))


def load_pseudo(source: str, folder: Path | None, device: torch.device) -> Logits:
    """The network of ``pppl``: a folder of ESM-2 or ESM C, or a model of the package esm where ``folder`` is None."""
    if folder is None:
        return _of_the_package(source.removeprefix(PACKAGE), device)
    kind = kind_of(source, folder)
    import transformers

    model = load_strictly(getattr(transformers, KINDS[kind]), folder, ("contact_head", "inv_freq", "position"))
    model = model.to(device)
    return lambda tokens: model(input_ids=tokens.to(device), attention_mask=torch.ones_like(tokens).to(device)).logits


def kind_of(source: str, folder: Path) -> str:
    """The kind of masked language model in a folder. Raises InputError for any other model."""
    config = config_of(folder, "pppl")
    kind = str(config.get("model_type"))
    if kind not in KINDS or config.get("is_folding_model"):
        raise InputError(
            f"pppl={source} is not a masked language model of proteins (model_type={kind} in its config.json). "
            "Give ESM-2 (facebook/esm2_t12_35M_UR50D) or ESM C (biohub/ESMC-300M)."
        )
    return kind


def _of_the_package(name: str, device: torch.device) -> Logits:
    """ESM C of EvolutionaryScale's package, which asks for an older transformers and runs beside a newer one."""
    try:
        module: Any = importlib.import_module("esm.models.esmc")
    except ImportError as error:
        raise InputError(
            f"pppl={PACKAGE}{name} needs EvolutionaryScale's package esm ({error}). It asks for transformers below "
            f"4.48.2, but runs with this one: pip install --no-deps esm, and pip install {BESIDE}. fair-esm has the "
            "same import name and must not be there. ESM C needs no package as pppl=biohub/ESMC-300M."
        ) from None
    try:
        model = module.ESMC.from_pretrained(name).to(device).float().eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"pppl={PACKAGE}{name} cannot be loaded: {' '.join(str(error).split())[:200]}.") from None
    return lambda tokens: model(sequence_tokens=tokens.to(device)).sequence_logits
