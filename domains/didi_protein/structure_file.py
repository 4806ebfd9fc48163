"""Residues of a structure file by chain and number: PDB or mmCIF, plain or gzip, through Biopython.

A range of residues is read only if it is unambiguous: one model, every residue present, no insertion codes, and one of
the 20 amino acids at each number.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBExceptions import PDBConstructionException
from Bio.PDB.PDBParser import PDBParser

from didi_core.errors import InputError, one_line, warn
from didi_core.storage.text_file import text_pieces

# Residues whose protonation or bond force fields put into their name: AMBER's, CHARMM's, OPLS's.
FORCE_FIELDS = {
    "HIE": "H", "HID": "H", "HIP": "H", "HSD": "H", "HSE": "H", "HSP": "H", "CYX": "C", "CYM": "C",
    "ASH": "D", "GLH": "E", "LYN": "K", "LSN": "K", "LYP": "K", "ARN": "R", "TYM": "Y", "CYN": "C",
}  # fmt: skip
LETTERS = {**{name.strip(): letter for name, letter in protein_letters_3to1.items()}, "MSE": "M", **FORCE_FIELDS}
# Modified residues of the PDB by the amino acid that they are made of: phosphoserine (SEP) is a serine.
PARENTS = {
    name: letter
    for name, letter in protein_letters_3to1_extended.items()
    if letter in protein_letters_3to1.values() and name not in LETTERS
}
WATER = "W"
LONGEST = 10_000  # residues of a range: beyond any model here
RATIO = 20  # times its packed size that a file may unpack to; mmCIF packs to a tenth
_MMCIF = re.compile(r"\s*(#[^\n]*\n\s*)*data_", re.IGNORECASE)
_LETTERS_ONLY = re.compile(r"[A-Za-z]+")
# Exceptions of Biopython's parsers for files that are not structures.
DAMAGE = (PDBConstructionException, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError,
          TypeError, ValueError)  # fmt: skip


@dataclass(frozen=True)
class ResidueRange:
    """Residues ``first`` to ``last`` of a chain, both included, numbered as in the file."""

    chain: str
    first: int
    last: int

    def __str__(self) -> str:
        """``A12-30``, or ``1:12-30`` where the chain's name is not of letters alone."""
        colon = "" if _LETTERS_ONLY.fullmatch(self.chain) else ":"
        return f"{self.chain}{colon}{self.first}-{self.last}"

    def __len__(self) -> int:
        return self.last - self.first + 1

    def overlaps(self, other: ResidueRange) -> bool:
        return self.chain == other.chain and self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class _Residue:
    number: int
    insertion: str
    name: str
    variants: tuple[str, ...]  # more than one where alternative locations are different amino acids


class StructureFile:
    """The residues of a structure file. Raises InputError for a file that is none, or holds several models."""

    def __init__(self, path: Path) -> None:
        self.path = path
        models = list(parse(path))
        if len(models) > 1:
            raise InputError(
                f"{path}: there are {len(models)} models in it, and which one is meant cannot be told. "
                "Save the one you want in a file of its own."
            )
        self._chains = {str(chain.id): _residues(chain) for chain in models[0]} if models else {}
        self._chains = {name: residues for name, residues in self._chains.items() if residues}
        if not self._chains:
            raise InputError(f"{path}: there is no residue in it. Is it a PDB or mmCIF file?")

    def chains(self) -> list[str]:
        """Names of the chains, in the order of the file."""
        return list(self._chains)

    def sequence(self, wanted: ResidueRange) -> str:
        """The residues of a range as letters.

        Selenomethionine (MSE) is read as methionine, and a force field's name (HIE, HSD, CYX, ASH ...) as its residue.
        Another modified residue is read as the amino acid that it is made of, with a warning: a design has only the 20.

        Raises:
            InputError: no such chain, residues that are missing, insertion codes, residues made of none of the 20.
        """
        if len(wanted) > LONGEST:
            raise InputError(f"{self._place(wanted)} is {len(wanted):,} residues long; {LONGEST:,} are the most.")
        if wanted.chain not in self._chains:
            message = f"{self._place(wanted)} has no chain {wanted.chain!r}. Its chains: {self._summary()}."
            nameless = any(not name.strip() for name in self._chains)
            raise InputError(f"{message} Give each chain a name in the file (column 22)." if nameless else message)
        inside = [r for r in self._chains[wanted.chain] if wanted.first <= r.number <= wanted.last]
        inserted = [r for r in inside if r.insertion]
        if inserted:
            raise InputError(
                f"{self._place(wanted)} has insertion codes ({_names(wanted.chain, inserted)}), so the numbers do not "
                "count residues. Renumber the file, or choose a range without them."
            )
        there = {r.number for r in inside}
        if not there:
            raise InputError(f"{self._place(wanted)} is absent. Chains: {self._summary()}.")
        missing = [n for n in range(wanted.first, wanted.last + 1) if n not in there]
        if missing:
            raise InputError(
                f"{self._place(wanted)} lacks {_numbers(wanted.chain, missing)}: a motif must be whole. "
                f"Chains: {self._summary()}. Write the parts as ranges of their own, with free positions between."
            )
        letters = "".join(self._letter(residue, wanted) for residue in inside)
        if changed := [r for r in inside if r.name in PARENTS]:
            read = ", ".join(f"{wanted.chain}{r.number} {r.name} as {PARENTS[r.name]}" for r in changed[:5])
            more = ", ..." if len(changed) > 5 else ""
            warn(f"{self._place(wanted)} modified residues are read as what they are made of: {read}{more}.")
        return letters

    def _letter(self, residue: _Residue, wanted: ResidueRange) -> str:
        if len(residue.variants) > 1:
            raise InputError(
                f"{self._place(wanted)} {wanted.chain}{residue.number} is {' or '.join(residue.variants)} "
                "(alternative locations). Keep one of them in the file."
            )
        letter = LETTERS.get(residue.name) or PARENTS.get(residue.name)
        if letter is None:
            raise InputError(
                f"{self._place(wanted)} {wanted.chain}{residue.number} is {residue.name}, "
                "not one of the 20 amino acids."
            )
        return letter

    def _place(self, wanted: ResidueRange) -> str:
        return f"{self.path}, range {wanted}:"

    def _summary(self) -> str:
        """Every chain with the numbers it spans: ``A 1-120, B 5-88``."""
        spans = []
        for name, residues in list(self._chains.items())[:12]:
            numbers = [r.number for r in residues]
            spans.append(f"{name.strip() or '(without a name)'} {min(numbers)}-{max(numbers)}")
        more = len(self._chains) - len(spans)
        return ", ".join(spans) + (f" and {more} more" if more else "")


