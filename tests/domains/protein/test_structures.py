"""``score structures=``: every predictor's files end in the same table; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from Bio.PDB.PDBParser import PDBParser
from designs_and_scores import rows_of
from predictor_files import WRITERS, chain, confidence, text_of, write_structure

from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.types import Sample
from didi_protein.design_report import read_designs
from didi_protein.structures.atoms import read_chains
from didi_protein.structures.folder import Predictions, read_folder

SEQUENCES = {"d1": "MKTAYIAKQRQISFVKSHFSRQ", "d2": "MLKNVQVQLVGGSWYAEDKL", "design_3": "GSHMKKIAEELLRKAGN"}
DESIGNS = [Sample(text, name) for name, text in SEQUENCES.items()]


def fill(folder: Path, writer: str, names: tuple[str, ...] = tuple(SEQUENCES), samples: int = 1) -> Path:
    for name in names:
        for sample in range(samples):
            WRITERS[writer](folder, name, [SEQUENCES[name]], sample, 0.8 - 0.1 * sample)
    return folder


# --- the layouts of predictors


@pytest.mark.parametrize("writer", WRITERS)
def test_confidences_of_every_predictor_are_read(tmp_path: Path, writer: str) -> None:
    read = read_folder(fill(tmp_path / "out", writer), DESIGNS)
    assert read.name == {"server": "alphafold3"}.get(writer, writer)
    assert set(read.structures) == set(SEQUENCES)
    for name, made in read.structures.items():
        assert made.residues == pytest.approx(confidence(SEQUENCES[name]), abs=0.01)
        assert made.ptm == pytest.approx(0.7)
        assert made.ca == pytest.approx(chain(SEQUENCES[name]).positions()[:, 0], abs=2e-3)
    assert "pLDDT on the scale 0 to 100" in read.messages[0]


@pytest.mark.parametrize("writer", ["boltz", "colabfold", "alphafold3"])
def test_errors_of_pairs_are_read(tmp_path: Path, writer: str) -> None:
    made = read_folder(fill(tmp_path, writer), DESIGNS).structures["d1"]
    assert made.pae is not None and made.pae.shape == (22, 22) and made.pae.mean() == pytest.approx(4.0)


@pytest.mark.parametrize("writer", WRITERS)
def test_the_best_of_several_samples_is_taken(tmp_path: Path, writer: str) -> None:
    for sample, score in enumerate((0.4, 0.9, 0.6)) if writer != "colabfold" else ((0, 0.9), (1, 0.5)):
        WRITERS[writer](tmp_path, "d1", [SEQUENCES["d1"]], sample, score)
    made = read_folder(tmp_path, DESIGNS[:1])
    assert made.structures["d1"].ptm == pytest.approx(0.8) and "the best of up to" in made.messages[0]


def test_plain_files_are_named_by_their_design(tmp_path: Path) -> None:
    write_structure(tmp_path / "mine" / "d1.pdb", [SEQUENCES["d1"]])
    write_structure(tmp_path / "mine" / "a_model_1.pdb", [SEQUENCES["d2"]])
    read = read_folder(tmp_path / "mine", [DESIGNS[0], Sample(SEQUENCES["d2"], "a_model_1")])
    assert read.name == "mine" and set(read.structures) == {"d1", "a_model_1"}


def test_two_plain_files_of_a_design_are_told_and_the_first_is_taken(tmp_path: Path) -> None:
    for place, seed in (("two", 5), ("one", 0)):
        write_structure(tmp_path / "mine" / place / "d1.pdb", [SEQUENCES["d1"]], seed=seed)
    made = read_folder(tmp_path / "mine", DESIGNS[:1])
    assert made.structures["d1"].path.parent.name == "one"
    assert "the first by path of up to 2 files each (one/d1.pdb)" in made.messages[0]


def test_ids_that_a_predictor_changed_are_known_again(tmp_path: Path) -> None:
    WRITERS["alphafold3"](tmp_path, "my_design-1", [SEQUENCES["d1"]])
    assert set(read_folder(tmp_path, [Sample(SEQUENCES["d1"], "My|design-1")]).structures) == {"My|design-1"}


def test_confidences_from_0_to_1_are_told_apart_and_scaled(tmp_path: Path) -> None:
    write_structure(tmp_path / "d1.pdb", [SEQUENCES["d1"]], scale=0.01)
    read = read_folder(tmp_path, DESIGNS[:1])
    assert read.structures["d1"].residues == pytest.approx(confidence(SEQUENCES["d1"]), abs=0.51)
    assert "pLDDT on the scale 0 to 1" in read.messages[0] and "100" not in read.messages[0]


def test_a_structure_without_confidence_has_none(tmp_path: Path) -> None:
    write_structure(tmp_path / "d1.pdb", [SEQUENCES["d1"]], scale=0.0)
    read = read_folder(tmp_path, DESIGNS[:1])
    assert read.structures["d1"].plddt == () and "without pLDDT" in read.messages[0]


def test_the_chain_of_the_design_is_found_beside_its_target(tmp_path: Path) -> None:
    write_structure(tmp_path / "d1.pdb", ["WWWWWWAAAA", SEQUENCES["d1"]])
    made = read_folder(tmp_path, DESIGNS[:1]).structures["d1"]
    assert [c.letters for c in made.chains] == [SEQUENCES["d1"]]
    assert made.residues == pytest.approx(confidence(SEQUENCES["d1"], 1), abs=0.01)


def test_a_complex_has_its_chains_in_the_order_of_the_design(tmp_path: Path) -> None:
    write_structure(tmp_path / "ab.pdb", [SEQUENCES["d2"], SEQUENCES["d1"]])
    made = read_folder(tmp_path, [Sample(f"{SEQUENCES['d1']}:{SEQUENCES['d2']}", "ab")]).structures["ab"]
    assert [c.letters for c in made.chains] == [SEQUENCES["d1"], SEQUENCES["d2"]] and len(made.residues) == 42


# --- the command


def fasta(path: Path) -> Path:
    path.write_text("".join(f">{name}\n{text}\n" for name, text in SEQUENCES.items()))
    return path


def test_two_predictors_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = fill(tmp_path / "boltz_out", "boltz")
    two = fill(tmp_path / "chai_out", "chai", ("d1", "d2"))
    write_structure(two / "d2" / "pred.model_idx_0.cif", [SEQUENCES["d2"]], seed=5)  # another structure
    out = tmp_path / "out"
    words = [f"input={fasta(tmp_path / 'designs.fasta')}", f"structures=[{one},{two}]", f"out={out}"]
    assert main(["score", *words]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "fold=auto: none, as structures are given" in shown and "chai_out: no structure of design_3" in shown
    rows = rows_of(out)
    for name, row in rows.items():
        assert float(row["plddt"]) == pytest.approx(confidence(SEQUENCES[name]).mean(), abs=0.01)
        assert (row["status"], row["folded_by"], float(row["pae"])) == ("ok", "boltz", 4.0)
    assert float(rows["d1"]["chai_tm"]) > 0.999 and float(rows["d1"]["chai_rmsd"]) < 0.01
    assert float(rows["d2"]["chai_plddt"]) == pytest.approx(confidence(SEQUENCES["d2"], 5).mean(), abs=0.01)
    assert 0.05 < float(rows["d2"]["chai_rmsd"]) < 0.6
    assert rows["design_3"]["chai_plddt"] == ""
    assert all(d.pdb is not None and len(d.atoms()) == len(d.sequence) for d in read_designs(out))
    written = read_chains(out / "pdb" / "d1.pdb")[0]
    assert written.of_ca(written.bfactors) == pytest.approx(confidence(SEQUENCES["d1"]), abs=0.01)
    page = (out / "report.html").read_text()
    assert f"boltz ({one}), chai ({two})" in page and "chai TM-score" in page


def test_a_second_opinion_on_our_own_structures(tmp_path: Path) -> None:
    from fold_files import fold_folder

    designs = fasta(tmp_path / "designs.fasta")
    words = [f"input={designs}", "fold=esmfold", f"fold_model={fold_folder(tmp_path / 'weights')}"]
    assert main(["score", *words, f"structures={fill(tmp_path / 'x', 'protenix')}", f"out={tmp_path / 'out'}"]) == 0
    row = rows_of(tmp_path / "out")["d1"]
    assert row["folded_by"] == "esmfold" and 0 < float(row["protenix_tm"]) < 1 and float(row["protenix_ptm"]) == 0.7


# --- what is refused


def refused(folder: Path, designs: list[Sample] = DESIGNS) -> str:
    with pytest.raises(InputError) as caught:
        read_folder(folder, designs)
    return str(caught.value)


def test_a_structure_of_another_sequence_is_refused_where_it_differs(tmp_path: Path) -> None:
    other = SEQUENCES["d1"][:4] + "W" + SEQUENCES["d1"][5:]
    write_structure(tmp_path / "d1.pdb", [other])
    said = refused(tmp_path)
    assert "not the structure of design 'd1'" in said
    assert "residue 5 of chain A (5 in the file) is W, the design has Y; 22 residues against 22" in said
    write_structure(tmp_path / "d1.pdb", [SEQUENCES["d1"][:20]])
    assert "chain A has 20 residues, the design 22" in refused(tmp_path)


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (SEQUENCES["d1"][:6] + SEQUENCES["d1"][7:], "chain A lacks residue 7 of the design (A)"),
        (SEQUENCES["d1"][:6] + SEQUENCES["d1"][9:], "chain A lacks residues 7-9 of the design (AKQ)"),
        (SEQUENCES["d1"][2:], "chain A lacks residues 1-2 of the design (MK)"),
    ],
)
def test_residues_that_a_structure_lacks_are_named(kept: str, told: str, tmp_path: Path) -> None:
    write_structure(tmp_path / "d1.pdb", [kept])
    assert told in refused(tmp_path)


def test_a_chain_that_a_complex_lacks_is_named(tmp_path: Path) -> None:
    write_structure(tmp_path / "ab.pdb", [SEQUENCES["d1"]])
    said = refused(tmp_path, [Sample(f"{SEQUENCES['d1']}:{SEQUENCES['d2']}", "ab")])
    assert "this is not the structure of chain 2 of design 'ab': there are fewer chains in it" in said


def test_several_models_are_refused(tmp_path: Path) -> None:
    lines = text_of([chain(SEQUENCES["d1"])], [confidence(SEQUENCES["d1"])]).replace("END\n", "")
    (tmp_path / "d1.pdb").write_text(f"MODEL        1\n{lines}ENDMDL\nMODEL        2\n{lines}ENDMDL\nEND\n")
    assert "there are 2 models in it" in refused(tmp_path)


def test_a_residue_without_its_ca_is_refused(tmp_path: Path) -> None:
    lines = text_of([chain(SEQUENCES["d1"])], [confidence(SEQUENCES["d1"])]).splitlines()
    (tmp_path / "d1.pdb").write_text("\n".join(line for line in lines if " CA  THR A   3" not in line))
    assert "1 residue of chain A without a CA atom, the first is T3" in refused(tmp_path)


def test_ids_that_are_not_there_are_refused_or_told(tmp_path: Path) -> None:
    write_structure(tmp_path / "other.pdb", [SEQUENCES["d1"]])
    assert "holds 1 structure file, such as other.pdb, and none is named after a design" in refused(tmp_path)
    write_structure(tmp_path / "d1.pdb", [SEQUENCES["d1"]])
    read: Predictions = read_folder(tmp_path, DESIGNS)
    assert f"{tmp_path}: no structure of d2, design_3" in read.messages
    assert f"{tmp_path}: not of a design: other.pdb" in read.messages
    assert "no such folder" in refused(tmp_path / "absent")
    assert "this is a file" in refused(tmp_path / "d1.pdb")
    (tmp_path / "empty").mkdir()
    assert "no PDB or mmCIF file" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    ("scale", "message"), [(2.0, "so it holds no confidence"), (-1.0, "which is not a confidence")]
)
def test_an_unknown_scale_is_refused(tmp_path: Path, scale: float, message: str) -> None:
    write_structure(tmp_path / "d1.pdb", [SEQUENCES["d1"]], scale=scale)
    assert message in refused(tmp_path)


def test_two_scales_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_structure(tmp_path / "d1.pdb", [SEQUENCES["d1"]])
    write_structure(tmp_path / "d2.pdb", [SEQUENCES["d2"]], scale=0.01)
    assert "confidences in two scales" in refused(tmp_path)


def test_two_predictors_in_one_folder_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "boltz", ("d1",))
    fill(tmp_path, "colabfold", ("d2",))
    assert "files of several predictors (boltz, colabfold)" in refused(tmp_path)


def test_damaged_confidences_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "boltz", ("d1",))
    path = next(tmp_path.rglob("confidence_*.json"))
    path.write_text('{"ptm": 0.7')
    assert f"{path} is damaged" in refused(tmp_path)
    path.write_text(json.dumps({"ptm": 83.0}))
    assert "ptm=83 is outside of 0 to 1" in refused(tmp_path)
    path.write_text(json.dumps({"ptm": "high"}))
    assert "ptm is high, not a number" in refused(tmp_path)


def test_chain_names_of_several_letters_become_letters(tmp_path: Path) -> None:
    WRITERS["boltz"](tmp_path / "b", "d1", [SEQUENCES["d1"]])
    path = next((tmp_path / "b").rglob("*.cif"))
    path.write_text(path.read_text().replace(" A ", " Binder1 "))
    assert read_chains(path)[0].name == "Binder1"
    words = [f"input={fasta(tmp_path / 'designs.fasta')}", f"structures={tmp_path / 'b'}", f"out={tmp_path / 'out'}"]
    assert main(["score", *words]) == 0
    structure = PDBParser(QUIET=True).get_structure("x", str(tmp_path / "out" / "pdb" / "d1.pdb"))
    assert [c.id for c in structure.get_chains()] == ["A"]


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    designs = fasta(tmp_path / "designs.fasta")
    twice = f"structures=[{tmp_path / 'x'},{tmp_path}/./x]"
    assert main(["score", f"input={designs}", twice, f"out={tmp_path / 'out'}"]) == 2
    assert "twice. Side by side stand two predictors" in capsys.readouterr().err
    assert main(["score", f"input={designs}", f"structures={tmp_path / 'no'}", f"out={tmp_path / 'out'}"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert np.size(list((tmp_path / "out").glob("scores.*"))) == 0
