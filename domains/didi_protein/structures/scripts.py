"""Scripts that show designs in PyMOL and in ChimeraX: cartoons coloured by confidence, superposed on their motif."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..design_report.designs import BANDS, STRUCTURES, structure_name
from .motif import Reference

PYMOL, CHIMERAX = "view.pml", "view.cxc"
SHOWN = 20  # designs that a script opens, the first
MOTIF_COLOUR = "#d81b60"
ATOMS = "N+CA+C"


def pymol_script(ids: Sequence[str], motifs: Mapping[str, Reference], files: Mapping[Path, str]) -> str:
    """For ``pymol view.pml`` in the score folder.

    Args:
        ids: designs, the best first. motifs: of those that kept one. files: where each motif's structure file lies, as
            seen from the score folder.
    """
    lines = ["# pymol view.pml, in this folder. Colours are AlphaFold DB's of pLDDT; the motif is pink."]
    names = {name: f"design_{i}" for i, name in enumerate(ids, start=1)}  # as ids may hold what PyMOL's names cannot
    lines += [f"/cmd.load({f'{STRUCTURES}/{structure_name(name)}'!r}, {names[name]!r})  # {name!r}" for name in ids]
    lines += ["as cartoon", *(f"color 0x{colour[1:]}, b > {low - 0.005:.3f}" for low, _, colour in reversed(BANDS))]
    references = {path: f"motif_{i}" for i, path in enumerate(files, start=1)}
    for path, label in references.items():
        lines += [f"/cmd.load({files[path]!r}, {label!r})", f"as cartoon, {label}", f"color gray70, {label}"]
    for name in ids:
        if name in motifs:
            pairs = []
            for piece in motifs[name].pieces:
                first, last = piece.first, piece.first + len(piece.source) - 1
                label, chain = references[motifs[name].path], piece.source.chain
                pairs += [
                    f"{names[name]} and chain A and resi {first}-{last} and name {ATOMS}",
                    f"{label} and chain {chain} and resi {piece.source.first}-{piece.source.last} and name {ATOMS}",
                ]
                lines.append(f"color 0x{MOTIF_COLOUR[1:]}, {pairs[-2].removesuffix(f' and name {ATOMS}')}")
            lines.append(f"pair_fit {', '.join(pairs)}")
    return "\n".join([*lines, "disable design_*", "enable design_1", "orient design_1", ""])


def chimerax_script(ids: Sequence[str], motifs: Mapping[str, Reference], files: Mapping[Path, str]) -> str:
    """For ChimeraX's ``open view.cxc``: models 1, 2, ... are the designs, those after them the motifs' files."""
    lines = ["# Open in ChimeraX. Colours are AlphaFold DB's of pLDDT; the motif is pink."]
    for number, name in enumerate(ids, start=1):
        lines += [f"# #{number} is {name!r}", f'open "{STRUCTURES}/{structure_name(name)}" id {number}']
    lines += ["hide atoms", "show cartoons", "color bfactor palette alphafold"]
    references = {path: i for i, path in enumerate(files, start=len(ids) + 1)}
    for path, number in references.items():
        lines += [f'open "{files[path]}" id {number}', f"hide #{number} atoms", f"color #{number} gray"]
        lines.append(f"cartoon #{number}")
    for number, name in enumerate(ids, start=1):
        if name in motifs:
            model, pieces = references[motifs[name].path], motifs[name].pieces
            here = [f"{p.first}-{p.first + len(p.source) - 1}" for p in pieces]
            lines.append(f"color #{number}/A:{','.join(here)} {MOTIF_COLOUR}")
            chains = {p.source.chain for p in pieces}
            rising = all(a.source.last < b.source.first for a, b in zip(pieces, pieces[1:], strict=False))
            chosen = range(len(pieces)) if len(chains) == 1 and rising else [_longest(motifs[name])]
            there = ",".join(f"{pieces[i].source.first}-{pieces[i].source.last}" for i in chosen)
            own = ",".join(here[i] for i in chosen)
            chain, atoms = pieces[chosen[0]].source.chain, ATOMS.replace("+", ",")
            lines.append(f"align #{number}/A:{own}@{atoms} toAtoms #{model}/{chain}:{there}@{atoms}")
    others = [f"hide #2-{len(ids)} models"] if len(ids) > 1 else []
    return "\n".join([*lines, *others, "view", ""])


def _longest(motif: Reference) -> int:
    """The longest piece: ChimeraX pairs atoms in the order of the files, so pieces in another order go one by one."""
    return max(range(len(motif.pieces)), key=lambda i: len(motif.pieces[i].source))
