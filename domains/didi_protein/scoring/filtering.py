"""``filter``: thresholds on any column, a reason for each design that fails, and the best dissimilar designs.

designs.fasta designs.csv   what passed, the best first, scores in the headers; designs.fasta.map.json: their motifs
rejected.csv                the rest, with reasons
scores.jsonl pdb/ report.html   what passed, as a score folder of its own; cartoons.html view.pml view.cxc
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from didi_core.domain.conditioning import map_of
from didi_core.domain.scoring import Job
from didi_core.errors import InputError, at_least, unknown
from didi_core.storage.files import write_json
from didi_core.types import Sample

from ..alignment import identity, reaches
from ..design_report import REPORT, read_designs, write_design_report
from ..design_report.designs import IN_ORDER, PLDDT, PLDDT_CA, RESIDUES, SCORES, STRUCTURES, Design, structure_name
from ..design_report.designs import best_first as most_confident_first
from ..fasta import without_breaks, write_fasta
from ..kmers import KmerIndex
from ..structures.motif import MOTIF, MOTIF_FILE, map_beside, map_entry
from ..structures.scripts import CHIMERAX, PYMOL
from .motifs import references_there
from .sequence import WORD, needed_words
from .table import BETTER, TABLE, best_first, write_table
from .views import CARTOONS, write_views

NONE = "none"
MIN, MAX = "min", "max"
ALIKE = 0.9  # identity above which two designs count as similar, if only top is given
WORDS_FROM, FEW_WORDS = 0.5, 8  # identity and number of 4-mers from which shared words tell who may be alike
# On pLDDT, published designs are called confident from 70. The limits on sequences alone (without nn_identity, as a
# natural protein is its own neighbour) keep of 500 random proteins of Swiss-Prot and of 500 PDB chains: lenient 97 and
# 99 %, standard 90 and 94 %, strict 60 and 63 %. What they lose is mostly low complexity, and runs in PDB chains.
PRESETS: dict[str, dict[str, dict[str, float]]] = {
    NONE: {},
    "lenient": {MIN: {"plddt": 50.0}, MAX: {"low_complexity": 0.4, "longest_run": 10, "top_share": 0.35}},
    "standard": {
        MIN: {"plddt": 70.0},
        MAX: {"low_complexity": 0.25, "longest_run": 6, "top_share": 0.25, "nn_identity": 0.9},
    },
    "strict": {
        MIN: {"plddt": 80.0, "ptm": 0.5},
        MAX: {"low_complexity": 0.1, "longest_run": 4, "top_share": 0.2, "nn_identity": 0.7},
    },
}
FASTA, REJECTED, PASSED = "designs.fasta", "rejected.csv", "designs.csv"
HEADER = (PLDDT_CA, PLDDT, "ptm", "pppl", "nn_identity", "low_complexity", "longest_run", "length", "contig")


@dataclass(frozen=True, kw_only=True)
class ProteinFilter:
    """Keys of ``configs/filtering/protein.yaml``."""

    min: Mapping[str, float] | None = field(default_factory=dict)
    max: Mapping[str, float] | None = field(default_factory=dict)
    preset: str = NONE
    top: int | None = None
    diversity: float | None = None
    sort: str | None = None
    descending: bool | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        if self.preset == NONE and not (self.min or self.max) and self.top is None and self.diversity is None:
            raise InputError(
                "nothing to filter by: give preset=standard, thresholds such as min.plddt=70 max.longest_run=5, "
                "or top=20."
            )
        if self.top is not None:
            at_least(1, top=self.top)
        if self.diversity is not None and not 0 < self.diversity <= 1:
            raise InputError(f"diversity={self.diversity} is out of range: an identity in (0, 1], such as 0.7.")
        for kind, given in ((MIN, self.min), (MAX, self.max)):
            for column, value in (given or {}).items():
                if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                    raise InputError(f"{kind}.{column}={value!r} is not a number.")

    def thresholds(self) -> list[Threshold]:
        """The thresholds of the preset and the given ones, which take precedence."""
        found: dict[tuple[str, str], Threshold] = {}
        for given, own in ((PRESETS[self.preset], False), ({MIN: self.min or {}, MAX: self.max or {}}, True)):
            for kind, limits in given.items():
                found |= {(kind, name): Threshold(name, kind, float(value), own) for name, value in limits.items()}
        return list(found.values())


@dataclass(frozen=True)
class Threshold:
    """A column must be at least (``min``) or at most (``max``) ``value``. own: the user's, not a preset's."""

    column: str
    kind: str
    value: float
    own: bool = True

    def reason(self, row: Mapping[str, Any]) -> str:
        """Why a row fails; '' if it passes."""
        found = row.get(self.column)
        if found is None:
            return f"{self.column} is not known"
        if self.kind == MIN and found < self.value:
            return f"{self.column}={self._apart(found)} < {self.value:g}"
        if self.kind == MAX and found > self.value:
            return f"{self.column}={self._apart(found)} > {self.value:g}"
        return ""

    def _apart(self, found: float) -> str:
        """A value with as many digits as it takes to differ from the limit."""
        return repr(found) if f"{found:g}" == f"{self.value:g}" else f"{found:g}"

    def __str__(self) -> str:
        return f"{self.kind}.{self.column}={self.value:g}"


def shortlist(folder: Path, wanted: ProteinFilter, job: Job) -> list[dict[str, Any]]:
    """Write the designs that pass, and the others with reasons. Returns the rows that pass, the best first.

    Raises:
        InputError: the folder is not a score folder, or no design has a column.
    """
    designs = {design.id: design for design in read_designs(folder)}
    rows = [{"id": d.id, **d.scores, "length": len(d.letters), "sequence": d.sequence} for d in designs.values()]
    thresholds = applicable(wanted.thresholds(), rows, job)
    if wanted.sort is not None:
        check_column(wanted.sort, rows, "sort")
        if wanted.descending is None and wanted.sort not in BETTER:
            raise InputError(f"sort={wanted.sort}: whether more is better is not known. Give descending=true or false.")
    ordered = best_first(rows, wanted.sort, wanted.descending)
    reasons = {row["id"]: "; ".join(filter(None, (t.reason(row) for t in thresholds))) for row in ordered}
    passing = [row for row in ordered if not reasons[row["id"]]]
    order = most_confident_first(rows)[1] if wanted.sort is None else f"in order of {wanted.sort}, the best first"
    reasons |= redundant(passing, wanted, "better" if order != IN_ORDER else "before it")
    kept = [row for row in ordered if not reasons[row["id"]]]
    out = job.run.path
    clear(out)
    left_out = [{**row, "reasons": reasons[row["id"]]} for row in ordered if reasons[row["id"]]]
    write_table(out, left_out, REJECTED, lines=False)
    job.run.note(thresholds=[str(t) for t in thresholds], passed=len(kept), rejected=len(left_out))
    job.message(f"{summary(ordered, kept, thresholds, wanted)}; {order}")
    if kept:
        write_kept(out, kept, designs, job, order)
    return kept


def applicable(thresholds: Sequence[Threshold], rows: Sequence[Mapping[str, Any]], job: Job) -> list[Threshold]:
    """Thresholds on existing columns. A preset's threshold on a missing column is left out with a message."""
    used = []
    for threshold in thresholds:
        if not threshold.own and all(row.get(threshold.column) is None for row in rows):
            job.message(f"preset: {threshold} is left out, as no design has a {threshold.column}")
            continue
        if not threshold.own and threshold.column == PLDDT:
            job.message(f"preset: {threshold} asks of the mean over all atoms ({PLDDT_CA} is that over CA atoms)")
        check_column(threshold.column, rows, f"{threshold.kind}.{threshold.column}")
        used.append(threshold)
    return used


