"""Motif RMSD: from the index map of ``sample`` to a column, against an independent superposition."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from designs_and_scores import rows_of, write_designs
from predictor_files import chain, confidence, text_of, write_structure

from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.types import Sample
from didi_protein.domain import asset
from didi_protein.scoring.motifs import has_range, references
from didi_protein.structures.atoms import BACKBONE, Chain
from didi_protein.structures.motif import Reference, pieces_in_header, pieces_of, read_map
from didi_protein.structures.superposition import rmsd, superpose, tm_score

NATIVE = "GSHMKKIAEELLRKAGNMKTAYIAKQRQISFVKSHFSRQ"


def kabsch(one: np.ndarray, other: np.ndarray) -> float:
    """RMSD after superposition by the covariance's singular values, without building the rotation (Kabsch 1976)."""
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    values = np.linalg.svd(a.T @ b, compute_uv=False)
    values[-1] *= np.sign(np.linalg.det(a.T @ b))
    return float(np.sqrt(max((a**2).sum() + (b**2).sum() - 2 * values.sum(), 0) / len(a)))


def turned(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Moved as a whole: a proper rotation and a shift."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    return points @ rotation + rng.normal(size=3) * 30


# --- superposition


@pytest.mark.parametrize("noise", [0.0, 0.4, 3.0, 50.0])
@pytest.mark.parametrize("count", [3, 8, 120])
def test_rmsd_is_that_of_an_independent_implementation(noise: float, count: int) -> None:
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, 3)) * 10
    other = turned(points + rng.normal(size=points.shape) * noise)
    assert rmsd(points, other) == pytest.approx(kabsch(points, other), abs=1e-4)
    rotation, shift = superpose(points, other)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    if noise == 0:
        assert points @ rotation + shift == pytest.approx(other, abs=1e-6)


def test_mirror_images_are_not_the_same() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3)) * 10
    assert rmsd(points, points * [1, 1, -1]) > 1


def test_tm_score_of_known_pairs() -> None:
    ca = chain(NATIVE * 3).positions()[:, 0]
    assert tm_score(turned(ca), ca) == pytest.approx(1.0, abs=1e-6)
    # Two domains that moved apart: one half fits exactly, the far half adds next to nothing.
    moved = ca.copy()
    moved[len(ca) // 2 :] += [500.0, 0, 0]
    assert tm_score(turned(moved), ca) == pytest.approx(0.5, abs=0.03)
    rng = np.random.default_rng(0)
    noisy = ca + rng.normal(size=ca.shape) * 1.0
    scale = 1.24 * (len(ca) - 15) ** (1 / 3) - 1.8
    rotation, shift = superpose(noisy, ca)
    fitted = (1 / (1 + ((noisy @ rotation + shift - ca) ** 2).sum(axis=1) / scale**2)).mean()
    assert fitted <= tm_score(noisy, ca) + 1e-9 < fitted + 0.02
    assert tm_score(rng.normal(size=(100, 3)) * 20, rng.normal(size=(100, 3)) * 20) < 0.25


# --- pieces


def test_pieces_are_read_as_they_are_written() -> None:
    text = "27-34=A12-19,60-64=1:3-7,70-71=AB:-2--1"
    assert ",".join(map(str, pieces_of("27-34=A12-19,60-64=1:3-7"))) == "27-34=A12-19,60-64=1:3-7"
    assert [len(p.source) for p in pieces_of(text)] == [8, 5, 2]
    assert pieces_in_header("26/A12-19/MKT/5/1:3-7/2") == "27-34=A12-19,43-47=1:3-7"
    assert pieces_in_header("26/MKT/5") == ""
    for bad in ("27-34=A12-18", "3-2=A3-2"):
        with pytest.raises(InputError, match="different lengths"):
            pieces_of(bad)
    with pytest.raises(InputError, match="'27-34' is no piece"):
        pieces_of("27-34")


def write_native(folder: Path) -> tuple[Path, Chain]:
    """NATIVE as chain A, residues from 1."""
    made = chain(NATIVE, 3)
    path = folder / "motif.pdb"
    path.write_text(text_of([made], [confidence(NATIVE)]))
    return path, made


def design_with(native: Chain, spans: list[tuple[int, int, int]], length: int = 60) -> tuple[str, np.ndarray]:
    """A sequence, and N, CA, C of its residues: (first in the design, first and last in NATIVE), each moved rigidly."""
    letters, atoms = list("G" * length), np.random.default_rng(1).normal(size=(length, 3, 3)) * 30
    for number, (first, low, high) in enumerate(spans):
        letters[first - 1 : first + high - low] = NATIVE[low - 1 : high]
        part = native.positions(BACKBONE)[low - 1 : high]
        atoms[first - 1 : first + high - low] = turned(part.reshape(-1, 3), number).reshape(part.shape)
    return "".join(letters), atoms


def test_pieces_that_moved_apart_are_whole_one_by_one_only(tmp_path: Path) -> None:
    path, native = write_native(tmp_path)
    text, atoms = design_with(native, [(5, 3, 12), (40, 20, 30)])
    motif = Reference.read(pieces_of("5-14=A3-12,40-50=A20-30"), path)
    columns = motif.columns("d", text, atoms)
    for name in ("motif_1_rmsd", "motif_1_rmsd_ca", "motif_2_rmsd", "motif_2_rmsd_ca"):
        assert columns[name] == pytest.approx(0, abs=2e-3)  # a PDB file has three decimals
    known = native.positions(BACKBONE)
    chosen, places = [*range(2, 12), *range(19, 30)], [*range(4, 14), *range(39, 50)]
    for name, atom in (("motif_rmsd", slice(0, 3)), ("motif_rmsd_ca", slice(1, 2))):
        expected = kabsch(atoms[places, atom].reshape(-1, 3), known[chosen, atom].reshape(-1, 3))
        assert columns[name] == pytest.approx(expected, abs=2e-3) and expected > 1


def test_what_cannot_be_measured_is_undefined_or_refused(tmp_path: Path) -> None:
    path, native = write_native(tmp_path)
    text, atoms = design_with(native, [(5, 3, 12)])
    motif = Reference.read(pieces_of("5-14=A3-12"), path)
    atoms[7, 0] = np.nan  # a nitrogen
    columns = motif.columns("d", text, atoms)
    assert columns["motif_rmsd"] is None and columns["motif_rmsd_ca"] == pytest.approx(0, abs=2e-3)
    with pytest.raises(InputError, match="design 'd' does not hold its motif: residues 5-14=A3-12 are GGGG"):
        motif.columns("d", "G" * 60, atoms)
    short = Reference.read(pieces_of("5-6=A3-4"), path).columns("d", text, atoms)
    assert short["motif_rmsd_ca"] is None and short["motif_rmsd"] is not None
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if line[22:26].strip() != "7"))
    (tmp_path / "holed.pdb").write_text(path.read_text())
    with pytest.raises(InputError, match="lacks A7: a motif must be whole.* Of designs that are made: motif="):
        Reference.read(pieces_of("5-14=A3-12"), tmp_path / "holed.pdb")


