"""cartoons.html: the best structures as cartoons, superposed on their motif, in one file that needs no network.

3Dmol.js (Rego and Koes 2015, BSD-3-Clause; its licence lies beside it in ``templates/3dmol``) is in the page once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources

from markupsafe import Markup

from didi_core.report.page import render

from .designs import BANDS
from .page import LIMITS

LIBRARY = "3dmol/3Dmol-min.js"


@dataclass(frozen=True)
class Shown:
    """A structure to show: PDB text, first and last residues of its motif's pieces, and which reference it lies on."""

    name: str
    pdb: str
    motif: tuple[tuple[int, int], ...] = ()
    reference: int | None = None


def cartoon_page(designs: Sequence[Shown], references: Sequence[str]) -> str:
    """The page. ``references``: PDB texts of the motifs' files."""
    library = resources.files(__package__).joinpath("templates", LIBRARY).read_text(encoding="utf-8")
    return render(
        "cartoon.html",
        __package__,
        title=f"{len(designs)} structures",
        kind="didi_core · protein designs",
        motif=bool(references),
        key=[(colour, name, limit) for (_, name, colour), limit in zip(BANDS, reversed(LIMITS), strict=True)],
        structures={"designs": [asdict(design) for design in designs], "references": list(references)},
        library=Markup(library),  # of the package, not of a user
    )
