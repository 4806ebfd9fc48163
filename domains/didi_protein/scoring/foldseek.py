"""``score foldseek=`` and ``structure_clusters=``: how new the folds of the designs are, and how many there are.

Structures are those in ``pdb/``, folded here or given. Results are kept with a hash of all that they depend on, so a
repeated command searches only for what has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from didi_core.domain.scoring import Job
from didi_core.errors import counted
from didi_core.storage.files import sha256
from didi_core.storage.journal import Journal
from didi_core.types import Sample

from ..design_report.designs import PARTS, STRUCTURE_CLUSTER, STRUCTURES, TM_NEAREST, structure_name
from ..fasta import CHAINS
from ..structures import foldseek
from .selfconsistency import with_structure
from .sequence import plain
from .settings import ProteinScoring

Rows = dict[str, dict[str, Any]]
NEW = 0.5  # a TM-score below it is another fold (Xu and Zhang 2010)
OF = "of"  # the hash of what a kept row depends on


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
    job.run.note(foldseek=described(release, settings))
    rows: Rows = {design.id: {} for design in there}
    if settings.foldseek is not None:
        target = settings.foldseek.expanduser().resolve()
        for name, row in nearest_columns(folder, there, target, settings.evalue, release, job).items():
            rows[name] |= row
    if settings.structure_clusters:
        for name, row in cluster_columns(folder, there, release, job).items():
            rows[name] |= row
    return rows


def described(release: str, settings: ProteinScoring) -> str:
    """Version and options, for the record and the report."""
    said = []
    if settings.foldseek is not None:
        options = " ".join((*foldseek.SEARCH, "-e", f"{settings.evalue:g}"))
        said.append(f"easy-search against {settings.foldseek.name}, {options}")
    if settings.structure_clusters:
        said.append(f"easy-cluster {' '.join(foldseek.CLUSTER)}")
    return f"foldseek {release}: {'; '.join(said)}"


def nearest_columns(
    folder: Path, designs: Sequence[Sample], target: Path, evalue: float, release: str, job: Job
) -> Rows:
    """The nearest structure of each design; searched for where the kept row is of other files, options or version."""
    method = f"foldseek {release}, -e {evalue:g}"
    about = (release, *foldseek.SEARCH, f"{evalue:g}", str(target), foldseek.fingerprint(target))
    stamps = {design.id: _stamp(*about, sha256(_path(folder, design))) for design in designs}
    journal = Journal(folder / PARTS / "foldseek.jsonl")
    known = {name: row for name, row in journal.rows().items() if row.get(OF) == stamps.get(name)}
    left = [design for design in designs if design.id not in known]
    if left:
        job.message(f"structural novelty: {counted(len(left), 'structure')} against {target}, by {method}")
        found = foldseek.search([_path(folder, d) for d in left], target, evalue, torch.get_num_threads())
        made = {design.id: _row(one, method) for design, one in zip(left, found, strict=True)}
        journal.append([(name, {OF: stamps[name], **row}) for name, row in made.items()])
        known |= made
    rows = {d.id: {key: value for key, value in known[d.id].items() if key != OF} for d in designs}
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
    """The structural cluster of each design of one chain; anew where any of the structures has changed."""
    alone = [design for design in designs if CHAINS not in design.text]
    if len(alone) < len(designs):
        job.message(f"structural clusters: without {counted(len(designs) - len(alone), 'design')} of several chains")
    if not alone:
        return {}
    stamp = _stamp(release, *foldseek.CLUSTER, *(f"{d.id} {sha256(_path(folder, d))}" for d in alone))
    journal = Journal(folder / PARTS / "structure_clusters.jsonl")
    known = {name: row[STRUCTURE_CLUSTER] for name, row in journal.rows().items() if row.get(OF) == stamp}
    if any(design.id not in known for design in alone):
        found = foldseek.cluster([_path(folder, d) for d in alone], torch.get_num_threads())
        known = {design.id: number for design, number in zip(alone, found, strict=True)}
        journal.append([(name, {OF: stamp, STRUCTURE_CLUSTER: number}) for name, number in known.items()])
    numbers = {number for number in known.values() if number is not None}
    job.message(f"structural clusters: {len(numbers):,} of {counted(len(alone), 'design')} (TM-score 0.5)")
    return {design.id: {STRUCTURE_CLUSTER: known[design.id]} for design in alone}


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


def _path(folder: Path, design: Sample) -> Path:
    return folder / STRUCTURES / structure_name(design.id)


def _stamp(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
