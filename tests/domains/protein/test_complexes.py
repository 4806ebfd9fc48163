"""Complexes: read from FASTA, folded with a linker and a gap in the numbers, scored and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from designs_and_scores import rows_of, write_designs
from fold_files import fold2_folder, fold_folder, random_fold
from predictor_files import WRITERS
from tolerance import near

from didi_core.cli import main
from didi_core.errors import InputError
from didi_protein.design_report import read_designs
from didi_protein.fasta import chains, read_fasta
from didi_protein.scoring.complexes import GAP, LINKER, Joined, interface_tm, joined_length
from didi_protein.scoring.esmfold import EsmFold
from didi_protein.scoring.esmfold2 import features_of
from didi_protein.structures.atoms import read_chains

ONE, TWO = "MKTAYIAKQRQISFVK", "GSHMKKIAEELLRK"


# --- reading


def test_chains_are_read_with_either_break() -> None:
    assert chains("mkt*:GSH") == chains("MKT/GSH*") == "MKT:GSH"
    assert chains("MKT") == "MKT"
    with pytest.raises(InputError, match="chain 2 of 3 is empty"):
        chains("MKT::GSH")
    with pytest.raises(InputError, match="letter 'X'"):
        chains("MKT:GXH")


def test_complexes_are_read_to_score_only(tmp_path: Path) -> None:
    path = write_designs(tmp_path / "x.fasta", {"ab": f"{ONE}:{TWO}"})
    assert read_fasta(path, complexes=True).samples[0].text == f"{ONE}:{TWO}"
    with pytest.raises(InputError, match="letter ':'"):
        read_fasta(path)


# --- the layout of ColabFold


def colabfold_layout(sequence: str) -> tuple[str, list[int], list[bool]]:
    """Text, residue numbers and what is no linker, as fair-esm documents them: written here from its description."""
    text, numbers, real, start = "", [], [], 0
    parts = sequence.split(":")
    for i, part in enumerate(parts):
        padded = part + ("G" * 25 if i < len(parts) - 1 else "")
        text += padded
        numbers += [start + j + 512 * i for j in range(len(padded))]
        real += [j < len(part) for j in range(len(padded))]
        start += len(padded)
    return text, numbers, real


@pytest.mark.parametrize("design", [ONE, f"{ONE}:{TWO}", f"{ONE}:{ONE}:{TWO}"])
def test_the_layout_is_that_of_colabfold(design: str) -> None:
    text, numbers, real = colabfold_layout(design)
    joined = Joined.of(design)
    assert (joined.text, joined.numbers.tolist()) == (text, numbers)
    assert joined.places.tolist() == [i for i, here in enumerate(real) if here]
    assert "".join(text[i] for i in joined.places.tolist()) == design.replace(":", "")
    assert joined_length(design) == len(text) and (LINKER, GAP) == (25, 512)


@pytest.mark.parametrize("linker", [1, 7])
def test_a_linker_of_another_length_moves_the_chains_alone(linker: int) -> None:
    design = f"{ONE}:{TWO}:{ONE}"
    joined = Joined.of(design, linker)
    assert joined.text == ("G" * linker).join([ONE, TWO, ONE]) and joined_length(design, linker) == len(joined.text)
    assert "".join(joined.text[i] for i in joined.places.tolist()) == design.replace(":", "")
    assert joined.numbers[joined.places].diff().unique().tolist() == [1, 1 + linker + GAP]
    assert len(joined.numbers) == len(joined.text)


# --- ipTM


def test_iptm_counts_pairs_of_different_chains() -> None:
    from transformers.models.esm.openfold_utils.loss import compute_tm

    torch.manual_seed(0)
    logits = torch.randn(30, 30, 64)
    apart = interface_tm(logits, torch.arange(30))  # every residue a chain: all pairs but those with itself
    with_itself = float(compute_tm(logits[None], max_bin=31, no_bins=64))
    assert apart == pytest.approx(with_itself, abs=0.03)
    logits[:20, 20:, 0] += 100.0  # residues of chain 0 are sure of those of chain 1
    chains_ = torch.tensor([0] * 20 + [1] * 10)
    assert interface_tm(logits, chains_) > 0.9 > interface_tm(logits[:, :, :], torch.tensor([0] * 10 + [1] * 20)) - 1
    logits = torch.zeros(30, 30, 64)
    logits[:20, :20, 0] += 100.0  # and here of their own alone
    logits[..., 63] += 50.0 * (chains_[:, None] != chains_)
    assert interface_tm(logits, chains_) < 0.05


# --- ESMFold


@pytest.fixture(scope="module")
def folder() -> EsmFold:
    return EsmFold(random_fold(), torch.device("cpu"))


def test_a_complex_is_folded_with_its_linker_and_shown_without(folder: EsmFold, tmp_path: Path) -> None:
    made = folder.fold([f"{ONE}:{TWO}", ONE])
    assert made[0].residues.shape == (30,) and made[0].pae.shape == (30, 30)
    assert made[0].iptm is not None and 0 < made[0].iptm < 1 and made[1].iptm is None
    between = np.r_[made[0].pae[:16, 16:].ravel(), made[0].pae[16:, :16].ravel()]
    assert made[0].ipae == pytest.approx(between.mean(), rel=1e-5)
    path = tmp_path / "ab.pdb"
    path.write_text(made[0].pdb)
    read = read_chains(path)
    found = [(chain.name, chain.letters, chain.numbers[0], chain.numbers[-1]) for chain in read]
    assert found == [("A", ONE, "1", "16"), ("B", TWO, "1", "14")]
    values = np.concatenate([c.of_ca(c.bfactors) for c in read])
    assert values == pytest.approx(made[0].residues, abs=0.01)
    assert made[0].pdb.count("TER") == 2 and made[0].pdb.rstrip().endswith("END")


def test_numbers_of_a_complex_are_those_of_transformers(folder: EsmFold) -> None:
    text, numbers, real = colabfold_layout(f"{ONE}:{TWO}")
    order = "ARNDCQEGHILKMFPSTWYV"
    ids = torch.tensor([[order.index(letter) for letter in text]])
    with torch.no_grad():
        theirs: Any = folder.model(ids, torch.ones_like(ids), position_ids=torch.tensor([numbers]))
    keep = [i for i, here in enumerate(real) if here]
    (made,) = folder.fold([f"{ONE}:{TWO}"])
    assert made.residues == near(100 * theirs["plddt"][0, keep, 1].double().numpy())
    assert made.pae == near(theirs["predicted_aligned_error"][0][keep][:, keep].numpy())


def test_a_single_chain_is_as_before(folder: EsmFold) -> None:
    alone, beside = folder.fold([ONE])[0], folder.fold([ONE, f"{ONE}:{TWO}"])[0]
    assert alone.residues == near(beside.residues) and alone.ptm == near(beside.ptm)


# --- ESMFold2


def test_features_of_a_complex_are_those_of_its_chains_in_a_row() -> None:
    from transformers.models.esmfold2.protein_utils import prepare_protein_features

    alone = prepare_protein_features(ONE)
    assert all(torch.equal(value, alone[name]) for name, value in features_of(ONE).items())
    made = {name: value[0] for name, value in features_of(f"{ONE}:{TWO}:{ONE}").items()}
    assert made["asym_id"].tolist() == [0] * 16 + [1] * 14 + [2] * 16
    assert made["entity_id"].tolist() == [0] * 16 + [1] * 14 + [0] * 16
    assert made["sym_id"].tolist() == [0] * 30 + [1] * 16
    assert made["residue_index"].tolist() == [*range(16), *range(14), *range(16)]
    assert made["token_index"].tolist() == list(range(46)) and made["token_bonds"].shape == (46, 46, 1)
    real = made["atom_attention_mask"]
    assert len(real) % 32 == 0 and len(real) - int(real.sum()) < 32
    assert made["atom_to_token"][real].unique().tolist() == list(range(46)) and not made["atom_to_token"][~real].any()
    assert torch.equal(made["atom_to_token"][made["distogram_atom_idx"]], made["token_index"])
    first = int(alone["atom_attention_mask"].sum())
    assert torch.equal(made["ref_pos"][:first], alone["ref_pos"][0, :first])
    assert torch.equal(made["ref_pos"][real][-first:], alone["ref_pos"][0, :first])


def test_esmfold2_folds_complexes_without_a_linker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = fold2_folder(tmp_path / "weights")
    designs = write_designs(tmp_path / "x.fasta", {"ab": f"{ONE}:{TWO}", "a": ONE})
    words = [f"input={designs}", "fold=esmfold2", f"fold_model={weights}", f"out={tmp_path / 'out'}", "pae=true"]
    assert main(["score", *words, "linker=5"]) == 2
    assert "linker=5 has no effect with fold=esmfold2, which knows chains" in capsys.readouterr().err
    assert main(["score", *words]) == 0
    rows = rows_of(tmp_path / "out")
    assert (rows["ab"]["chains"], rows["ab"]["folded_by"], rows["a"]["iptm"]) == ("2", "esmfold2", "")
    pae = np.load(tmp_path / "out/pae/ab.npz")["pae"]
    between = np.r_[pae[:16, 16:].ravel(), pae[16:, :16].ravel()]
    assert float(rows["ab"]["ipae"]) == pytest.approx(between.mean(), abs=1e-3) and 0 <= float(rows["ab"]["iptm"]) <= 1
    read = read_chains(tmp_path / "out/pdb/ab.pdb")
    assert [(c.name, c.letters, c.numbers[0]) for c in read] == [("A", ONE, "1"), ("B", TWO, "1")]


def test_the_linker_is_the_users(folder: EsmFold) -> None:
    """It changes what is folded and is in no result."""
    short = EsmFold(folder.model, torch.device("cpu"), linker=2)
    (one,), (two,) = folder.fold([f"{ONE}:{TWO}"]), short.fold([f"{ONE}:{TWO}"])
    assert one.residues.shape == two.residues.shape == (30,) and one.plddt != two.plddt
    assert short.fold([ONE])[0].residues == near(folder.fold([ONE])[0].residues)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["linker=0"], "linker=0 is out of range: it must be at least 1"),
        (["linker=5", "fold=none"], "linker=5 has no effect: nothing is folded here"),
        (["linker=62"], "linker=62 is longer than the model: it was made for 62 residues"),
        (["linker=5"], "linker=5 has no effect: no design has several chains"),
    ],
)
def test_a_linker_that_cannot_be_is_refused(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ONE if "several" in told else f"{ONE}:{TWO}"
    designs, weights = write_designs(tmp_path / "x.fasta", {"ab": text}), fold_folder(tmp_path / "weights")
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    fold = ["fold=esmfold", f"fold_model={weights}"] if "fold=none" not in words else []
    assert main(["score", f"input={designs}", *fold, *words, f"out={tmp_path / 'out'}"]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out" / "scores.csv").exists()


# --- the commands


def test_complexes_go_from_fasta_to_a_shortlist(tmp_path: Path) -> None:
    designs = write_designs(tmp_path / "x.fasta", {"ab": f"{ONE}:{TWO}", "a": ONE, "ba": f"{TWO}/{ONE}"})
    weights = fold_folder(tmp_path / "weights")
    known = write_designs(tmp_path / "known.fasta", {"k": ONE + "GGGGG"})
    words = [f"input={designs}", "fold=esmfold", f"fold_model={weights}", f"reference={known}", "novelty=kmers"]
    out = tmp_path / "out"
    assert main(["score", *words, f"out={out}", "pae=true"]) == 0
    rows = rows_of(out)
    assert rows["ab"]["sequence"] == f"{ONE}:{TWO}" and rows["ba"]["sequence"] == f"{TWO}:{ONE}"
    assert (rows["ab"]["length"], rows["ab"]["chains"], rows["a"]["chains"]) == ("30", "2", "")
    assert 0 < float(rows["ab"]["iptm"]) < 1 and float(rows["ab"]["ipae"]) > 0 and rows["a"]["iptm"] == ""
    assert all(len(d.atoms()) == len(d.letters) for d in read_designs(out))
    assert main(["filter", f"input={out}", "min.plddt=0", f"out={tmp_path / 'short'}"]) == 0
    assert ":" in (tmp_path / "short" / "designs.fasta").read_text()
    # and the shortlist is input again
    again = [f"input={tmp_path / 'short' / 'designs.fasta'}", "fold=none", f"out={tmp_path / 'again'}"]
    assert main(["score", *again]) == 0


def test_structures_of_complexes_have_their_iptm(tmp_path: Path) -> None:
    designs = write_designs(tmp_path / "x.fasta", {"ab": f"{ONE}:{TWO}", "a": ONE})
    WRITERS["boltz"](tmp_path / "boltz", "ab", [ONE, TWO])
    WRITERS["boltz"](tmp_path / "boltz", "a", [ONE])
    assert main(["score", f"input={designs}", f"structures={tmp_path / 'boltz'}", f"out={tmp_path / 'out'}"]) == 0
    rows = rows_of(tmp_path / "out")
    assert [float(rows["ab"][name]) for name in ("iptm", "ipae")] == [pytest.approx(0.6), 4.0]
    assert rows["a"]["iptm"] == ""
    assert [c.name for c in read_chains(tmp_path / "out" / "pdb" / "ab.pdb")] == ["A", "B"]
