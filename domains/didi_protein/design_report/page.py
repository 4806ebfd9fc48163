"""report.html of a set of designs: figures, pictures, structures to turn, and a table with links to the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

import numpy as np

from didi_core.report.page import page, picture, provenance, table_of, table_row
from didi_core.report.pictures import Plot

from .designs import BANDS, CONFIDENT, STRUCTURES, Design, band
from .plots import IDENTITY, mean_plddt

WIDE = ("plddt_per_residue",)  # pictures that take the whole width
ROWS = 300  # of the table; the rest is in the files
COLUMNS: Mapping[str, tuple[str, Callable[[Any], str]]] = {  # score -> header, how it is written
    "plddt": ("pLDDT", lambda v: f"{v:.1f}"),
    "ptm": ("pTM", lambda v: f"{v:.2f}"),
    "pae": ("PAE / Å", lambda v: f"{v:.1f}"),
    "steps": ("steps", lambda v: f"{v:g}"),
    "pppl": ("pseudo-perplexity", lambda v: f"{v:.2f}"),
    IDENTITY: ("NN identity", lambda v: f"{100 * v:.0f} %"),
    "nn_coverage": ("NN coverage", lambda v: f"{100 * v:.0f} %"),
    "low_complexity": ("low complexity", lambda v: f"{100 * v:.0f} %"),
    "longest_run": ("longest run", lambda v: f"{v:.0f}"),
    "top_share": ("top residue", lambda v: f"{100 * v:.0f} %"),
    "pi": ("pI", lambda v: f"{v:.1f}"),
    "gravy": ("GRAVY", lambda v: f"{v:+.2f}"),
    "cluster_50": ("cluster 50 %", lambda v: f"{v:g}"),
}


def html(designs: Sequence[Design], best: Sequence[Design], plots: Sequence[Plot], record: Mapping[str, Any]) -> str:
    """The page. ``designs`` are in the order of the table, ``best`` are shown as structures."""
    views = [design for design in best if design.pdb is not None and design.residues is not None]
    body = [
        f'<p class="lead">{escape(sentence(designs))}</p>',
        _tiles(designs),
        _viewer(views),
        *(picture(plot) for plot in plots if plot.name in WIDE),
        _pairs([plot for plot in plots if plot.name not in WIDE]),
        _table(designs, views),
        provenance(record),
        "<footer>Written by didi_core. pLDDT is a prediction's confidence in itself, on a scale of 0 to 100; it rates "
        "repeats and copies of known proteins highly too, so read it beside low complexity and identity.</footer>",
    ]
    title = f"{len(designs):,} designs"
    return page(title, "didi_core · protein designs", body, style=_asset("style.css"), scripts=_scripts(views))


def sentence(designs: Sequence[Design]) -> str:
    """What there is to say of the whole set."""
    folded = [d for d in designs if d.plddt is not None]
    if not folded:
        return f"{len(designs):,} designs, none of them folded: scores of the sequences only."
    sure = sum(d.plddt is not None and d.plddt >= CONFIDENT for d in folded)
    first = folded[0]
    ptm = first.number("ptm")
    said = f", pTM {ptm:.2f}" if ptm is not None else ""
    return (
        f"{sure:,} of {len(folded):,} folded designs are predicted with confidence "
        f"(mean pLDDT at least {CONFIDENT:g}). "
        f"The most confident is {first.id}: {len(first.sequence)} residues, pLDDT {first.plddt:.1f}{said}."
    )


def _tiles(designs: Sequence[Design]) -> str:
    """The set in a few large figures."""
    mean = mean_plddt(designs)
    tiles = [(f"{len(designs):,}", "designs"), (f"{len({d.sequence for d in designs}):,}", "distinct sequences")]
    if mean is not None:
        folded = np.array([d.plddt for d in designs if d.plddt is not None])
        tiles += [
            (f"{mean.value:.1f}", f"mean pLDDT [{mean.low:.1f}, {mean.high:.1f}]"),
            (f"{100 * (folded >= CONFIDENT).mean():.0f} %", f"with pLDDT ≥ {CONFIDENT:g}"),
        ]
    for name, label in ((IDENTITY, "median identity to the nearest known"), ("low_complexity", "mean low complexity")):
        values = [v for d in designs if (v := d.number(name)) is not None]
        if values:
            figure = np.median(values) if name == IDENTITY else np.mean(values)
            tiles.append((f"{100 * figure:.0f} %", label))
    items = [f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in tiles]
    return f'<div class="tiles">{"".join(items)}</div>'


def _pairs(plots: Sequence[Plot]) -> str:
    """Pictures side by side where the page is wide enough."""
    return f'<div class="pairs">{"".join(picture(plot) for plot in plots)}</div>'


def _viewer(views: Sequence[Design]) -> str:
    """The canvas, its legend, and buttons that the script fills in."""
    if not views:
        return ""
    names = ("< 50", "≥ 50", "≥ 70", "≥ 90")
    key = "".join(
        f'<span><i style="background: {colour}"></i>{name} ({limit})</span>'
        for (_, name, colour), limit in zip(BANDS, reversed(names), strict=True)
    )
    return (
        "<h2>Structures of the best</h2>"
        '<div id="viewer-choices" role="group" aria-label="design to show"></div>'
        '<canvas id="viewer" tabindex="0" role="img" aria-label="CA trace coloured by pLDDT"></canvas>'
        '<p class="about" id="viewer-label" aria-live="polite">'
        "The structures need JavaScript; the PDB files do not.</p>"
        f'<p class="about key">{key}</p>'
        '<p class="about">CA trace. Drag to turn, wheel or pinch to zoom, double click to reset; '
        "arrow keys, + and −.</p>"
    )


def _table(designs: Sequence[Design], views: Sequence[Design]) -> str:
    """The first designs with every score that any of them has, links to structures, and the sequence."""
    shown = designs[:ROWS]
    names = [name for name in COLUMNS if any(d.number(name) is not None for d in shown)]
    extra = [name for name in ("contig", "parent", "status") if any(d.scores.get(name) for d in shown)]
    headers = ["", "design", "length", *(COLUMNS[name][0] for name in names), *extra, "structure", "sequence"]
    words = (1, *range(3 + len(names), len(headers)))
    order = {design.id: number for number, design in enumerate(views)}
    lines = []
    for rank, design in enumerate(shown, start=1):
        values = [COLUMNS[name][1](v) if (v := design.number(name)) is not None else "" for name in names]
        if names[:1] == ["plddt"] and design.plddt is not None:
            values[0] = f'<span class="dot" style="background: {BANDS[band(design.plddt)][2]}"></span>{values[0]}'
        said = [escape(str(design.scores.get(name) or "")) for name in extra]
        cells = [str(rank), escape(design.id), str(len(design.sequence)), *values, *said, _links(design, order)]
        sequence = f'<code title="{escape(design.sequence)}">{escape(_short(design.sequence))}</code>'
        lines.append(table_row([*cells, sequence], words))
    rest = f" The other {len(designs) - ROWS:,} are in the files beside this page." if len(designs) > ROWS else ""
    about = f'<p class="about">Most confident first; a click on a header sorts.{rest}</p>'
    return f'<h2>Designs</h2>{about}<div id="designs">{table_of(headers, lines, words)}</div>'


def _links(design: Design, views: Mapping[str, int]) -> str:
    parts = []
    if design.pdb is not None:
        parts.append(f'<a href="{STRUCTURES}/{quote(design.pdb.name)}">PDB</a>')
    if design.id in views:
        parts.append(f'<button type="button" data-view="{views[design.id]}">view</button>')
    return " ".join(parts)


def _short(sequence: str) -> str:
    return sequence if len(sequence) <= 16 else f"{sequence[:14]}…"


def _scripts(views: Sequence[Design]) -> str:
    """The sorting of the table, and the viewer with its data where there is a structure."""
    parts = [f"<script>{_asset('sorting.js')}</script>"]
    if views:
        data = [
            {
                "name": d.id,
                "letters": d.sequence,
                "plddt": [round(float(v), 1) for v in d.residues],  # type: ignore[union-attr]
                "ca": [round(float(v), 1) for v in d.atoms().ravel()],
            }
            for d in views
        ]
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no name can end the element
        parts = [f'<script type="application/json" id="structures">{text}</script>', *parts]
        parts.append(f"<script>{_asset('viewer.js')}</script>")
    return "\n".join(parts)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
