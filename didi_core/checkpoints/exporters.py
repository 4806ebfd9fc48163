"""Export of our checkpoints: a Hugging Face folder of our class, and DiDi-Instruct's two files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from didi_core.checkpoints.card import CARD, architecture_of, load_denoiser, load_scorer, model_folder, read_card
from didi_core.checkpoints.exported import PUBLIC
from didi_core.checkpoints.importers.parts import HEAD, NORMED_HEAD
from didi_core.checkpoints.importers.sources import DISCRIMINATOR
from didi_core.checkpoints.quiet import quiet
from didi_core.errors import InputError
from didi_core.models.dit import DiT
from didi_core.models.scorer import TokenScorer
from didi_core.storage.files import write_atomic, write_folder
from didi_core.storage.tensors import on_host
from didi_core.types import Denoiser


def export_hf(run: Path, out: Path) -> str:
    """Write ``config.json`` and ``model.safetensors`` for ``from_pretrained`` of a class of ``didi_core.huggingface``.

    The scorer's weights are stored with the model's, and the card's other entries in the configuration, so that an
    import restores everything.

    Returns:
        a message for the user.
    """
    write_folder(out, hub_files(run, out))
    kind = PUBLIC[read_card(model_folder(run))["architecture"]]
    return (
        f"Hugging Face folder: {out}\n"
        f"from didi_core.huggingface import {kind}\n"
        f"model = {kind}.from_pretrained({str(out)!r})  # or push_to_hub(...)"
    )


def hub_files(run: Path, out: Path, card: Mapping[str, Any] | None = None) -> Callable[[Path], None]:
    """What writes the files of ``export_hf`` into a folder.

    Args:
        card: in place of the model's own.

    Raises:
        InputError: the model cannot be exported, or ``out`` is in use.
    """
    from didi_core.checkpoints.huggingface import wrapped

    denoiser, scorer = _load(run, out)
    made = wrapped(denoiser, scorer, card or read_card(model_folder(run)))

    def save(folder: Path) -> None:
        with quiet():
            made.save_pretrained(folder)

    return save


def export_didi(run: Path, out: Path) -> str:
    """Write ``model.safetensors`` and, with a scorer, ``discriminator.safetensors``, as published by DiDi-Instruct.

    Returns:
        a message for the user.

    Raises:
        InputError: a model with a table of positions or an input of noise, for which their network has no place.
    """
    denoiser, scorer = _load(run, out)
    if not isinstance(denoiser, DiT):
        raise InputError(
            f"run={run} holds a {type(denoiser).__name__}, and DiDi-Instruct's network is a DiT. Set format=hf."
        )
    if denoiser.config.positions:
        raise InputError(
            f"run={run}: the model has a table of {denoiser.config.positions} absolute positions, and DiDi-Instruct's "
            "network has none. Set format=hf."
        )
    if denoiser.noise_size:
        raise InputError(
            f"run={run}: the model reads {denoiser.noise_size} numbers of noise, and DiDi-Instruct's "
            "network has no place for them. Set format=hf."
        )

    def fill(folder: Path) -> None:
        _write(folder / "model.safetensors", denoiser.state_dict())
        if scorer is not None:
            _write(folder / DISCRIMINATOR, discriminator_tensors(scorer))

    write_folder(out, fill)
    lines = [f"DiDi-Instruct folder: {out} (model.safetensors"]
    if scorer is None:
        return lines[0] + "; there is no scorer, so no discriminator.safetensors)"
    lines[0] += f", {DISCRIMINATOR})"
    if scorer.normed:
        lines.append(
            "note: this scorer reads the trunk through its final norm, which their discriminator lacks. The norm's "
            "tensors are in the file, but their code will not use them, and its rewards will differ."
        )
    return "\n".join(lines)


FORMATS: Mapping[str, Callable[[Path, Path], str]] = {"hf": export_hf, "didi": export_didi}


def discriminator_tensors(scorer: TokenScorer) -> dict[str, Tensor]:
    """A scorer under the names of DiDi-Instruct's discriminator (classic spectral norm)."""
    theirs = {ours: name for name, ours in {**HEAD, **NORMED_HEAD}.items()}
    return {theirs.get(name, name.removeprefix("network.")): value for name, value in scorer.state_dict().items()}


def _load(run: Path, out: Path) -> tuple[Denoiser, TokenScorer | None]:
    """The networks to export. Raises InputError for a folder in use, or for networks of other architectures."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"out={out} exists and is not empty: if it is an earlier export, it is whole. Name a new folder."
        )
    denoiser, scorer = load_denoiser(run), load_scorer(run)
    if architecture_of(denoiser) not in PUBLIC or not (scorer is None or isinstance(scorer, TokenScorer)):
        raise InputError(
            f"run={run} holds a {type(denoiser).__name__}, which cannot be exported. Its own files are in "
            f"{model_folder(run)} ({CARD}, model.safetensors)."
        )
    return denoiser, scorer


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = on_host(tensors)
    write_atomic(path, lambda partial: save_file(plain, partial))
