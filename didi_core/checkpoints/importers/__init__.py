"""Import of checkpoints: files and hub folders of MDLM, IDLM, SDTT, DiDi-Instruct, DPLM, LLaDA, Dream,
SDAR and LLaDA2, and our own exports.

No code of a checkpoint is run: files are safetensors, or pickles read without making their objects. Loading is strict,
and everything that is left out on purpose is reported.
"""

from __future__ import annotations

from pathlib import Path

from didi_core.checkpoints.card import has_card, load_denoiser, load_scorer, model_folder, read_card
from didi_core.checkpoints.exported import CONFIG
from didi_core.checkpoints.hub import fetch_config, is_hub_id, locate
from didi_core.checkpoints.importers import didi, esm, llama, mdlm
from didi_core.checkpoints.importers.parts import Imported, build_denoiser, build_scorer, check_vocabulary
from didi_core.checkpoints.importers.refusals import looks_like, refuse_other_processes
from didi_core.checkpoints.importers.sources import Held, read
from didi_core.config import user_path
from didi_core.errors import InputError, unknown
from didi_core.models.llama import Llama
from didi_core.storage.files import read_json
from didi_core.types import Denoiser, Vocabulary

LAYOUTS = (didi, mdlm)  # the first that recognises a checkpoint reads it
WEIGHTS = ("auto", "ema", "raw")

__all__ = ["WEIGHTS", "Imported", "import_checkpoint", "is_hub_id", "load_denoiser_from", "outline_of"]


def import_checkpoint(
    source: str, vocabulary: Vocabulary, *, weights: str = "auto", heads: int | None = None, key: str = "source"
) -> Imported:
    """Read a checkpoint: a file, a folder, a run directory, or a hub id (``owner/name[@revision]``).

    Args:
        vocabulary: the one it must have been made for: as many tokens as its embedding has rows, minus the mask.
        weights: ``ema``, ``raw``, or ``auto`` for the EMA if there is one.
        heads: number of attention heads, for files that do not contain it.
        key: the setting that named the source, for messages.

    Raises:
        InputError: the source cannot be imported; the message gives the reason, what it looks like and what to do.
    """
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    path = locate(source, key)
    if has_card(path):
        return _own(path, vocabulary, key)
    held = read(path, source)
    if esm.recognises(held):
        return esm.read_esm(held, vocabulary, key, weights)
    if llama.recognises(held):
        return llama.read_llama(held, vocabulary, key)
    refuse_other_processes(held)
    for layout in LAYOUTS:
        if layout.recognises(held):
            found = layout.parts(held, weights)
            break
    else:
        raise InputError(f"{key}={source} is not a checkpoint of MDLM's family: {looks_like(held.tensors)}.")
    denoiser = build_denoiser(found.denoiser, vocabulary, source, heads or _configured_heads(held), key)
    scorer = build_scorer(found.discriminator, denoiser, source) if found.discriminator else None
    return Imported(denoiser, scorer, found.layout, found.weights, found.ignored)


def outline_of(source: str, vocabulary: Vocabulary, key: str = "teacher") -> Llama | None:
    """A large teacher on the meta device, from its config.json alone; None for any other source."""
    path = user_path(source)
    if path.is_dir():
        config = path / CONFIG
    elif not path.exists() and is_hub_id(source):
        config = fetch_config(source, key)
    else:
        return None
    if has_card(path) or not config.is_file():
        return None
    return llama.outline(read_json(config), source, vocabulary, key)


def load_denoiser_from(source: str | Path, vocabulary: Vocabulary, key: str = "teacher") -> Denoiser:
    """The denoiser of ``import_checkpoint``; a domain's ``teacher`` calls this for names that are not its own."""
    return import_checkpoint(str(source), vocabulary, key=key).denoiser


def _own(path: Path, vocabulary: Vocabulary, key: str) -> Imported:
    """A run directory, a folder with card.json, or an exported one."""
    denoiser = load_denoiser(path)
    check_vocabulary(denoiser.vocabulary, vocabulary, f"{key}={path}")
    return Imported(denoiser, load_scorer(path), "didi_core", "as they are", card=read_card(model_folder(path)))


def _configured_heads(held: Held) -> int | None:
    """Attention heads by the configuration that came with a checkpoint."""
    for names in (("model", "n_heads"), ("n_heads",)):
        found = held.setting(*names)
        if isinstance(found, int):
            return found
    return None
