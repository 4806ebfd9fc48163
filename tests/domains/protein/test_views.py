"""Scripts that show designs elsewhere, and mmCIF files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from predictor_files import WRITERS, chain, confidence, text_of

from didi_core.cli import main
from didi_protein.design_report import cartoon
from didi_protein.design_report.designs import structure_name
from didi_protein.scoring.views import cartoons, mmcif_text, write_views
from didi_protein.structures.atoms import read_chains
from didi_protein.structures.motif import Reference, pieces_of
from didi_protein.structures.scripts import chimerax_script, pymol_script

NATIVE = "GSHMKKIAEELLRKAGNMKTAYIAKQRQISFVKSHFSRQ"
IDS = ["d1", "odd,'id'"]


@pytest.fixture
def motifs(tmp_path: Path) -> dict[str, Reference]:
    path = tmp_path / "native.pdb"
    path.write_text(text_of([chain(NATIVE)], [confidence(NATIVE)]))
    rising, falling = "5-14=A3-12,20-30=A20-30", "5-15=A20-30,20-29=A3-12"
    return {n: Reference.read(pieces_of(t), path) for n, t in zip(IDS, (rising, falling), strict=True)}


def test_pymol_superposes_every_piece_on_its_own(motifs: dict[str, Reference]) -> None:
    text = pymol_script(IDS, motifs, {motifs["d1"].path: "motif/1_native.pdb"})
    loads = re.findall(r"^/(cmd\.load\(.*?\))(?:  #.*)?$", text, re.M)
    seen: list[tuple[str, str]] = []

    class Recorder:
        def load(self, path: str, name: str) -> None:
            seen.append((path, name))

    for line in loads:  # PyMOL runs these lines as Python
        eval(line, {"cmd": Recorder()})
    assert seen == [
        ("pdb/d1.pdb", "design_1"), ("pdb/odd,'id'.pdb", "design_2"), ("motif/1_native.pdb", "motif_1")
    ]  # fmt: skip
    fits = [line for line in text.splitlines() if line.startswith("pair_fit")]
    assert len(fits) == 2
    assert fits[1].count(" and chain A and resi ") == 4 and "resi 5-15 and name N+CA+C, motif_1 and chain A" in fits[1]
    assert text.index("0xff7d45, b > -0.005") < text.index("0x0053d6, b > 89.995")


def test_chimerax_pairs_atoms_in_the_order_of_the_files(motifs: dict[str, Reference]) -> None:
    text = chimerax_script(IDS, motifs, {motifs["d1"].path: "motif/1_native.pdb"})
    assert 'open "pdb/d1.pdb" id 1' in text and 'open "motif/1_native.pdb" id 3' in text
    assert "align #1/A:5-14,20-30@N,CA,C toAtoms #3/A:3-12,20-30@N,CA,C" in text
    assert "align #2/A:5-15@N,CA,C toAtoms #3/A:20-30@N,CA,C" in text  # the longest piece alone
    assert "color bfactor palette alphafold" in text and "hide #2-2 models" in text


def test_mmcif_holds_the_same_atoms(tmp_path: Path) -> None:
    text = text_of([chain(NATIVE), chain("MKTAY", 1)], [confidence(NATIVE), confidence("MKTAY")])
    (tmp_path / "a.pdb").write_text(text)
    (tmp_path / "a.cif").write_text(mmcif_text(text, "a"))
    for one, other in zip(read_chains(tmp_path / "a.pdb"), read_chains(tmp_path / "a.cif"), strict=True):
        assert (one.name, one.letters, one.atoms) == (other.name, other.letters, other.atoms)
        assert np.array_equal(one.coordinates, other.coordinates) and np.array_equal(one.bfactors, other.bfactors)


def test_the_command_writes_them(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(f">d1\n{NATIVE}\n>d2\n{NATIVE[5:]}\n")
    WRITERS["boltz"](tmp_path / "boltz", "d1", [NATIVE])
    out = tmp_path / "out"
    words = [f"input={tmp_path / 'x.fasta'}", f"structures={tmp_path / 'boltz'}", f"out={out}"]
    assert main(["score", *words, "mmcif=true"]) == 0
    assert [path.name for path in (out / "cif").iterdir()] == ["d1.cif"]
    assert "design_1" in (out / "view.pml").read_text() and "design_2" not in (out / "view.pml").read_text()
    assert (out / "view.cxc").is_file()


def test_without_structures_there_is_nothing_to_show(tmp_path: Path) -> None:
    write_views(tmp_path, [{"id": "d1"}], {})
    assert not list(tmp_path.iterdir())


def test_cartoons_lie_on_their_motif_in_one_file(tmp_path: Path, motifs: dict[str, Reference]) -> None:
    length = 40
    (tmp_path / "pdb").mkdir()
    made = chain("G" * length, 4)
    atoms = made.coordinates.reshape(length, 4, 3).copy()
    kept = chain(NATIVE).coordinates.reshape(-1, 4, 3)[[*range(2, 12), *range(19, 30)]]
    rotation = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    atoms[[*range(4, 14), *range(19, 30)]] = kept @ rotation + 30
    moved = replace(made, coordinates=atoms.reshape(-1, 3))
    for name in ("d1", "</script><b>"):
        path = tmp_path / "pdb" / structure_name(name)
        path.write_text(text_of([moved], [confidence("G" * length)]))
    page = cartoons(tmp_path, ["d1", "</script><b>"], {"d1": motifs["d1"]})
    assert "</script><b>" not in page and not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    assert len(scripts) == 3 and "$3Dmol" in scripts[1] and len(scripts[1]) > 400_000
    data = json.loads(scripts[0])
    assert [d["name"] for d in data["designs"]] == ["d1", "</script><b>"] and len(data["references"]) == 1
    assert data["designs"][0]["motif"] == [[5, 14], [20, 30]] and data["designs"][1]["reference"] is None
    (tmp_path / "shown.pdb").write_text(data["designs"][0]["pdb"])
    shown = read_chains(tmp_path / "shown.pdb")[0].positions(("N", "CA", "C", "O"))
    assert shown[[*range(4, 14), *range(19, 30)]] == pytest.approx(kept, abs=5e-3)


def test_the_licence_of_the_library_lies_beside_it() -> None:
    folder = Path(cartoon.__file__).parent / "templates" / "3dmol"
    assert "BSD-3-Clause" in (folder / "LICENSE").read_text() and (folder / "3Dmol-min.js").is_file()