def test_a_motif_without_its_file_is_refused(tmp_path: Path) -> None:
    design = Sample("GGG", "d", info={"motif": "1-3=A1-3", "motif_pdb": str(tmp_path / "gone.pdb")})
    with pytest.raises(InputError, match=r"structure file .*gone\.pdb is not there"):
        references([design], None)
    assert references([Sample("GGG", "d", info={"contig": "5/A1-3/5"})], None) == {}
    write_native(tmp_path)
    strange = Sample("G" * 13, "d", info={"motif": "6-8=A1-3", "motif_pdb": str(tmp_path / "motif.pdb")})
    with pytest.raises(InputError, match="design 'd' does not hold its motif: residues 6-8=A1-3 are GGG"):
        references([strange], None)  # before anything is computed
    assert references([Sample("GGG", "d", info={"contig": "whatever else"})], None) == {}
    path, _ = write_native(tmp_path)
    with pytest.raises(InputError, match="has no effect: no design has a contig"):
        references([Sample("GGG", "d", info={"contig": "5/MKT"})], path)


def test_a_damaged_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "designs.fasta.map.json").write_text(json.dumps({"samples": [1]}))
    with pytest.raises(InputError, match="no index map of sample"):
        read_map(tmp_path / "designs.fasta")
    assert read_map(tmp_path / "other.fasta") == {}


# --- from sampling to the table


