"""Teachers by name."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from didi_core.errors import InputError, unknown
from didi_core.types import Vocabulary

from .assets import BUNDLED, asset


def load_teacher(name: str, vocabulary: Vocabulary) -> nn.Module:
    """A denoiser by name, on the CPU, in eval mode: ``bundled``, a run directory, a folder with card.json, or a peer's
    file, folder or hub id."""
    from didi_core.checkpoint import has_card, load_denoiser
    from didi_core.importers import is_hub_id, load_denoiser_from

    folder = asset("teacher") if name == BUNDLED else Path(name).expanduser()
    if has_card(folder):
        return load_denoiser(folder).eval()
    if name == BUNDLED:
        raise InputError(f"the bundled teacher is not in this installation ({folder}). Give teacher=<run directory>.")
    if folder.exists() or is_hub_id(name):
        return load_denoiser_from(name, vocabulary)
    raise unknown("teacher", name, [BUNDLED, "<run directory>", "<folder or file of a checkpoint>", "<hub id>"])
