"""Which chains of a file are a design's, and where they differ if none is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from didi_core.errors import InputError, counted, plural

from .atoms import Chain


def chains_of(found: Sequence[Chain], wanted: Sequence[str], design: str, path: Path) -> tuple[Chain, ...]:
    """The chains with the wanted sequences, in their order; other chains, such as a target's, are left.

    Raises:
        InputError: a sequence that no chain has, saying where the nearest one differs; a residue without CA.
    """
    left, chosen = list(found), []
    for number, sequence in enumerate(wanted, start=1):
        match = next((chain for chain in left if chain.letters == sequence), None)
        if match is None:
            part = "" if len(wanted) == 1 else f"chain {number} of "
            raise InputError(
                f"{path}: this is not the structure of {part}design {design!r}: {_difference(left, sequence)}."
            )
        _check_whole(match, path)
        left.remove(match)
        chosen.append(match)
    return tuple(chosen)


def _difference(chains: Sequence[Chain], sequence: str) -> str:
    """Where the chain that is most like a sequence differs from it."""
    if not chains:
        return "there are fewer chains in it"

    def same(chain: Chain) -> int:
        return sum(a == b for a, b in zip(chain.letters, sequence, strict=False)) - abs(len(chain) - len(sequence))

    chain = max(chains, key=same)
    lacking = len(sequence) - len(chain)
    for place, (one, other) in enumerate(zip(chain.letters, sequence, strict=False)):
        if one != other and chain.letters == sequence[:place] + sequence[place + max(lacking, 0) :]:
            lost = sequence[place : place + lacking]
            where = f"{place + 1}-{place + lacking}" if lacking > 1 else f"{place + 1}"
            return f"chain {chain.name} lacks {plural('residue', lacking)} {where} of the design ({lost})"
        if one != other:
            return (
                f"residue {place + 1} of chain {chain.name} ({chain.numbers[place]} in the file) is {one}, the design "
                f"has {other}; {len(chain)} residues against {len(sequence)}"
            )
    return f"chain {chain.name} has {len(chain)} residues, the design {len(sequence)}"


def _check_whole(chain: Chain, path: Path) -> None:
    """Raise InputError where a residue has no CA."""
    lacking = np.flatnonzero(np.isnan(chain.positions()[:, 0, 0]))
    if len(lacking):
        first = int(lacking[0])
        raise InputError(
            f"{path}: {counted(len(lacking), 'residue')} of chain {chain.name} without a CA atom, the first is "
            f"{chain.letters[first]}{chain.numbers[first]}."
        )
