"""Motif columns of the table: how far each kept motif moved, and how many designs keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from didi_core.domain.scoring import Job
from didi_core.errors import InputError, counted
from didi_core.types import Sample

from ..design_report.designs import CONFIDENT, STRUCTURES, structure_name
from ..fasta import without_breaks
from ..structures.atoms import BACKBONE, read_chains
from ..structures.motif import MOTIF, MOTIF_FILE, Reference, pieces_in_header, pieces_of, within
from .sequence import plain

LIMITS = (1.0, 2.0)  # angstroms


def references(designs: Sequence[Sample], motif: Path | None) -> dict[str, Reference]:
    """The motif of each design that kept one, by the index map or its header's contig.

    Args:
        motif: structure file, in place of the one that the index map names.

    Raises:
        InputError: no structure file, residues that are not in it, or a design that does not hold them.
    """
    found: dict[str, Reference] = {}
    known: dict[tuple[str, str], Reference] = {}
    for design in designs:
        file = str(motif or design.info.get(MOTIF_FILE) or "")
        contig = str(design.info.get("contig") or "")
        pieces = str(design.info.get(MOTIF) or "") or (pieces_in_header(contig) if contig and file else "")
        if not pieces or not file:
            continue
        if (pieces, file) not in known:
            if not Path(file).is_file():
                raise InputError(
                    f"the motif's structure file {file} is not there. Give motif=<structure file>, or remove the "
                    "index map beside the designs."
                )
            known[pieces, file] = Reference.read(pieces_of(pieces), Path(file))
        known[pieces, file].check(design.id, without_breaks(design.text))
        found[design.id] = known[pieces, file]
    if motif is not None and not found:
        raise InputError(f"motif={motif} has no effect: no design has a contig with a range such as A12-30.")
    return found


def log_motifs(designs: Sequence[Sample], motifs: Mapping[str, Reference], job: Job) -> None:
    """Say which motifs are measured in part or not at all, and why."""
    for path, incomplete in {motif.path: motif.incomplete for motif in motifs.values() if motif.incomplete}.items():
        job.message(f"{path}: {', '.join(incomplete)}; such a piece, and all together, have the RMSD of CA atoms only")
    unknown = [d.id for d in designs if d.id not in motifs and has_range(str(d.info.get("contig") or ""))]
    if unknown:
        job.message(
            f"motif RMSD: not of {counted(len(unknown), 'design')}, such as {unknown[0]}, whose contig keeps "
            "residues of a structure file: no index map beside the input names it. Give motif=<that file>"
        )


def has_range(contig: str) -> bool:
    """Whether a contig keeps residues of a structure file: a segment with digits that is no length."""
    return any(any(map(str.isdigit, part)) and not part.replace("-", "").isdigit() for part in contig.split("/"))


def references_there(rows: Sequence[Mapping[str, Any]]) -> dict[str, Reference]:
    """The motifs of rows of a table, those whose structure file is still where it was."""
    there = [row for row in rows if row.get(MOTIF_FILE) and Path(row[MOTIF_FILE]).is_file()]
    return references([Sample(row["sequence"], row["id"], info=dict(row)) for row in there], None)


def motif_columns(
    folder: Path, designs: Sequence[Sample], motifs: Mapping[str, Reference]
) -> dict[str, dict[str, Any]]:
    """Columns of every design that has a motif and a structure in ``pdb/``."""
    rows = {}
    for design in designs:
        path = folder / STRUCTURES / structure_name(design.id)
        if design.id in motifs and path.is_file():
            chains = read_chains(path)
            atoms = np.concatenate([chain.positions(BACKBONE) for chain in chains])
            letters = "".join(chain.letters for chain in chains)
            columns = motifs[design.id].columns(design.id, letters, atoms)
            rows[design.id] = {name: plain(value) for name, value in columns.items()}
    return rows


def log_success(rows: Sequence[Mapping[str, Any]], job: Job) -> None:
    """How many designs keep their motif, and with how much confidence."""
    for limit in LIMITS:
        kept, sure = list(within(rows, limit)), list(within(rows, limit, CONFIDENT))
        if kept:
            job.message(
                f"motif within {limit:g} A (backbone): {sum(kept):,} of {len(kept):,} designs, "
                f"{sum(sure):,} of them with pLDDT of at least {CONFIDENT:g}"
            )
