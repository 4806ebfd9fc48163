"""EvolutionaryScale's package esm itself, with random weights: it agrees with transformers' ports of its networks."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fold_files import fold2_folder
from tolerance import near

from didi_core.cli import main
from didi_core.commands import doctor
from didi_core.errors import InputError
from didi_protein.scoring import esmfold2, pseudo
from didi_protein.scoring.esmfold2 import EsmFold2, features_of
from didi_protein.scoring.pseudo import load_pseudo, pseudo_perplexity

pytestmark = pytest.mark.skipif(bool(pseudo.why_not()), reason=pseudo.why_not())

CPU = torch.device("cpu")
ONE, TWO = "MKTAYIAKQRQISFVK", "GSHMKKIAEELLRK"
SEED = 7


@pytest.fixture(scope="module")
def esmc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ESM C, written by transformers."""
    from transformers import EsmcConfig, EsmcForMaskedLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("esmc")
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 256}
    EsmcForMaskedLM(EsmcConfig(initializer_range=0.3, **sizes)).save_pretrained(folder)
    return folder


def test_pseudo_perplexity_by_the_package_is_that_of_transformers(esmc: Path, tmp_path: Path) -> None:
    by_package, by_transformers = load_pseudo(f"esm:{esmc}", None, CPU), load_pseudo(str(esmc), esmc, CPU)
    theirs = pseudo_perplexity(by_transformers, ONE)
    assert theirs > 1 and pseudo_perplexity(by_package, ONE) == near(theirs)
    (tmp_path / "x.fasta").write_text(f">a\n{ONE}\n>ab\n{ONE}:{TWO}\n")
    words = [f"input={tmp_path / 'x.fasta'}", "fold=none", "report=false"]
    assert main(["score", *words, f"pppl=esm:{esmc}", f"out={tmp_path / 'out'}"]) == 0
    with (tmp_path / "out/scores.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert float(rows["a"]["pppl"]) == pytest.approx(theirs, rel=1e-3) and float(rows["ab"]["pppl"]) > 1


def test_a_model_that_the_package_does_not_find_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("esmc_300", str(tmp_path)):
        with pytest.raises(InputError, match="cannot be loaded: .* Its names are esmc_300m, esmc_600m, esmc_6b"):
            load_pseudo(f"esm:{name}", None, CPU)


def test_doctor_finds_the_package() -> None:
    (row,) = [feature for feature in doctor.FEATURES if "esm" in feature.release]
    assert row.missing() == ""


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's input builder with the positions of atoms that transformers has, not those of a file of its hub."""
    from transformers.models.esmfold2.protein_utils import PROTEIN_REF_POS, PROTEIN_RESIDUE_TO_RES_TYPE

    three = {number: name for name, number in PROTEIN_RESIDUE_TO_RES_TYPE.items()}
    prepare = importlib.import_module("esm.models.esmfold2.prepare_input")
    conformers = importlib.import_module("esm.models.esmfold2.conformers")
    monkeypatch.setattr(conformers, "_CCD_MOLECULES", {})
    monkeypatch.setattr(
        prepare, "get_idealized_atom_pos", lambda number, atom: np.float32(PROTEIN_REF_POS[three[number]][atom])
    )
    return importlib.import_module("esm.models.esmfold2")


def entities(package: Any, design: str) -> Any:
    chains = [package.ProteinInput(id=str(i), sequence=text) for i, text in enumerate(design.split(":"))]
    return package.StructurePredictionInput(sequences=chains)


@pytest.mark.filterwarnings("ignore:No MSA provided")
@pytest.mark.parametrize("design", [ONE, f"{ONE}:{TWO}", f"{ONE}:{TWO}:{ONE}", "W:W"])
def test_features_are_those_of_the_package(without_files: Any, design: str) -> None:
    theirs, _ = without_files.prepare_esmfold2_input(entities(without_files, design))
    theirs["attention_mask"] = theirs.pop("token_attention_mask")
    for name, value in features_of(design).items():
        if name == "entity_id" and ":" not in design:
            continue  # 1 in transformers and 0 there, for the one that there is; what is equal is all that is read
        assert value.dtype == theirs[name].dtype and torch.equal(value[0], theirs[name]), name


@pytest.mark.filterwarnings("ignore:No MSA provided")
@pytest.mark.parametrize("design", [ONE, f"{ONE}:{TWO}"])
def test_structures_are_those_of_the_package(
    without_files: Any, design: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = EsmFold2.load(fold2_folder(tmp_path), CPU)
    monkeypatch.setattr(esmfold2, "derive_seed", lambda *names: SEED)
    (ours,) = network.fold([design])
    head = network.model.config.structure_head
    theirs = without_files.ESMFold2InputBuilder().fold(
        without_files.EsmFold2HFAdapter(network.model), entities(without_files, design), seed=SEED,
        num_loops=network.passes, num_sampling_steps=head.inference_num_steps, lm_dropout=None,
        num_diffusion_samples=head.num_diffusion_samples, max_inference_sigma=head.inference_sigma_cap,
        msa_max_depth=None, msa_column_mask_rate=0.0,
    )  # fmt: skip
    best = min(theirs, key=lambda made: abs(made.ptm - ours.ptm))
    assert best.ptm == near(ours.ptm) and best.pae.numpy() == near(ours.pae)
    assert 100 * best.plddt.numpy() == near(ours.residues)
    if ":" in design:
        assert best.iptm == near(ours.iptm)
    atoms = [[float(line[i : i + 8]) for i in (30, 38, 46)] for line in ours.pdb.splitlines() if line[:4] == "ATOM"]
    assert best.complex.atom_positions == pytest.approx(np.array(atoms), abs=1e-3)
