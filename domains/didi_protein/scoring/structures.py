"""``score structures=``: what other predictors made of the designs, in the same columns, and how far two agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from didi_core.domain.scoring import Job
from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.types import Sample

from ..design_report.designs import PLDDT, PLDDT_CA, RESIDUES, STRUCTURES, structure_name
from ..structures.atoms import ca_positions, pdb_text
from ..structures.folder import Predicted, Predictions, read_folder
from ..structures.superposition import rmsd, tm_score
from .board import remove_structure
from .kept import Rows
from .sequence import plain


def read_structures(folders: Sequence[Path], designs: Sequence[Sample], job: Job) -> list[Predictions]:
    """Every folder. Raises InputError for what ``read_folder`` refuses, before anything is computed."""
    read = []
    for folder in folders:
        job.bar.start(f"score: structures of {folder.name}", len(designs), 0)
        try:
            made = read_folder(folder, designs, job.bar.advance)
        finally:
            job.bar.stop()
        for line in made.messages:
            job.message(line)
        read.append(made)
    return read


def structure_columns(
    folder: Path, designs: Sequence[Sample], read: Sequence[Predictions], folded: bool, job: Job
) -> Rows:
    """Columns from other programs' structures.

    The first folder gives ``plddt``, ``ptm`` and the files in ``pdb/``, unless the designs were folded here. Every
    other one gives columns under its predictor's name, with RMSD and TM-score of its CA atoms against ``pdb/``.
    """
    rows: Rows = {}
    others = read if folded else read[1:]
    if not folded:
        for design in designs:
            if design.id not in read[0].structures:  # an earlier run may have found one
                remove_structure(folder, design.id)
        for name, made in read[0].structures.items():
            rows[name] = first_columns(folder, read[0].name, made)
    taken = {PLDDT, "ptm", "pae"}
    for number, predictions in enumerate(others, start=2):
        label = predictions.name if f"{predictions.name}_plddt" not in taken else f"{predictions.name}_{number}"
        taken.add(f"{label}_plddt")
        for name, made in predictions.structures.items():
            rows.setdefault(name, {}).update(other_columns(folder, label, made))
        summary(label, [row for row in rows.values() if f"{label}_tm" in row], job)
    return rows


def first_columns(folder: Path, predictor: str, made: Predicted) -> dict[str, Any]:
    """A design's row as ``fold`` would have written it; its structure goes into ``pdb/``."""
    blank = [np.zeros(len(chain.owners)) for chain in made.chains]
    write_atomic(folder / STRUCTURES / structure_name(made.design), pdb_text(made.chains, made.plddt or blank))
    return {"status": "ok", "folded_by": predictor, **scores(made), **per_residue(made)}


def scores(made: Predicted) -> dict[str, Any]:
    """Confidence in numbers, those that the predictor gave."""
    found: dict[str, Any] = {}
    if made.plddt:
        found = {PLDDT: float(np.concatenate(made.plddt).mean()), PLDDT_CA: float(made.residues.mean())}
    found |= {name: value for name, value in (("ptm", made.ptm), ("iptm", made.iptm)) if value is not None}
    if made.pae is not None:
        found["pae"] = float(made.pae.mean())
        owners = np.repeat(np.arange(len(made.chains)), list(map(len, made.chains)))
        if len(made.chains) > 1:
            found["ipae"] = float(made.pae[owners[:, None] != owners].mean())
    return {name: plain(value) for name, value in found.items()}


def per_residue(made: Predicted) -> dict[str, Any]:
    """Confidence along the chains, for the report."""
    return {RESIDUES: [round(float(value), 2) for value in made.residues]} if made.plddt else {}


def other_columns(folder: Path, label: str, made: Predicted) -> dict[str, Any]:
    """A second opinion on a design, and its agreement with the structure in ``pdb/``."""
    row = {f"{label}_{name}": value for name, value in scores(made).items() if name != PLDDT_CA}
    path = folder / STRUCTURES / structure_name(made.design)
    if path.is_file():
        first = ca_positions(path)
        if first.shape != made.ca.shape:
            raise InputError(f"{path} has {len(first)} residues, {made.path} has {len(made.ca)}.")
        row |= {f"{label}_tm": plain(tm_score(made.ca, first)), f"{label}_rmsd": plain(rmsd(made.ca, first))}
    return row


def summary(label: str, rows: Sequence[Mapping[str, Any]], job: Job) -> None:
    """How far two predictors agree, in one line."""
    if not rows:
        return
    scores_ = np.array([row[f"{label}_tm"] for row in rows])
    job.message(
        f"{label} agrees with the first structure on the fold (TM-score at least 0.5) of {(scores_ >= 0.5).sum():,} of "
        f"{len(rows):,} designs, median TM-score {np.median(scores_):.2f}"
    )
