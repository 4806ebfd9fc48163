"""report.html of a set of designs: the values for the template ``designs.html``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from didi_core.errors import counted
from didi_core.evaluation.wording import with_sign
from didi_core.report.page import Cell, render
from didi_core.report.pictures import Plot

from .designs import (
    BANDS,
    CONFIDENT,
    PLDDT,
    PLDDT_CA,
    STRUCTURE_CLUSTER,
    STRUCTURES,
    TM_NEAREST,
    Design,
    band,
    confidence_of,
)
from .plots import IDENTITY, mean_plddt

WIDE = ("plddt_per_residue",)  # pictures that take the whole width
ROWS = 300  # of the table; the rest is in the files
LIMITS = ("< 50", "≥ 50", "≥ 70", "≥ 90")  # of the bands of confidence, the lowest first
MOTIF_RMSD, LIMITS_OF_MOTIF = "motif_rmsd", (1.0, 2.0)
# Words of a design that are shown where there are any.
EXTRA = ("contig", "parent", "status", "folded_by", "nearest_structure")
Column = tuple[str, Callable[[Any], str]]
COLUMNS: Mapping[str, Column] = {  # score -> header, how it is written
    PLDDT_CA: ("pLDDT (CA)", lambda v: f"{v:.1f}"),
    PLDDT: ("pLDDT (all atoms)", lambda v: f"{v:.1f}"),
    "ptm": ("pTM", lambda v: f"{v:.2f}"),
    "iptm": ("ipTM", lambda v: f"{v:.2f}"),
    "ipae": ("interface PAE / Å", lambda v: f"{v:.1f}"),
    "pae": ("PAE / Å", lambda v: f"{v:.1f}"),
    MOTIF_RMSD: ("motif RMSD / Å", lambda v: f"{v:.2f}"),
    "sc_rmsd": ("scRMSD / Å", lambda v: f"{v:.2f}"),
    "sc_tm": ("scTM", lambda v: f"{v:.2f}"),
    "pppl": ("pseudo-perplexity", lambda v: f"{v:.2f}"),
    IDENTITY: ("NN identity", lambda v: f"{100 * v:.0f} %"),
    "nn_coverage": ("NN coverage", lambda v: f"{100 * v:.0f} %"),
    TM_NEAREST: ("TM-score to the nearest structure", lambda v: f"{v:.2f}"),
    "low_complexity": ("low complexity", lambda v: f"{100 * v:.0f} %"),
    "longest_run": ("longest run", lambda v: f"{v:.0f}"),
    "top_share": ("top residue", lambda v: f"{100 * v:.0f} %"),
    "steps": ("steps", lambda v: f"{v:g}"),
    "pi": ("pI", lambda v: f"{v:.1f}"),
    "gravy": ("GRAVY", lambda v: with_sign(v, 2)),
    "cluster_50": ("cluster 50 %", lambda v: f"{v:g}"),
    STRUCTURE_CLUSTER: ("structural cluster", lambda v: f"{v:g}"),
}


OTHERS: Mapping[str, Column] = {  # of a second predictor: end of a column's name -> header, how it is written
    "_tm": ("TM-score", lambda v: f"{v:.2f}"),
    "_rmsd": ("RMSD / Å", lambda v: f"{v:.1f}"),
    "_plddt": ("pLDDT (all atoms)", lambda v: f"{v:.1f}"),
    "_ptm": ("pTM", lambda v: f"{v:.2f}"),
    "_iptm": ("ipTM", lambda v: f"{v:.2f}"),
}


def other_columns(designs: Sequence[Design]) -> dict[str, Column]:
    """Columns of the pieces of a motif, then of other predictors' structures, how far they agree first."""
    names = dict.fromkeys(name for design in designs for name in design.scores if name not in COLUMNS)
    whose = dict.fromkeys(name.removesuffix(end) for name in names for end in OTHERS if name.endswith(end))
    return {
        f"{one}{end}": (f"{one.replace('_', ' ')} {label}", write)
        for one in sorted(whose, key=lambda one: not one.startswith("motif_"))
        for end, (label, write) in OTHERS.items()
        if f"{one}{end}" in names
    }


def ordered(others: Mapping[str, Column]) -> dict[str, Column]:
    """All columns, what is known of the structure first: a second opinion stands beside the first."""
    names = list(COLUMNS)
    place = names.index(MOTIF_RMSD) + 1
    known = {name: COLUMNS[name] for name in names[:place]}
    return {**known, **others, **{name: COLUMNS[name] for name in names[place:]}}


@dataclass(frozen=True)
class DesignLine:
    """A line of the table. pdb: address of its structure; view: its number in the viewer."""

    cells: tuple[Cell, ...]
    pdb: str
    view: int | None
    sequence: str

    @property
    def short(self) -> str:
        """The sequence, or its beginning."""
        return self.sequence if len(self.sequence) <= 16 else f"{self.sequence[:14]}…"


