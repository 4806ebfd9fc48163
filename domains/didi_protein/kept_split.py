"""The split of a large file, cached beside it, because a million proteins would take minutes at every start."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from didi_core.errors import InputError
from didi_core.progress import Reporter
from didi_core.storage.files import in_turn, write_atomic
from didi_core.storage.unpacked import read_arrays

from .clustering import Split, split_by_similarity

FOLDER = ".didi_splits"
KEPT_FROM = 20_000  # number of sequences; fewer are split in a few seconds
PARTS = ("train", "validation", "left_out")


@dataclass(frozen=True)
class Splitting:
    """How proteins are divided: share that is held out, 5-mer containment of relatives, seed.

    selection: what decided which records of the files the sequences are. again: whether a file that has changed since
    its split was kept is split anew; otherwise it is refused.
    """

    fraction: float
    threshold: float
    seed: int = 0
    selection: Mapping[str, Any] = field(default_factory=dict)
    again: bool = False

    def split(self, sequences: Sequence[str], bar: Reporter | None = None) -> Split:
        """The split of some sequences, computed. ``bar`` shows how far it is."""
        try:
            return split_by_similarity(
                sequences, fraction=self.fraction, threshold=self.threshold, seed=self.seed, bar=bar
            )
        finally:
            if bar:
                bar.stop()


def kept_split(sequences: Sequence[str], beside: Path, bar: Reporter, how: Splitting) -> Split:
    """``split_by_similarity``, from the folder ``.didi_splits`` beside the data if it was computed before.

    It is kept under the hash of settings and sequences, so other data never get it. Of several processes that start at
    once, one makes it, and the others wait and read it. ``bar`` shows how far a split is, and says where it is made
    again, and where the folder cannot be written.

    Raises:
        InputError: the file was split before with the same settings, and holds other sequences now.
    """
    if len(sequences) < KEPT_FROM:
        return how.split(sequences)
    settings = {"fraction": how.fraction, "threshold": how.threshold, "seed": how.seed, **how.selection}
    stem = f"{beside.name}-{_digest([json.dumps(settings, sort_keys=True)])}"
    path = beside.parent / FOLDER / f"{stem}-{_digest(sequences)}.npz"
    with in_turn(path.parent / "lock"):
        return _found_or_made(sequences, beside, path, stem, bar, how)


def _found_or_made(
    sequences: Sequence[str], beside: Path, path: Path, stem: str, bar: Reporter, how: Splitting
) -> Split:
    found = _load(path, len(sequences))
    if found is not None:
        return found
    if path.exists():
        bar.message(f"{path} is damaged: {beside} is split again.")
    elif any(path.parent.glob(f"{glob.escape(stem)}-*.npz")):
        changed = (
            f"{beside} is not what it was when its split was kept in {path.parent}: it holds other sequences, "
            f"{len(sequences):,} now. A new split holds out others, which a network trained before may have seen."
        )
        if not how.again:
            raise InputError(f"{changed} Restore the file, or set data.resplit=true to split it again.")
        bar.message(f"{changed} It is split again (data.resplit=true).")
    split = how.split(sequences, bar)
    try:
        write_atomic(path, lambda part: _save(part, split, len(sequences)))
    except OSError as error:
        where = f"the split of {beside} cannot be kept in {path.parent}"
        bar.message(f"{where} ({error.strerror}): the next start makes it again.")
    return split


def _digest(texts: Sequence[str]) -> str:
    """Of texts in their order, 24 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\n")
    return digest.hexdigest()[:24]


def _save(path: Path, split: Split, count: int) -> None:
    part = np.empty(count, dtype=np.uint8)
    for number, name in enumerate(PARTS):
        part[getattr(split, name)] = number
    with path.open("wb") as file:
        np.savez_compressed(file, part=part, clusters=split.clusters, by_similarity=split.by_similarity)


def _load(path: Path, count: int) -> Split | None:
    """The split; None if it is absent or damaged."""
    if not path.is_file():
        return None
    try:
        kept = read_arrays(path)
        part, clusters, by_similarity = kept["part"], int(kept["clusters"]), bool(kept["by_similarity"])
    except (InputError, ValueError, KeyError, TypeError):
        return None
    if part.shape != (count,):
        return None
    train, validation, left_out = (np.flatnonzero(part == number) for number in range(len(PARTS)))
    return Split(train, validation, left_out, clusters, by_similarity)