def check_column(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Raise InputError unless some design has a number in this column."""
    values = [row[name] for row in rows if row.get(name) is not None]
    if any(isinstance(value, str | bool) for value in values):
        raise InputError(f"{key}: the column {name!r} is not a number.")
    if not values:
        known = {n for row in rows for n, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        raise unknown("column", name, known, key)


def redundant(passing: Sequence[Mapping[str, Any]], wanted: ProteinFilter, than: str = "better") -> dict[str, str]:
    """Reasons for designs that are too similar to an earlier one, or come after the first ``top``.

    Args:
        passing: the best first. than: what an earlier design is, in words.
    """
    limit = wanted.diversity if wanted.diversity is not None else (ALIKE if wanted.top is not None else None)
    relatives = None if limit is None else Relatives([without_breaks(row["sequence"]) for row in passing], limit)
    reasons: dict[str, str] = {}
    chosen = np.zeros(len(passing), dtype=bool)
    for number, row in enumerate(passing):
        if wanted.top is not None and chosen.sum() == wanted.top:
            reasons[row["id"]] = f"not among the {'best' if than == 'better' else 'first'} {wanted.top}"
            continue
        found = None if relatives is None else relatives.first(number, chosen)
        reasons[row["id"]] = "" if found is None else f"{found[1]} to {passing[found[0]]['id']}, which is {than}"
        chosen[number] = found is None
    return reasons


class Relatives:
    """Which of some sequences are identical by more than ``limit`` to a given one of them.

    From an identity of WORDS_FROM on, two are aligned only if they share ``needed_words``, or one has next to none.
    """

    def __init__(self, sequences: Sequence[str], limit: float) -> None:
        self.sequences, self.limit = sequences, limit
        self._index = KmerIndex(sequences, WORD)
        self._needed = np.array([needed_words(limit, size) for size in self._index.sizes.tolist()])
        self._anyway = (self._index.sizes < FEW_WORDS) | (limit < WORDS_FROM)

    def first(self, number: int, among: Bool[np.ndarray, "n"]) -> tuple[int, str] | None:
        """The first relative of a sequence ``among`` the others, and how alike the two are."""
        for other in self._candidates(number, among).tolist():
            one, query = self.sequences[other], self.sequences[number]
            if one == query or (reaches(one, query, self.limit) and identity(one, query) > self.limit):
                return other, f"{100 * identity(one, query):.0f} % identical"
        return None

    def _candidates(self, number: int, among: Bool[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
        if self._anyway[number]:
            return np.flatnonzero(among)
        names, shared = self._index.sharing(self._index.words(number))
        names = names[shared >= np.minimum(self._needed[names], self._needed[number])]
        return np.union1d(names[among[names]], np.flatnonzero(among & self._anyway))


def clear(out: Path) -> None:
    """Remove the files of an earlier shortlist in the folder: the scores may have changed since."""
    for name in (FASTA, PASSED, REJECTED, SCORES, TABLE, REPORT, CARTOONS, PYMOL, CHIMERAX):
        (out / name).unlink(missing_ok=True)
    map_beside(out / FASTA).unlink(missing_ok=True)
    for path in (out / STRUCTURES).glob("*.pdb"):
        path.unlink()


def write_kept(
    out: Path, kept: Sequence[dict[str, Any]], designs: Mapping[str, Design], job: Job, order: str
) -> None:
    """FASTA and CSV, and a score folder with the structures. order: that of the designs, in words."""
    samples = [
        Sample(row["sequence"], row["id"], info={n: row[n] for n in HEADER if row.get(n) is not None}) for row in kept
    ]
    write_fasta(out / FASTA, samples)
    motifs = {row["id"]: map_entry(row) for row in kept if row.get(MOTIF) and row.get(MOTIF_FILE)}
    if motifs:
        write_json(map_beside(out / FASTA), map_of(motifs))
    write_table(out, kept, PASSED, lines=False)
    lines = []
    for row in kept:
        design = designs[row["id"]]
        values = {} if design.residues is None else {RESIDUES: design.residues.tolist()}
        lines.append({**row, **values})
        if design.pdb is not None:
            (out / STRUCTURES).mkdir(exist_ok=True)
            shutil.copyfile(design.pdb, out / STRUCTURES / structure_name(design.id))
    write_table(out, lines)
    write_views(out, kept, references_there(kept))
    record = {"command": " ".join(job.run.record.get("command_line", [])), **job.run.record.get("config", {})}
    job.message(f"report: {write_design_report(out, record, order=order)}")


def summary(
    rows: Sequence[Mapping[str, Any]],
    kept: Sequence[Mapping[str, Any]],
    thresholds: Sequence[Threshold],
    wanted: ProteinFilter,
) -> str:
    """Number of designs that pass the thresholds, the most frequent failures, and how many of the others are kept."""
    failing = [{t.column for t in thresholds if t.reason(row)} for row in rows]
    counts = Counter(column for columns in failing for column in columns)
    passing = sum(not columns for columns in failing)
    by_column = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    said = f"{passing:,} of {len(rows):,} designs pass" + (f" (failing by column: {by_column})" if by_column else "")
    used = ", ".join(str(t) for t in thresholds)
    said += f"; thresholds: {used}" if used else "; there are no thresholds"
    if len(kept) < passing:
        are = "is" if len(kept) == 1 else "are"
        said += f"; {len(kept):,} of them {are} kept, the others are too much alike or come after top"
    if wanted.top is not None and len(kept) < wanted.top:
        said += f"; top={wanted.top} were asked for"
    return said
