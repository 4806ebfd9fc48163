"""Scores of a sequence alone: low complexity, repeats, composition, ProtParam, nearest known protein, clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from Bio.SeqUtils.ProtParam import ProteinAnalysis

from ..alignment import identity, reaches
from ..fasta import CHAINS, without_breaks
from ..kmers import KmerIndex, residue_index
from ..metrics.complexity import low_complexity_fraction
from ..metrics.composition import UNIREF50, kl_divergence
from ..metrics.protparam import properties
from ..metrics.repeats import longest_run, repeated_words, top_share
from ..nearest.neighbour import Search

IDENTITIES = (0.5, 0.7, 0.9)  # of clusters
WORD, CANDIDATES, FEWEST = 4, 8, 2  # representatives are aligned if they share enough 4-mers, the closest eight of them
DIGITS = 5


def sequence_scores(
    sequence: str, neighbours: Search | None = None, names: Sequence[str] = ()
) -> dict[str, float | int | str | None]:
    """The row of one design; undefined numbers are None. The residues of a complex are scored as one sequence.

    Args:
        neighbours: the search among the known proteins, for the columns ``nn_*``; ``names``: their ids.
    """
    count, sequence = len(sequence.split(CHAINS)), without_breaks(sequence)
    physical = properties(sequence)
    row: dict[str, Any] = {
        "length": len(sequence),
        "low_complexity": low_complexity_fraction(sequence),
        "longest_run": longest_run(sequence),
        "top_share": top_share(sequence),
        "repeated_3mers": repeated_words(sequence),
        "composition_kl": float(kl_divergence(np.bincount(residue_index(sequence), minlength=20), UNIREF50)),
        "molecular_weight": physical["molecular_weight"],
        "pi": physical["isoelectric_point"],
        "gravy": physical["gravy"],
        "aromaticity": physical["aromaticity"],
        "instability": physical["instability"],
        "extinction": ProteinAnalysis(sequence).molar_extinction_coefficient()[0],
    }
    if count > 1:
        row["chains"] = count
    if neighbours is not None:
        near = neighbours.nearest(sequence)
        row["nn_id"] = None if near.index is None else names[near.index]
        row["nn_identity"], row["nn_coverage"] = near.identity, near.coverage
        row["nn_method"] = neighbours.name
    made = {key: plain(value) for key, value in row.items()}
    if neighbours is not None:
        made["nn_evalue"] = float(f"{near.evalue:.2g}") if math.isfinite(near.evalue) else None  # may be tiny
    return made


def plain(value: Any) -> Any:
    """A number in the form of JSON and CSV: rounded, None if it is not finite."""
    if not isinstance(value, float | np.floating):
        return value
    number = float(value)
    return round(number, DIGITS) if math.isfinite(number) else None


def cluster_columns(sequences: Sequence[str]) -> dict[str, list[int]]:
    """``cluster_50``, ``cluster_70``, ``cluster_90``: the cluster of each sequence, numbered from 1 by first member."""
    index = KmerIndex(sequences, WORD)
    known: dict[tuple[int, int], float] = {}

    def alike(i: int, j: int, level: float) -> bool:
        pair = (min(i, j), max(i, j))
        if pair not in known:
            one, other = sequences[pair[0]], sequences[pair[1]]
            if not reaches(one, other, level):
                return False
            known[pair] = identity(one, other)
        return known[pair] >= level

    return {f"cluster_{round(100 * level)}": identity_clusters(index, level, alike) for level in IDENTITIES}


def identity_clusters(index: KmerIndex, level: float, alike: Callable[[int, int, float], bool]) -> list[int]:
    """Greedy clusters as CD-HIT's: longest first, each joins a representative at ``level`` or becomes one.

    A representative that shares fewer than ``needed_words`` is not aligned, so a few relatives are missed.

    Args:
        index: of the sequences. alike: whether the identity of two of them, by their numbers, reaches a level.
    """
    founder = np.full(len(index), -1)
    leads = np.zeros(len(index), dtype=bool)
    for i in np.argsort(-index.sizes, kind="stable").tolist():
        names, shared = index.sharing(index.words(i), needed_words(level, int(index.sizes[i])))
        shared, names = shared[leads[names]], names[leads[names]]
        near = names[np.argsort(-shared, kind="stable")[:CANDIDATES]].tolist()
        founder[i] = next((j for j in near if alike(i, j, level)), i)
        leads[i] = founder[i] == i
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(lead), len(numbers) + 1) for lead in founder]


def needed_words(level: float, words: int) -> int:
    """Distinct 4-mers that two proteins share, one of so many, before an alignment is worth while.

    Where differences are scattered, proteins of identity ``level`` share about ``level^4`` of them, more where
    differences come together. Half of that is asked for.
    """
    return max(math.ceil(level**WORD * words / 2), min(FEWEST, max(words, 1)))
