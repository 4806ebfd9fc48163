"""The protein chains of a structure file with their atoms, and the PDB text of a design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import numpy as np
from Bio.Data.PDBData import protein_letters_1to3
from jaxtyping import Float, Int

from didi_core.errors import InputError

from ..structure_file import LETTERS, PARENTS, parse

BACKBONE = ("N", "CA", "C")
UNKNOWN = "X"
LARGEST = 9999  # residue number of a PDB line
CHAIN_NAMES = ascii_uppercase + ascii_lowercase + digits


@dataclass(frozen=True)
class Chain:
    """Amino acids in the order of the file; atoms one after the other, with the residue that each belongs to.

    ``letters`` has X for amino acids outside the 20. ``numbers``: as in the file, with insertion codes. ``places``:
    where an atom stands among all atoms of the file.
    """

    name: str
    letters: str
    numbers: tuple[str, ...] = field(repr=False)
    atoms: tuple[str, ...] = field(repr=False)
    elements: tuple[str, ...] = field(repr=False)
    owners: Int[np.ndarray, "A"] = field(repr=False)
    coordinates: Float[np.ndarray, "A 3"] = field(repr=False)
    bfactors: Float[np.ndarray, "A"] = field(repr=False)
    places: Int[np.ndarray, "A"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.letters)

    def positions(self, names: Sequence[str] = ("CA",)) -> Float[np.ndarray, "L K 3"]:
        """Coordinates of the named atoms of every residue, NaN where an atom is not there."""
        found = np.full((len(self), len(names), 3), np.nan)
        column = {name: i for i, name in enumerate(names)}
        for atom, owner, place in zip(self.atoms, self.owners.tolist(), self.coordinates, strict=True):
            if atom in column:
                found[owner, column[atom]] = place
        return found

    def of_ca(self, values: Float[np.ndarray, "A"]) -> Float[np.ndarray, "L"]:
        """Values of the CA atoms; a residue without one has the mean of its atoms."""
        sums = np.bincount(self.owners, weights=values, minlength=len(self))
        found = sums / np.maximum(np.bincount(self.owners, minlength=len(self)), 1)
        for atom, owner, value in zip(self.atoms, self.owners.tolist(), values.tolist(), strict=True):
            if atom == "CA":
                found[owner] = value
        return found


def read_chains(path: Path) -> list[Chain]:
    """The protein chains of a PDB or mmCIF file, plain or gzip. Raises InputError for none, or several models."""
    models = list(parse(path))
    if len(models) > 1:
        raise InputError(
            f"{path}: there are {len(models)} models in it, and which one is meant cannot be told. "
            "Save the one you want in a file of its own."
        )
    chains, before = [], 0
    for chain in models[0] if models else ():
        residues = list(chain)
        made = _chain(str(chain.id), residues, before)
        before += sum(len(residue) for residue in residues)
        if made is not None:
            chains.append(made)
    if not chains:
        raise InputError(f"{path}: there is no protein in it.")
    return chains


def ca_positions(path: Path) -> Float[np.ndarray, "L 3"]:
    """CA positions of all chains, in angstroms."""
    return np.concatenate([chain.positions()[:, 0] for chain in read_chains(path)])


def _chain(chain: str, residues: Sequence[Any], before: int) -> Chain | None:
    """A chain of Biopython's, amino acids only; ``before``: atoms of the file that came earlier."""
    letters, numbers, kept = "", [], []
    for residue in residues:
        atoms, places = list(residue), range(before, before + len(residue))
        before += len(residue)
        name = residue.get_resname().strip().upper()
        letter = LETTERS.get(name) or (PARENTS.get(name) if "CA" in residue else None)
        if letter is None and not (residue.id[0] == " " and "CA" in residue):
            continue  # water, a ligand
        kept += [(atom, len(letters), place) for atom, place in zip(atoms, places, strict=True)]
        letters += letter or UNKNOWN
        numbers.append(f"{residue.id[1]}{residue.id[2].strip()}")
    if not letters:
        return None
    return Chain(
        chain, letters, tuple(numbers),
        tuple(atom.get_name() for atom, _, _ in kept),
        tuple((atom.element or atom.get_name()[:1]).strip() for atom, _, _ in kept),
        np.array([owner for _, owner, _ in kept]),
        np.array([atom.get_coord() for atom, _, _ in kept], dtype=np.float64),
        np.array([atom.get_bfactor() for atom, _, _ in kept], dtype=np.float64),
        np.array([place for _, _, place in kept]),
    )  # fmt: skip


def pdb_text(chains: Sequence[Chain], bfactors: Sequence[Float[np.ndarray, "A"]]) -> str:
    """Chains as a PDB file: residues of each numbered from 1; chains lettered from A, as their names may be long.

    Raises:
        InputError: more residues or chains than the format can number.
    """
    if len(chains) > len(CHAIN_NAMES) or max(map(len, chains)) > LARGEST:
        raise InputError(
            f"{len(chains)} chains of up to {max(map(len, chains)):,} residues: a PDB file holds {len(CHAIN_NAMES)} "
            f"chains of {LARGEST:,}."
        )
    lines, serial = [], 0
    for letter, chain, values in zip(CHAIN_NAMES, chains, bfactors, strict=False):
        for atom, element, owner, place, value in zip(
            chain.atoms, chain.elements, chain.owners.tolist(), chain.coordinates.tolist(), values, strict=True
        ):
            serial += 1
            residue = protein_letters_1to3.get(chain.letters[owner], "UNK").strip()
            x, y, z = place
            name = atom if len(atom) == 4 or len(element) == 2 else f" {atom}"
            lines.append(
                f"ATOM  {serial % 100000:5d} {name:<4s} {residue:>3s} {letter}{owner + 1:4d}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{value:6.2f}          {element:>2s}  "
            )
        lines.append(f"TER   {(serial + 1) % 100000:5d}      {residue:>3s} {letter}{len(chain):4d}")
    return "\n".join([*lines, "END", ""])
