"""The decision of ``fold=auto``, with its reason in one line: local weights, a GPU, the estimated time on the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from didi_core.checkpoints.hub import in_cache, is_hub_id, locate
from didi_core.config import user_path

from . import esmfold, esmfold2
from .complexes import LINKER
from .esmfold import EsmFold
from .esmfold2 import EsmFold2
from .folding import Folder
from .settings import AUTO, ESMFOLD2, NONE, ProteinScoring

PROBE = 48  # residues of the measured step
GROWTH = 2.5  # time goes with length to this power: assumed, between its square and its cube; gpu_folding.py measures


@dataclass(frozen=True)
class Choice:
    """The predictor, or None, and the reason in one line."""

    folder: Folder | None
    reason: str


def model_folder(settings: ProteinScoring) -> Path | None:
    """The folder of the weights, fetched if necessary. fold=auto never fetches, and uses only local weights.

    Raises:
        InputError: the weights are not local and cannot be fetched, or they belong to another model.
    """
    if settings.fold == NONE:
        return None
    if settings.fold == AUTO and not user_path(settings.model).exists() and is_hub_id(settings.model):
        found = in_cache(settings.model)
    else:
        found = locate(settings.model, "fold_model")
    if found is not None:
        (esmfold2 if settings.fold == ESMFOLD2 else esmfold).check(found)
    return found


def choose(
    settings: ProteinScoring, folder: Path | None, device: torch.device, lengths: Sequence[int], seed: int = 0
) -> Choice:
    """Decide whether to fold, and load the predictor; the reason is given in either case.

    Args:
        folder: result of ``model_folder``. lengths: lengths of the designs that are not folded yet.
    """
    if settings.fold == NONE:
        return Choice(None, "fold=none: scores of the sequences only")
    if folder is None:
        gpu = "" if device.type == "cuda" else ", and there is no GPU"
        return Choice(
            None,
            f"fold=auto: none, because the weights of {settings.model} are not on this machine (8.5 GB){gpu}; "
            "fold=esmfold fetches them, fold_model=<folder> takes them from elsewhere",
        )
    made = load(settings, folder, device, seed)
    if settings.fold != AUTO:
        return Choice(made, f"fold={settings.fold}: {settings.model} on {device.type}")
    if device.type == "cuda":
        return Choice(made, f"fold=auto: {made.name}, because its weights are here and there is a GPU")
    hours = estimate(made, lengths) / 3600
    needed = f"about {duration(hours)} for {len(lengths):,} designs on the CPU, by a measured step"
    if hours <= settings.hours:
        return Choice(made, f"fold=auto: {made.name}, because it takes {needed} (limit hours={settings.hours:g})")
    return Choice(
        None, f"fold=auto: none, because it would take {needed}; hours={settings.hours:g} is the limit, no GPU is here"
    )


def load(settings: ProteinScoring, folder: Path, device: torch.device, seed: int = 0) -> Folder:
    """The predictor of a folder."""
    if settings.fold == ESMFOLD2:
        return EsmFold2.load(folder, device, settings.recycles, settings.chunk, seed)
    return EsmFold.load(folder, device, settings.recycles, settings.chunk, settings.linker or LINKER)


def estimate(folder: Folder, lengths: Sequence[int]) -> float:
    """Seconds to fold designs of these lengths, estimated from folding one."""
    size = min(PROBE, max(lengths, default=PROBE))
    folder.fold(["A"])  # the first call of any network is slower
    started = time.perf_counter()
    folder.fold([("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNL" * (size // 48 + 1))[:size]])
    seconds = time.perf_counter() - started
    return sum(seconds * max(length / size, 1.0) ** GROWTH for length in lengths)


def duration(hours: float) -> str:
    """Hours in words of the right unit."""
    if hours * 3600 < 90:
        return f"{max(hours * 3600, 1):.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1.5 else f"{hours:.1f} h"
