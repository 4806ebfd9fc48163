"""Teachers by name."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from didi_core.errors import InputError, unknown

from .assets import BUNDLED, asset


def load_teacher(name: str) -> nn.Module:
    """A denoiser by name, on the CPU, in eval mode: ``bundled``, a run directory, or a folder with card.json."""
    from didi_core.checkpoint import load_denoiser

    folder = asset("teacher") if name == BUNDLED else Path(name).expanduser()
    if folder.exists():
        return load_denoiser(folder).eval()
    if name == BUNDLED:
        raise InputError(f"the bundled teacher is not in this installation ({folder}). Give teacher=<run directory>.")
    raise unknown("teacher", name, [BUNDLED, "<run directory>", "<folder with model.safetensors and card.json>"])
