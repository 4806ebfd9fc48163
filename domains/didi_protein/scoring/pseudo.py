"""Pseudo-perplexity under a masked language model that is not the teacher: ESM-2 or ESM C.

``exp(-1/L sum_l log p(x_l | x without l))``, with each residue masked in turn. Like every perplexity it rewards repeats
and copies, so read it beside low complexity and identity. DPLM descends from ESM-2, so ESM-2 favours its designs.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.config import user_path
from didi_core.errors import InputError
from didi_core.sequences.batches import padded
from didi_core.streams import derive_seed

from ..fasta import CHAINS
from ..vocabulary import MASK, VOCABULARY, residue_ids
from .models import config_of, load_strictly

KINDS = {"esm": "EsmForMaskedLM", "esmc": "EsmcForMaskedLM"}
PACKAGE, DISTRIBUTION = "esm:", "esm"
OLDEST, PYTHON = (3, 4), (3, 12)  # release of the package, and the Python that it needs
NAMED = {"esmc_300m": "biohub/ESMC-300M", "esmc_600m": "biohub/ESMC-600M", "esmc_6b": "biohub/ESMC-6B"}  # its names
COMMAND = "pip install 'didi-core[esm]'"
ROUND = 4096  # tokens of a call

Logits = Callable[[Int[Tensor, "B L"]], Float[Tensor, "B L K"]]


def pseudo_perplexity(logits: Logits, sequence: str, positions: int | None = None, seed: int = 0) -> float:
    """Pseudo-perplexity of one protein, from ``positions`` residues drawn for it, or from all.

    The chains of a complex are each scored alone, and their log-probabilities averaged over all residues.

    Args:
        logits: tokens [B, L] with <cls> and <eos>, no padding, to raw logits in the order of ESM's vocabulary.
    """
    chains = sequence.split(CHAINS)
    if len(chains) > 1:
        logs = [np.log(pseudo_perplexity(logits, chain, positions, seed)) for chain in chains]
        return float(np.exp(np.average(logs, weights=list(map(len, chains)))))
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


def check_package(source: str) -> None:
    """Raise InputError, with what to do, where ``pppl`` asks for EvolutionaryScale's package and it cannot be used."""
    if not source.startswith(PACKAGE):
        return
    lacking = why_not()
    if lacking:
        raise InputError(f"pppl={source} {lacking} ESM C needs no package as pppl=biohub/ESMC-300M.")


def why_not(python: tuple[int, ...] = sys.version_info[:3]) -> str:
    """Why the package esm cannot be used by this Python, and what to do; '' where it can."""
    found = package_release()
    if found and _release(found) >= OLDEST:
        return ""
    wanted = ".".join(map(str, OLDEST))
    if python < PYTHON:
        here, needed = ".".join(map(str, python)), ".".join(map(str, PYTHON))
        return (
            f"needs EvolutionaryScale's package esm {wanted}, which needs Python {needed}; this is {here}, for which "
            "there are only releases that need an older transformers than this one. Use a newer Python."
        )
    if _installed("fair-esm"):
        return f"needs EvolutionaryScale's package esm, whose name fair-esm has: pip uninstall fair-esm, {COMMAND}."
    if found:
        return f"needs EvolutionaryScale's package esm {wanted} or newer, found {found}: {COMMAND}."
    return f"needs EvolutionaryScale's package esm: {COMMAND}."


def package_release() -> str:
    """The release of EvolutionaryScale's package; '' where it is not installed."""
    return version(DISTRIBUTION) if _installed(DISTRIBUTION) else ""


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _release(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 3.4.1.post1 is (3, 4, 1)."""
    return tuple(int(part) for part in re.sub(r"[^0-9.].*", "", text, flags=re.DOTALL).strip(".").split("."))


def _of_the_package(name: str, device: torch.device) -> Logits:
    """ESM C of EvolutionaryScale's package, by its short name, a hub id or a folder."""
    check_package(f"{PACKAGE}{name}")
    module: Any = importlib.import_module("esm.models.esmc")
    source = NAMED.get(name, str(user_path(name)))
    try:
        model = module.EsmcForMaskedLM.from_pretrained(source, device=device, attn_implementation="sdpa")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"pppl={PACKAGE}{name} cannot be loaded: {' '.join(str(error).split())[:200]}. Its names are "
            f"{', '.join(NAMED)}; a folder holds config.json and model.safetensors."
        ) from None
    model = model.float().eval()
    return lambda tokens: model(input_ids=tokens.to(device)).logits
