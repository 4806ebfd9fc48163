"""Structure prediction behind one small interface: batches of sequences in, confidence and PDB text out.

Confidence has two conventions that differ by a point or two, and both are given. ``plddt`` is the mean over all atoms
that exist, as fair-esm's ``mean_plddt`` and published tables of DPLM have it. ``plddt_ca`` is the mean over CA atoms,
as ColabFold and AlphaFold DB have it; ``residues`` are the CA values. All on the scale of 0 to 100.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float

from didi_core.device import out_of_memory

SMALLEST_CHUNK = 4


@dataclass(frozen=True)
class Folded:
    """A predicted structure of L residues; ``plddt`` 0 to 100, ``pae`` in angstroms.

    iptm, ipae: of a complex, pTM and mean error over pairs of residues in different chains.
    """

    plddt: float
    plddt_ca: float
    ptm: float
    residues: Float[np.ndarray, "L"] = field(repr=False)
    pae: Float[np.ndarray, "L L"] = field(repr=False)
    pdb: str = field(repr=False)
    iptm: float | None = None
    ipae: float | None = None

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        return bool(np.isfinite([self.plddt, self.plddt_ca, self.ptm]).all() and np.isfinite(self.residues).all())


class Folder(Protocol):
    """A structure predictor."""

    name: str
    chunk: int  # rows of the pair representation that are computed at a time

    def fold(self, sequences: Sequence[str]) -> list[Folded]:
        """Structures of a batch, in order; a complex has ``:`` between its chains."""
        ...


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in order of length, in batches of at most ``budget`` residues with padding, or one sequence."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[i] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def fold_within_memory(
    folder: Folder, sequences: Sequence[str], say: Callable[[str], None] = lambda _: None
) -> list[Folded | None]:
    """Fold a batch. If memory does not suffice, fold one by one, then in smaller chunks; None for what never fits."""
    try:
        return list(folder.fold(sequences))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    free_memory()
    if len(sequences) > 1:
        say(f"out of memory with {len(sequences)} sequences of up to {max(map(len, sequences))}: one by one")
        return [made for sequence in sequences for made in fold_within_memory(folder, [sequence], say)]
    before = folder.chunk
    try:
        if folder.chunk > SMALLEST_CHUNK:
            folder.chunk = max(folder.chunk // 4, SMALLEST_CHUNK)
            say(f"out of memory with {len(sequences[0])} residues: again with chunk={folder.chunk}")
            return fold_within_memory(folder, sequences, say)
        return [None]
    finally:
        folder.chunk = before


def free_memory() -> None:
    """Free the memory of the failed attempt."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
