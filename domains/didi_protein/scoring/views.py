"""What a score folder holds to look at structures: cartoons, scripts for PyMOL and ChimeraX, and mmCIF files.

    cartoons.html       the best designs as cartoons, in a browser
    view.pml view.cxc   the best designs, coloured by confidence, on their motif
    motif/              the structure files that the motifs are from
    cif/<id>.cif        where asked for
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from Bio.PDB.mmcifio import MMCIFIO
from Bio.PDB.PDBParser import PDBParser

from didi_core.storage.files import write_atomic

from ..design_report import BEST
from ..design_report.cartoon import Shown, cartoon_page
from ..design_report.designs import STRUCTURES, structure_name
from ..structures.atoms import BACKBONE, pdb_text, read_chains
from ..structures.motif import Reference
from ..structures.scripts import CHIMERAX, PYMOL, SHOWN, chimerax_script, pymol_script
from .board import CIF

MOTIFS, CARTOONS = "motif", "cartoons.html"


def write_views(
    folder: Path, rows: Sequence[Mapping[str, Any]], motifs: Mapping[str, Reference], mmcif: bool = False
) -> None:
    """Write the scripts, and with ``mmcif`` every structure once more; where there is no structure, remove the scripts.

    Args:
        rows: of the table, the best first.
    """
    there = [row["id"] for row in rows if (folder / STRUCTURES / structure_name(row["id"])).is_file()]
    if not there:
        for name in (PYMOL, CHIMERAX, CARTOONS):
            (folder / name).unlink(missing_ok=True)
        return
    shown = there[:SHOWN]
    files: dict[Path, str] = {}
    for path in dict.fromkeys(motifs[name].path for name in shown if name in motifs):
        (folder / MOTIFS).mkdir(exist_ok=True)
        files[path] = f"{MOTIFS}/{len(files) + 1}_{path.name}"
        shutil.copyfile(path, folder / files[path])
    write_atomic(folder / PYMOL, pymol_script(shown, motifs, files))
    write_atomic(folder / CHIMERAX, chimerax_script(shown, motifs, files))
    write_atomic(folder / CARTOONS, cartoons(folder, there[:BEST], motifs))
    for name in there:
        target = folder / CIF / structure_name(name, "cif")
        if mmcif:
            write_atomic(target, mmcif_text((folder / STRUCTURES / structure_name(name)).read_text(), name))
        else:  # of an earlier command, and perhaps of another structure
            target.unlink(missing_ok=True)


def cartoons(folder: Path, ids: Sequence[str], motifs: Mapping[str, Reference]) -> str:
    """The page of cartoons; a design with a motif lies on the motif's structure file, by N, CA and C."""
    references = {path: i for i, path in enumerate(dict.fromkeys(motifs[name].path for name in ids if name in motifs))}
    shown = []
    for name in ids:
        chains = read_chains(folder / STRUCTURES / structure_name(name))
        motif = motifs.get(name)
        if motif is not None:
            rotation, shift = motif.fit(np.concatenate([chain.positions(BACKBONE) for chain in chains]))
            chains = [replace(chain, coordinates=chain.coordinates @ rotation + shift) for chain in chains]
        spans = () if motif is None else tuple((p.first, p.first + len(p.source) - 1) for p in motif.pieces)
        text = pdb_text(chains, [chain.bfactors for chain in chains])
        shown.append(Shown(name, text, spans, None if motif is None else references[motif.path]))
    files = [read_chains(path) for path in references]
    return cartoon_page(shown, [pdb_text(chains, [chain.bfactors for chain in chains]) for chains in files])


def mmcif_text(pdb: str, name: str) -> str:
    """A PDB file as mmCIF."""
    writer, text = MMCIFIO(), io.StringIO()
    writer.set_structure(PDBParser(QUIET=True).get_structure(name, io.StringIO(pdb)))
    writer.save(text)
    return text.getvalue()
