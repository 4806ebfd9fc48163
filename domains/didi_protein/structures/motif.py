"""Whether a kept motif has kept its shape: RMSD of its residues in a prediction against the file that they are from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from didi_core.config import user_path
from didi_core.errors import InputError
from didi_core.storage.files import read_json

from ..contig import Contig
from ..fasta import without_breaks
from ..structure_file import ResidueRange, StructureFile
from .atoms import BACKBONE, Chain, read_chains
from .superposition import rmsd, superpose

MOTIF, MOTIF_FILE = "motif", "motif_pdb"  # columns of a design: where its pieces are, and the structure file
RMSD, RMSD_CA = "motif_rmsd", "motif_rmsd_ca"
_PIECE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})=(?:([A-Za-z]+)|([^\s/:,=]+):)(-?[0-9]{1,9})-(-?[0-9]{1,9})")


@dataclass(frozen=True)
class Piece:
    """Residues of a design, the first at ``first`` (from 1), that were kept from ``source``."""

    first: int
    source: ResidueRange

    def __str__(self) -> str:
        return f"{self.first}-{self.first + len(self.source) - 1}={self.source}"


def pieces_of(text: str) -> list[Piece]:
    """Pieces from the column ``motif``, such as ``27-34=A12-19,60-64=1:3-7``. Raises InputError for anything else."""
    pieces = []
    for part in text.split(","):
        match = _PIECE.fullmatch(part)
        if match is None:
            raise InputError(f"motif={text}: {part!r} is no piece such as 27-34=A12-19 (design=structure file).")
        first, last = int(match[1]), int(match[2])
        source = ResidueRange(match[3] or match[4], int(match[5]), int(match[6]))
        if first < 1 or last < first or source.last - source.first != last - first:
            raise InputError(f"motif={text}: {part} has two ranges of different lengths.")
        pieces.append(Piece(first, source))
    return pieces


def motif_info(entry: Mapping[str, Any], beside: Path) -> dict[str, str]:
    """The columns ``motif`` and ``motif_pdb`` from a design's entry of the index map that ``sample`` wrote."""
    pieces = [f"{p['first']}-{p['last']}={p['source']}" for p in entry.get("pieces", ()) if "source" in p]
    if not pieces or "pdb" not in entry:
        return {}
    given = user_path(entry["pdb"])
    near = beside.parent / given.name
    return {MOTIF: ",".join(pieces), MOTIF_FILE: str(near if not given.is_file() and near.is_file() else given)}


def map_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """What ``motif_info`` reads, from a row with its columns."""
    sequence, pieces = without_breaks(row["sequence"]), []
    for piece in pieces_of(row[MOTIF]):
        last = piece.first + len(piece.source) - 1
        letters = sequence[piece.first - 1 : last]
        pieces.append({"first": piece.first, "last": last, "residues": letters, "source": str(piece.source)})
    return {"length": len(sequence), "pdb": row[MOTIF_FILE], "pieces": pieces}


def map_beside(samples: Path) -> Path:
    """The index map of a file of samples."""
    return samples.with_name(f"{samples.name}.map.json")


def read_map(samples: Path) -> dict[str, dict[str, str]]:
    """``motif_info`` by design, from the map beside a file of samples; empty without one. InputError for a bad one."""
    path = map_beside(samples)
    if not path.is_file():
        return {}
    try:
        return {str(name): motif_info(entry, path) for name, entry in read_json(path)["samples"].items()}
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{path}: this is no index map of sample ({error!r}). Remove it, or sample again.") from None


def pieces_in_header(contig: str) -> str:
    """The column ``motif`` from the contig of a header, whose lengths are drawn; '' without a range in it."""
    layout = Contig.parse(contig, lambda source: "A" * len(source)).draw(None, torch.Generator())
    return ",".join(f"{p['first']}-{p['last']}={p['source']}" for p in layout.pieces if "source" in p)


@cache
def _file(path: Path, changed: int) -> tuple[StructureFile, dict[str, Chain]]:
    """Read once, as long as it is the same: every layout of a contig takes its residues from one file."""
    del changed
    return StructureFile(path), {chain.name: chain for chain in read_chains(path)}