def test_from_sampling_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, native = write_native(tmp_path)
    out = tmp_path / "designs.fasta"
    words = [f"run={asset('teacher')}", "num=4", "steps=4", "contig=6-9/A5-14/7/A22-30/5", f"pdb={path}"]
    assert main(["sample", *words, f"out={out}"]) == 0
    entries = json.loads((tmp_path / "designs.fasta.map.json").read_text())["samples"]
    sequences = {}
    for line in out.read_text().splitlines():
        if line.startswith(">"):
            name = line[1:].split()[0]
        else:
            sequences[name] = sequences.get(name, "") + line
    for number, (name, sequence) in enumerate(sequences.items()):
        first, second = (piece["first"] for piece in entries[name]["pieces"])
        made = chain(sequence, 7)
        places = np.array([*range(first - 1, first + 9), *range(second - 1, second + 8)])
        kept = native.coordinates.reshape(-1, 4, 3)[[*range(4, 14), *range(21, 30)]]
        atoms = made.coordinates.reshape(-1, 4, 3).copy()
        noise = np.random.default_rng(number).normal(size=kept.shape) * (0.0, 0.5, 1.2, 9.0)[number]
        atoms[places] = kept + noise
        moved = Chain(*[getattr(made, n) for n in ("name", "letters", "numbers", "atoms", "elements", "owners")],
                      turned(atoms.reshape(-1, 3)), made.bfactors, made.places)  # fmt: skip
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.pdb").write_text(text_of([moved], [confidence(sequence)]))
    capsys.readouterr()
    assert main(["score", f"input={out}", f"structures={tmp_path / 'mine'}", f"out={tmp_path / 'scored'}"]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "motif within 1 A (backbone): 2 of 4 designs" in shown and "motif within 2 A (backbone): " in shown
    with (tmp_path / "scored" / "scores.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    found = [float(rows[name]["motif_rmsd"]) for name in sequences]
    assert found[0] < 0.01 and 0.3 < found[1] < 1 < found[2] < 3 < found[3]
    assert {"motif_1_rmsd", "motif_2_rmsd_ca", "motif", "motif_pdb"} <= set(next(iter(rows.values())))
    assert "with the motif within 1 Å" in (tmp_path / "scored" / "report.html").read_text()


def test_a_shortlist_keeps_its_motifs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pdb, native = write_native(tmp_path)
    designs = write_kept_motif(tmp_path, pdb, native)
    given = [f"structures={tmp_path / 'given'}", "report=false"]
    assert main(["score", f"input={designs}", *given, f"out={tmp_path / 'scored'}"]) == 0
    assert main(["filter", f"input={tmp_path / 'scored'}", "top=1", f"out={tmp_path / 'short'}"]) == 0
    short = tmp_path / "short/designs.fasta"
    assert "contig=3/A5-20/4" in short.read_text()
    assert main(["score", f"input={short}", *given, f"out={tmp_path / 'again'}"]) == 0
    assert rows_of(tmp_path / "again")["d"]["motif_rmsd"] == rows_of(tmp_path / "scored")["d"]["motif_rmsd"] != ""
    capsys.readouterr()
    short.with_name("designs.fasta.map.json").unlink()
    assert main(["score", f"input={short}", *given, f"out={tmp_path / 'third'}"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "motif RMSD: not of 1 design, such as d, whose contig keeps residues of a structure file" in told
    more = [f"motif={pdb}", f"out={tmp_path / 'fourth'}"]
    assert main(["score", f"input={short}", *given, *more]) == 0
    assert rows_of(tmp_path / "fourth")["d"]["motif_rmsd"] != ""


def write_kept_motif(folder: Path, pdb: Path, native: Chain) -> Path:
    """A design ``d`` with residues 5 to 20 of a structure file, its index map and a structure of it."""
    text = f"MKV{native.letters[4:20]}GGSG"
    designs = write_designs(folder / "x.fasta", {"d contig=3/A5-20/4": text})
    piece = {"first": 4, "last": 19, "residues": text[3:19], "source": "A5-20"}
    entry = {"samples": {"d": {"pdb": str(pdb), "pieces": [piece]}}}
    (folder / "x.fasta.map.json").write_text(json.dumps(entry))
    write_structure(folder / "given/d.pdb", [text], seed=3)
    return designs


@pytest.mark.parametrize(
    ("atom", "code", "told"),
    [
        (" N  ", 0, "A9 lacks N; such a piece, and all together, have the RMSD of CA atoms only"),
        (" C  ", 0, "A9 lacks C; such a piece"),
        (" CA ", 2, "range A5-20: A9 has no CA atom, so there is no RMSD. Give motif=<a complete file"),
    ],
)
def test_an_atom_that_the_motif_lacks_is_named(
    atom: str, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pdb, native = write_native(tmp_path)
    designs = write_kept_motif(tmp_path, pdb, native)
    lines = pdb.read_text().splitlines(keepends=True)
    pdb.write_text("".join(line for line in lines if not (line[12:16] == atom and line[22:26].strip() == "9")))
    words = [f"input={designs}", f"structures={tmp_path / 'given'}", "report=false", f"out={tmp_path / 'out'}"]
    assert main(["score", *words]) == code
    assert told in " ".join(capsys.readouterr().err.split())
    if code == 0:
        row = rows_of(tmp_path / "out")["d"]
        assert row["motif_rmsd"] == "" and float(row["motif_rmsd_ca"]) > 0


def test_a_contig_with_a_range_is_told_from_one_of_lengths_and_letters() -> None:
    assert all(map(has_range, ("3/A5-20/4", "A5", "1:5-9/3", "10/B-3-4")))
    assert not any(map(has_range, ("", "30", "20-40/MKTAY/5", "MKT_AY")))
