"""The designs of a score folder: a row of scores each, per-residue confidence, and where the structure is.

scores.jsonl     a line per design: id, sequence, every score, and plddt_per_residue where it was folded
pdb/<id>.pdb     predicted structure, pLDDT in the B-factor column
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float

from didi_core.errors import InputError
from didi_core.storage.files import inside, parse_json
from didi_core.storage.frame import frame
from didi_core.storage.shape import NUMBER, Each, misfit

from ..fasta import CHAINS, without_breaks
from ..structure_file import parse

if TYPE_CHECKING:
    from pandas import DataFrame

SCORES, STRUCTURES, PARTS = "scores.jsonl", "pdb", "parts"
PLDDT, PLDDT_CA, RESIDUES, PPPL = "plddt", "plddt_ca", "plddt_per_residue", "pppl"
TM_NEAREST, STRUCTURE_CLUSTER = "tm_nearest", "structure_cluster"
BANDS = (  # lower end, name, colour: AlphaFold DB's
    (90.0, "very high", "#0053d6"),
    (70.0, "confident", "#65cbf3"),
    (50.0, "low", "#ffdb13"),
    (0.0, "very low", "#ff7d45"),
)
CONFIDENT = 70.0
IN_ORDER = "in the order of the file"
SCORE = Each((None, bool, *NUMBER, str), dict)  # values of a row
LARGEST = 1e300
LONGEST_NAME = 120  # characters of a file name


@dataclass(frozen=True)
class Design:
    """One scored sequence. ``confidence`` (0 to 100) and what depends on it are None where nothing was folded."""

    id: str
    sequence: str
    scores: Mapping[str, Any] = field(default_factory=dict)
    residues: Float[np.ndarray, "L"] | None = field(default=None, repr=False)
    pdb: Path | None = None

    @property
    def chains(self) -> list[str]:
        """The residues of each chain."""
        return self.sequence.split(CHAINS)

    @property
    def letters(self) -> str:
        """The residues of all chains."""
        return without_breaks(self.sequence)

    @property
    def confidence(self) -> float | None:
        """Mean pLDDT over CA atoms, or the score ``plddt`` where that is all there is."""
        return confidence(self.scores)

    def number(self, name: str) -> float | None:
        """A score as a number; None where it is absent or undefined."""
        return number(self.scores, name)

    def atoms(self) -> Float[np.ndarray, "L 3"]:
        """CA positions of the predicted structure in angstroms, centred. Raises InputError for a damaged file."""
        if self.pdb is None:
            raise InputError(f"design {self.id!r} has no structure.")
        found = [residue["CA"].coord for residue in parse(self.pdb).get_residues() if "CA" in residue]
        if len(found) != len(self.letters):
            raise InputError(
                f"{self.pdb}: {len(found)} CA atoms for {len(self.letters)} residues of design {self.id!r}. "
                "Score it again."
            )
        atoms = np.asarray(found, dtype=np.float64)
        return atoms - atoms.mean(axis=0)


def number(scores: Mapping[str, Any], name: str) -> float | None:
    """A score of a row as a number; None where it is absent or undefined."""
    value = scores.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        return None
    return float(value)


def confidence(scores: Mapping[str, Any]) -> float | None:
    """Mean pLDDT of a row over CA atoms, as ColabFold shows it; the score ``plddt`` where that is all there is."""
    over_ca = number(scores, PLDDT_CA)
    return over_ca if over_ca is not None else number(scores, PLDDT)


def confidence_label(rows: Iterable[Mapping[str, Any]]) -> str:
    """What ``confidence`` is in these rows."""
    return "pLDDT over CA atoms" if any(number(row, PLDDT_CA) is not None for row in rows) else "pLDDT"


def confidence_of(designs: Sequence[Design]) -> str:
    """What ``Design.confidence`` is in these designs."""
    return confidence_label([design.scores for design in designs])


def best_first(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], str]:
    """Numbers of the rows, the most confident first, or by pseudo-perplexity where none was folded; undefined last.

    Returns:
        the numbers, and the order in words.
    """
    keys, said = [-value if (value := confidence(row)) is not None else None for row in rows], ""
    if any(key is not None for key in keys):
        said = f"the most confident first (mean {confidence_label(rows)})"
    else:
        keys = [number(row, PPPL) for row in rows]
        some = any(key is not None for key in keys)
        said = "the lowest pseudo-perplexity first" if some else IN_ORDER
    return sorted(range(len(rows)), key=lambda i: (keys[i] is None, keys[i] or 0.0)), said


def structure_name(name: str, suffix: str = "pdb") -> str:
    """File name of a design's structure, or of what belongs to it: its id, percent-encoded where a name must be."""
    safe = quote(name, safe="!#$&'()+,;=@[]^`{}~<>| ")  # no quotation mark, which would end a name in a script
    if len(safe) > LONGEST_NAME:
        safe = f"{safe[:LONGEST_NAME]}~{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"
    return f"{'%2E' + safe[1:] if safe.startswith('.') else safe}.{suffix}"


def band(plddt: float) -> int:
    """Index into ``BANDS``."""
    return next(i for i, (low, _, _) in enumerate(BANDS) if plddt >= low or low == 0.0)


def read_designs(folder: Path, ranked: bool = False) -> list[Design]:
    """All designs of a score folder, the most confident first, or with ``ranked`` in the order of the file.

    Raises:
        InputError: no such folder, not a score folder, or a line that is not a row of scores.
    """
    path = inside(folder, SCORES)
    if not path.is_file():
        raise InputError(f"{folder}: there is no {SCORES} in it. Give the output folder of score.")
    designs: list[Design] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            design = _design(folder, parse_json(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: this is not a row of scores ({error}). Score again.") from error
        if lines.setdefault(design.id, number) != number:
            first = lines[design.id]
            raise InputError(f"{path}, line {number}: the id {design.id!r} is there already, in line {first}.")
        designs.append(design)
    if not designs:
        raise InputError(f"{path}: there is no design in it.")
    return designs if ranked else [designs[i] for i in best_first([design.scores for design in designs])[0]]


def _design(folder: Path, row: dict[str, Any]) -> Design:
    """A line of scores as a design."""
    name, sequence = str(row.pop("id")), str(row.pop("sequence"))
    residues = row.pop(RESIDUES, None)
    if residues is not None and len(residues) != len(without_breaks(sequence)):
        raise ValueError(f"{len(residues)} values in {RESIDUES} for {len(without_breaks(sequence))} residues")
    if wrong := misfit(row, SCORE):
        raise ValueError(wrong)
    beyond = next((k for k, value in row.items() if type(value) in NUMBER and not abs(value) < LARGEST), None)
    if beyond is not None:
        raise ValueError(f"{beyond} is not a finite number")
    pdb = inside(folder, f"{STRUCTURES}/{structure_name(name)}")
    return Design(
        name,
        sequence,
        row,
        None if residues is None else np.asarray(residues, dtype=np.float64),
        pdb if pdb.is_file() else None,
    )


def designs_frame(designs: Sequence[Design]) -> DataFrame:
    """The scores as a pandas DataFrame, a line per design. Raises InputError without pandas."""
    return frame([{"id": d.id, "sequence": d.sequence, "length": len(d.letters), **d.scores} for d in designs])
