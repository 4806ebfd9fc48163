"""``score foldseek=`` and ``structure_clusters=``: how new the folds of the designs are, and how many there are.

Structures are those in ``pdb/``, folded here or given. Results are kept with a hash of all that they depend on, so a
repeated command searches only for what has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from didi_core.config import user_path
from didi_core.domain.scoring import Job
from didi_core.errors import counted
from didi_core.storage.files import sha256
from didi_core.types import Sample

from ..design_report.designs import STRUCTURE_CLUSTER, TM_NEAREST
from ..fasta import CHAINS
from ..structures import foldseek
from .kept import Kept, Rows, stamp
from .selfconsistency import structure_of, with_structure
from .sequence import plain
from .settings import ProteinScoring

NEW = 0.5  # a TM-score below it is another fold (Xu and Zhang 2010)


def wanted(settings: ProteinScoring) -> bool:
    """Whether Foldseek is asked for."""
    return settings.foldseek is not None or settings.structure_clusters


def check(settings: ProteinScoring) -> None:
    """Raise InputError where Foldseek is asked for, and it or the set of structures is not there."""
    if wanted(settings):
        foldseek.program()
    if settings.foldseek is not None:
        foldseek.check_target(settings.foldseek, "foldseek")


def foldseek_columns(folder: Path, designs: Sequence[Sample], settings: ProteinScoring, job: Job) -> Rows:
    """Columns of the designs with a structure in ``pdb/``.

    Raises:
        InputError: the program fails, or writes what is not its table.
    """
    there = with_structure(folder, designs)
    if not there:
        job.message("foldseek: nothing, as no design has a structure")
        return {}
    release = foldseek.version()
    job.run.note(foldseek=described(release, settings, there))
    rows: Rows = {design.id: {} for design in there}
    if settings.foldseek is not None:
        target = user_path(settings.foldseek).resolve()
        for name, row in nearest_columns(folder, there, target, settings.evalue, release, job).items():
            rows[name] |= row
    if settings.structure_clusters:
        for name, row in cluster_columns(folder, there, release, job).items():
            rows[name] |= row
    return rows


def described(release: str, settings: ProteinScoring, designs: Sequence[Sample]) -> str:
    """Version and options, for the record and the report."""
    said = []
    if settings.foldseek is not None:
        options = " ".join((*foldseek.SEARCH, "-e", f"{settings.evalue:g}"))
        said.append(f"easy-search against {settings.foldseek.name}, {options}")
    if settings.structure_clusters:
        groups = sorted({CHAINS in design.text for design in designs})
        said += [" ".join(foldseek.clustering(complexes)) for complexes in groups]
    return f"foldseek {release}: {'; '.join(said)}"


def nearest_columns(
    folder: Path, designs: Sequence[Sample], target: Path, evalue: float, release: str, job: Job
) -> Rows:
    """The nearest structure of each design; searched for where the kept row is of other files, options or version."""
    method = f"foldseek {release}, -e {evalue:g}"
    about = (release, *foldseek.SEARCH, f"{evalue:g}", str(target), foldseek.fingerprint(target))
    stamps = {design.id: stamp(*about, sha256(structure_of(folder, design.id))) for design in designs}
    kept = Kept(folder, "foldseek", stamps, "structure, set or version of foldseek")
    known = kept.rows(job.message)
    left = [design for design in designs if design.id not in known]
    if left:
        job.message(f"structural novelty: {counted(len(left), 'structure')} against {target}, by {method}")
        found = foldseek.search([structure_of(folder, d.id) for d in left], target, evalue, torch.get_num_threads())
        made = {design.id: _row(one, method) for design, one in zip(left, found, strict=True)}
        kept.append(made.items())
        known |= made
    rows = {design.id: known[design.id] for design in designs}
    log_novelty(rows, target, job)
    return rows


def _row(found: foldseek.Nearest | None, method: str) -> dict[str, Any]:
    """The columns of a design."""
    return {
        "nearest_structure": None if found is None else found.target,
        TM_NEAREST: None if found is None else plain(found.tm),
        "tm_nearest_aligned": None if found is None else plain(found.aligned),
        "tm_method": method,
    }


def cluster_columns(folder: Path, designs: Sequence[Sample], release: str, job: Job) -> Rows:
    """The structural cluster of each design: single chains among themselves, and complexes, which are compared whole.

    Numbered from 1 by first member. A group is clustered anew where any of its structures has changed.
    """
    leads: dict[str, tuple[bool, int] | None] = {}
    for complexes in (False, True):
        group = [design for design in designs if (CHAINS in design.text) == complexes]
        if group:
            found = _clusters(folder, group, complexes, release, job)
            leads |= {name: None if number is None else (complexes, number) for name, number in found.items()}
    numbers: dict[tuple[bool, int], int] = {}
    rows: Rows = {}
    for design in designs:
        lead = leads[design.id]
        number = None if lead is None else numbers.setdefault(lead, len(numbers) + 1)
        rows[design.id] = {STRUCTURE_CLUSTER: number}
    several = sum(complexes for complexes, _ in numbers)
    whole = f", {several:,} of them of several chains" if several else ""
    job.message(f"structural clusters: {len(numbers):,} of {counted(len(designs), 'design')} (TM-score 0.5){whole}")
    return rows


def _clusters(
    folder: Path, designs: Sequence[Sample], complexes: bool, release: str, job: Job
) -> dict[str, int | None]:
    """Numbers of clusters within a group, by design."""
    kind = "multimer_clusters" if complexes else "structure_clusters"
    files = (f"{d.id} {sha256(structure_of(folder, d.id))}" for d in designs)
    of = stamp(release, *foldseek.clustering(complexes), *files)
    kept = Kept(folder, kind, {design.id: of for design in designs}, "structure or version of foldseek")
    known = {name: row[STRUCTURE_CLUSTER] for name, row in kept.rows(job.message).items()}
    if any(design.id not in known for design in designs):
        paths = [structure_of(folder, design.id) for design in designs]
        found = foldseek.cluster(paths, complexes, torch.get_num_threads())
        known = {design.id: number for design, number in zip(designs, found, strict=True)}
        kept.append((name, {STRUCTURE_CLUSTER: number}) for name, number in known.items())
    return known


def log_novelty(rows: Rows, target: Path, job: Job) -> None:
    """How many designs have a new fold, in one line."""
    scores = np.array([row[TM_NEAREST] for row in rows.values() if row[TM_NEAREST] is not None])
    none = len(rows) - len(scores)
    said = f"; {counted(none, 'design')} without any that foldseek reports" if none else ""
    middle = f", median of the highest TM-scores {np.median(scores):.2f}" if len(scores) else ""
    job.message(
        f"structural novelty: {(scores < NEW).sum():,} of {counted(len(rows), 'design')} with a TM-score below {NEW:g} "
        f"to every structure of {target.name}{middle}{said}"
    )
