"""Scoring a folder again with other keys: what was folded stays, and everything else follows the command of now.

Scores that take long are kept with a hash of what they were made from, keys included; only what differs is made again.
Structures that were folded are hours of work, so a command that would replace or hide them is refused instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from didi_core.config import build
from didi_core.errors import InputError
from didi_core.storage.journal import Journal

from .board import FOLD
from .complexes import LINKER
from .kept import journals
from .settings import AUTO, ESMFOLD, NONE, ProteinScoring

KEYS = ("fold", "fold_model", "recycles", "linker", "pae")  # decide what a folded structure is, and its files


def folds(settings: ProteinScoring) -> bool:
    """Whether structures are predicted here: not with fold=none, nor where others are given and fold=auto."""
    return settings.fold != NONE and not (settings.structures and settings.fold == AUTO)


def may_score_again(folder: Path, before: Mapping[str, Any], wishes: Mapping[str, Any]) -> bool:
    """Whether a folder scored with ``before`` may be scored with ``wishes``: not where those are no keys of now.

    Raises:
        InputError: structures were folded in it that ``wishes`` would not make alike.
    """
    now = _folding(build(ProteinScoring, wishes))
    try:
        then = _folding(build(ProteinScoring, before))
    except InputError:
        return False
    if then == now or not any(Journal(path).rows(repair=False) for path in journals(folder, FOLD)):
        return True
    made = {"fold": ESMFOLD} | {key: before[key] for key in KEYS if before.get(key) not in (None, AUTO, False)}
    words = " ".join(f"{key}={value}" for key, value in made.items())
    raise InputError(
        f"{folder} holds structures that were folded with {words}, and other keys of {', '.join(KEYS)} would replace "
        "or hide them. Give these, or name another out."
    )


def _folding(settings: ProteinScoring) -> tuple[object, ...] | None:
    """The values of ``KEYS``, defaults filled in; None where nothing is folded."""
    if not folds(settings):
        return None
    kind = ESMFOLD if settings.fold == AUTO else settings.fold
    return kind, settings.model, settings.recycles, settings.linker or LINKER, settings.pae