@dataclass(frozen=True)
class Reference:
    """Pieces of a motif as they are in the structure file, [N, 3 atoms, 3]: N, CA, C, NaN where one is absent.

    incomplete: residues without N or C, in words; there is no RMSD of the backbone of their pieces.
    """

    pieces: tuple[Piece, ...]
    letters: tuple[str, ...]
    atoms: tuple[Float[np.ndarray, "N K 3"], ...]
    path: Path
    incomplete: tuple[str, ...] = ()

    @classmethod
    def read(cls, pieces: Sequence[Piece], path: Path) -> Reference:
        """Raises InputError for residues that are missing, insertion codes, or a residue without CA."""
        structure, chains = _file(path.resolve(), path.stat().st_mtime_ns)
        letters, atoms, incomplete = [], [], []
        for piece in pieces:
            letters.append(_letters(structure, piece.source))
            chain = chains[piece.source.chain]
            place = chain.numbers.index(str(piece.source.first))
            found = chain.positions(BACKBONE)[place : place + len(piece.source)]
            if bare := _lacking(chain, place, found, 1):
                raise InputError(
                    f"{path}, range {piece.source}: {bare} has no CA atom, so there is no RMSD. Give motif=<a complete "
                    "file of the same numbering>, or remove the index map beside the designs."
                )
            atoms.append(found)
            incomplete += [f"{bare} lacks {BACKBONE[i]}" for i in (0, 2) if (bare := _lacking(chain, place, found, i))]
        return cls(tuple(pieces), tuple(letters), tuple(atoms), path, tuple(incomplete))

    def residues(self) -> Int[np.ndarray, "N"]:
        """Residues of the design that are of the motif, from 0."""
        return np.concatenate([np.arange(p.first - 1, p.first - 1 + len(p.source)) for p in self.pieces])

    def fit(self, atoms: Float[np.ndarray, "L K 3"]) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
        """Rotation and shift that lay a design's motif on the structure file, by the atoms that both have."""
        made, known = atoms[self.residues()].reshape(-1, 3), np.concatenate(self.atoms).reshape(-1, 3)
        there = ~np.isnan(made + known).any(axis=1)
        return superpose(made[there], known[there])

    def check(self, design: str, sequence: str) -> None:
        """Raise InputError where a design does not hold the motif's residues."""
        for piece, letters in zip(self.pieces, self.letters, strict=True):
            there = sequence[piece.first - 1 : piece.first - 1 + len(letters)]
            if there != letters:
                raise InputError(
                    f"design {design!r} does not hold its motif: residues {piece} are {there or 'not there'} in the "
                    f"design, {letters} in the structure file. Is the index map of other designs?"
                )

    def columns(self, design: str, sequence: str, atoms: Float[np.ndarray, "L K 3"]) -> dict[str, float | None]:
        """RMSD of backbone (N, CA, C) and CA: all pieces superposed together, and each alone where there are several.

        Args:
            atoms: N, CA and C of the design's predicted structure.

        Raises:
            InputError: the design does not hold the motif's residues.
        """
        self.check(design, sequence)
        whole = np.concatenate(self.atoms)
        made = atoms[self.residues()]
        columns = {RMSD: _rmsd(made, whole), RMSD_CA: _rmsd(made[:, 1:2], whole[:, 1:2])}
        if len(self.pieces) > 1:
            for number, (piece, one) in enumerate(zip(self.pieces, self.atoms, strict=True), start=1):
                part = atoms[piece.first - 1 : piece.first - 1 + len(one)]
                columns |= {
                    f"motif_{number}_rmsd": _rmsd(part, one),
                    f"motif_{number}_rmsd_ca": _rmsd(part[:, 1:2], one[:, 1:2]),
                }
        return columns


def _letters(structure: StructureFile, source: ResidueRange) -> str:
    """Residues of a range; where they cannot be read, the advice is for designs that are made already."""
    try:
        return structure.sequence(source)
    except InputError as error:
        raise InputError(
            f"{error} Of designs that are made: motif=<a whole file of the same numbering>, or remove the index map."
        ) from None


def _lacking(chain: Chain, place: int, atoms: Float[np.ndarray, "N K 3"], atom: int) -> str:
    """The first residue of a piece without an atom, such as A7; '' where all have it."""
    without = np.flatnonzero(np.isnan(atoms[:, atom, 0]))
    return f"{chain.name}{chain.numbers[place + int(without[0])]}" if len(without) else ""


def _rmsd(one: Float[np.ndarray, "N K 3"], other: Float[np.ndarray, "N K 3"]) -> float | None:
    """None where an atom is absent, or where fewer than three leave the superposition open."""
    if np.isnan(one).any() or np.isnan(other).any() or one[..., 0].size < 3:
        return None
    return rmsd(one.reshape(-1, 3), other.reshape(-1, 3))


def within(rows: Sequence[Mapping[str, Any]], limit: float, plddt: float | None = None) -> Iterator[bool]:
    """Whether each design that has a motif RMSD keeps its motif to ``limit`` angstroms, with at least that pLDDT."""
    for row in rows:
        found = row.get(RMSD)
        if isinstance(found, float) and math.isfinite(found):
            yield found <= limit and (plddt is None or (row.get("plddt") or 0.0) >= plddt)