def _names(chain: str, residues: list[_Residue]) -> str:
    shown = ", ".join(f"{chain}{r.number}{r.insertion}" for r in residues[:5])
    return shown + (", ..." if len(residues) > 5 else "")


def _numbers(chain: str, numbers: list[int]) -> str:
    """Numbers as ranges: ``A17-19, A25``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    shown = ", ".join(f"{chain}{a}" if a == b else f"{chain}{a}-{b}" for a, b in spans[:5])
    return shown + (", ..." if len(spans) > 5 else "")


def _residues(chain: Any) -> list[_Residue]:
    """Amino acids of a chain and whatever else has a number of its own; water and ligands beside them are left out."""
    found: dict[tuple[int, str], _Residue] = {}
    for residue in chain:
        kind, number, insertion = residue.id
        if kind == WATER:
            continue
        # DisorderedResidue: one entity for several amino acids at one number
        names = residue.disordered_get_id_list() if residue.is_disordered() == 2 else [residue.get_resname()]
        names = tuple(name.strip().upper() for name in names)
        key = (number, insertion.strip())
        if key not in found or not kind.strip():  # an amino acid before a ligand of the same number
            found[key] = _Residue(number, insertion.strip(), names[0], names)
    return sorted(found.values(), key=lambda r: (r.number, r.insertion))


def parse(path: Path) -> Any:
    """Biopython's structure of a file; its content shows whether it is mmCIF."""
    if not path.is_file():
        raise InputError(f"pdb={path}: no such file. Give the path of a PDB or mmCIF file.")
    text = _text(path)
    mmcif = _MMCIF.match(text) is not None
    authors = "_atom_site.auth_asym_id" in text  # minimal files have the other names of chains alone
    parser = MMCIFParser(QUIET=True, auth_chains=authors) if mmcif else PDBParser(QUIET=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parser.get_structure("structure", io.StringIO(text if mmcif else _as_biopython_reads(text)))
    except KeyError as error:
        raise InputError(f"{path}: cannot be read as a structure (there is no {error.args[0]} in it).") from error
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be read as a structure ({one_line(error)}). Is it whole?") from error


def _text(path: Path) -> str:
    """The text of a file, unpacked, with line feeds. Raises InputError for what is none, or unpacks to too much.

    Remarks may be in any encoding; atoms are ASCII.
    """
    pieces = []
    for piece in text_pieces(path, errors="replace", ratio=RATIO):
        if "\0" in piece:
            raise InputError(f"{path}: binary data, not a PDB or mmCIF file.")
        pieces.append(piece)
    return "".join(pieces).replace("\r\n", "\n").replace("\r", "\n")


def _as_biopython_reads(text: str) -> str:
    """A PDB file in which every atom has an occupancy, and names of residues have three letters.

    Without occupancies Biopython cannot compare alternative locations. Of a name of four letters it reads three, and
    the first letter of AMBER's names at the ends of a chain (NALA, CGLY) is the one that is too much.
    """
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if not line.startswith(("ATOM  ", "HETATM")):
            continue
        if not line[54:60].strip():
            line = f"{line[:54]:<54}  1.00{line[60:]}"
        if line[17] in "NC" and line[18:21] in LETTERS:
            line = f"{line[:17]}{line[18:21]} {line[21:]}"
        lines[i] = line
    return "\n".join(lines)