def html(
    designs: Sequence[Design], best: Sequence[Design], plots: Sequence[Plot], record: Mapping[str, Any], order: str
) -> str:
    """The page. ``designs`` are in the order of the table, ``best`` are shown as structures; order: in words."""
    views = [design for design in best if design.pdb is not None and design.residues is not None]
    shown = designs[:ROWS]
    columns = ordered(other_columns(shown))
    if all(d.number(PLDDT_CA) is None for d in shown):  # scores of another program, which did not say of which atoms
        columns[PLDDT] = ("pLDDT", columns[PLDDT][1])
    names = [name for name in columns if any(d.number(name) is not None for d in shown)]
    extra = [name for name in EXTRA if any(d.scores.get(name) for d in shown)]
    headers = ["", "design", "length", *(columns[name][0] for name in names), *extra, "structure", "sequence"]
    places = {design.id: number for number, design in enumerate(views)}
    return render(
        "designs.html",
        __package__,
        title=counted(len(designs), "design"),
        kind="didi_core · protein designs",
        sentence=sentence(designs),
        tiles=_tiles(designs),
        key=[(colour, name, limit) for (_, name, colour), limit in zip(BANDS, reversed(LIMITS), strict=True)],
        wide=[plot for plot in plots if plot.name in WIDE],
        pairs=[plot for plot in plots if plot.name not in WIDE],
        headers=headers,
        words=(1, *range(3 + len(names), len(headers))),
        lines=[_line(rank, design, names, extra, places, columns) for rank, design in enumerate(shown, start=1)],
        order=order,
        rest=max(len(designs) - ROWS, 0),
        structures=[_structure(design) for design in views],
        record=record,
    )


def sentence(designs: Sequence[Design]) -> str:
    """The summary of the whole set."""
    sure = {design.id: value for design in designs if (value := design.confidence) is not None}
    if not sure:
        there = sum(design.pdb is not None for design in designs)
        unsure = f"{there:,} of them with a structure, whose predictor left no confidence"
        return f"{counted(len(designs), 'design')}, " + (
            f"{unsure}." if there else "none of them folded: scores of the sequences only."
        )
    first = max((design for design in designs if design.id in sure), key=lambda design: sure[design.id])
    label = confidence_of(designs)
    ptm = first.number("ptm")
    said = f", pTM {ptm:.2f}" if ptm is not None else ""
    many = sum(value >= CONFIDENT for value in sure.values())
    return (
        f"{many:,} of {counted(len(sure), 'folded design')} {'is' if many == 1 else 'are'} predicted with "
        f"confidence (mean {label} at least {CONFIDENT:g}). "
        f"The most confident is {first.id}: {len(first.letters)} residues, {label} {sure[first.id]:.1f}{said}."
    )


def _tiles(designs: Sequence[Design]) -> list[Cell]:
    """The set in a few large figures."""
    mean, measure = mean_plddt(designs), confidence_of(designs)
    tiles = [(f"{len(designs):,}", "designs"), (f"{len({d.sequence for d in designs}):,}", "distinct sequences")]
    if mean is not None:
        folded = np.array([d.confidence for d in designs if d.confidence is not None])
        tiles += [
            (f"{mean.value:.1f}", f"mean {measure} [{mean.low:.1f}, {mean.high:.1f}]"),
            (f"{100 * (folded >= CONFIDENT).mean():.0f} %", f"with {measure} ≥ {CONFIDENT:g}"),
        ]
    moved = np.array([v for d in designs if (v := d.number(MOTIF_RMSD)) is not None])
    for limit in LIMITS_OF_MOTIF if len(moved) else ():
        tiles.append((f"{100 * (moved <= limit).mean():.0f} %", f"with the motif within {limit:g} Å"))
    nearest = [v for d in designs if (v := d.number(TM_NEAREST)) is not None]
    if nearest:
        tiles.append((f"{np.median(nearest):.2f}", "median TM-score to the nearest structure"))
    clusters = {v for d in designs if (v := d.number(STRUCTURE_CLUSTER)) is not None}
    if clusters:
        tiles.append((f"{len(clusters):,}", "structural clusters"))
    for name, label in ((IDENTITY, "median identity to the nearest known"), ("low_complexity", "mean low complexity")):
        values = [v for d in designs if (v := d.number(name)) is not None]
        if values:
            figure = np.median(values) if name == IDENTITY else np.mean(values)
            tiles.append((f"{100 * figure:.0f} %", label))
    return [Cell(value, label) for value, label in tiles]


def _line(
    rank: int,
    design: Design,
    names: Sequence[str],
    extra: Sequence[str],
    views: Mapping[str, int],
    columns: Mapping[str, Column],
) -> DesignLine:
    values = [Cell(columns[name][1](v) if (v := design.number(name)) is not None else "") for name in names]
    if names[:1] in ([PLDDT_CA], [PLDDT]) and design.confidence is not None:
        values[0] = Cell(values[0].text, dot=BANDS[band(design.confidence)][2])
    said = [Cell(str(design.scores.get(name) or "")) for name in extra]
    cells = (Cell(str(rank)), Cell(design.id), Cell(str(len(design.letters))), *values, *said)
    pdb = f"{STRUCTURES}/{quote(design.pdb.name)}" if design.pdb is not None else ""
    return DesignLine(cells, pdb, views.get(design.id), design.sequence)


def _structure(design: Design) -> dict[str, Any]:
    """What the viewer draws."""
    return {
        "name": design.id,
        "letters": design.letters,
        "chains": list(map(len, design.chains)),
        "plddt": [round(float(v), 1) if np.isfinite(v) else None for v in design.residues],  # type: ignore[union-attr]
        "ca": [round(float(v), 1) for v in design.atoms().ravel()],
    }
