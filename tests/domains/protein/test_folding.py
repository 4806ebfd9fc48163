"""Structure prediction: every number of a padded batch is that of the sequence alone; memory; what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dplm_files import random_model, write_folder
from fold_files import fold2_folder, fold_folder
from tolerance import close, near

from didi_core.errors import InputError
from didi_protein.scoring import choice
from didi_protein.scoring.choice import choose, duration, estimate, model_folder
from didi_protein.scoring.esmfold import EsmFold
from didi_protein.scoring.esmfold2 import EsmFold2
from didi_protein.scoring.folding import Folded, batches, fold_within_memory
from didi_protein.scoring.settings import ProteinScoring

CPU = torch.device("cpu")
SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "MLKNVQVQLV", "W", "MKTAYIAKQRQGG"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fold_folder(tmp_path_factory.mktemp("esmfold"))


@pytest.fixture(scope="module")
def network(folder: Path) -> EsmFold:
    return EsmFold.load(folder, CPU)


@pytest.fixture(scope="module")
def made(network: EsmFold) -> list[Folded]:
    return network.fold(SEQUENCES)


@pytest.mark.parametrize("i", range(len(SEQUENCES)))
def test_numbers_of_a_batch_are_those_of_each_sequence_alone(network: EsmFold, made: list[Folded], i: int) -> None:
    alone = network.model.infer(SEQUENCES[i])
    exists, plddt = alone["atom37_atom_exists"][0], alone["plddt"][0]
    assert made[i].ptm == near(float(alone["ptm"]))
    close(made[i].pae, alone["predicted_aligned_error"][0], dtype=torch.float32)
    close(made[i].residues / 100, plddt[:, 1], dtype=torch.float32)
    assert made[i].plddt / 100 == near(float((plddt * exists).sum() / exists.sum()))
    assert made[i].plddt_ca == near(made[i].residues.mean())


def test_the_random_network_tells_residues_apart(made: list[Folded]) -> None:
    assert made[0].residues.std() > 1 and made[0].ptm != pytest.approx(made[1].ptm, abs=1e-3)


@pytest.mark.parametrize("i", range(len(SEQUENCES)))
def test_pdb_text_is_that_of_the_sequence_alone_with_plddt_as_b_factor(
    network: EsmFold, made: list[Folded], i: int
) -> None:
    alone = network.model.infer(SEQUENCES[i])
    plain = network.model.output_to_pdb({k: v for k, v in alone.items() if k != "ptm" and v.ndim > 0})[0].splitlines()
    lines = made[i].pdb.splitlines()
    assert len(lines) == len(plain)
    for ours, theirs in zip(lines, plain, strict=True):
        if ours.startswith("ATOM"):
            assert ours[:30] == theirs[:30]
            positions = [[float(line[a : a + 8]) for a in (30, 38, 46)] for line in (ours, theirs)]
            assert np.allclose(*positions, atol=0.0021)
            assert float(ours[60:66]) == pytest.approx(100 * float(theirs[60:66]), abs=0.51)
        else:
            assert ours == theirs  # PARENT, TER at the last residue of the chain, END
    ca = [float(line[60:66]) for line in lines if line[12:16] == " CA "]
    assert np.allclose(ca, made[i].residues, atol=0.0051)


def test_recycles_and_chunks(folder: Path, made: list[Folded]) -> None:
    own = EsmFold.load(folder, CPU, chunk=2)
    assert own.passes == 1
    close(own.fold(SEQUENCES)[0].residues, made[0].residues)
    same = EsmFold.load(folder, CPU, recycles=0)
    assert same.passes == 1
    close(same.fold(SEQUENCES)[0].residues, made[0].residues)
    more = EsmFold.load(folder, CPU, recycles=1)
    assert more.passes == 2 and np.abs(more.fold(SEQUENCES)[0].residues - made[0].residues).max() > 0.1


def test_batches_are_sorted_and_within_the_budget() -> None:
    lengths = [300, 20, 500, 1500, 30, 480]
    made = list(batches(lengths, 1024))
    assert [i for batch in made for i in batch] == [1, 4, 0, 5, 2, 3]
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 1024 for batch in made)


@dataclass
class Crowded:
    """A predictor that needs memory for L times L times chunk, and remembers what it was asked."""

    room: int
    name: str = "crowded"
    chunk: int = 128
    calls: list[tuple[int, int]] = field(default_factory=list)

    def fold(self, sequences: Sequence[str]) -> list[Folded]:
        self.calls.append((len(sequences), self.chunk))
        if len(sequences) * max(map(len, sequences)) * self.chunk > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate everything")
        return [Folded(80.0, 80.0, 0.5, np.full(len(s), 80.0), np.zeros((len(s), len(s))), s) for s in sequences]


def test_out_of_memory_is_retried_smaller_then_given_up_for_one_design() -> None:
    folder, told = Crowded(room=1280), []
    made = fold_within_memory(folder, ["A" * 10, "C" * 30, "D" * 10_000], told.append)
    assert [None if m is None else len(m.pdb) for m in made] == [10, 30, None]
    assert folder.chunk == 128 and (1, 32) in folder.calls and (1, 4) in folder.calls
    assert told[0] == "out of memory with 3 sequences of up to 10000: one by one"


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    class Broken(Crowded):
        def fold(self, sequences: Sequence[str]) -> list[Folded]:
            raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError, match="index out of range"):
        fold_within_memory(Broken(1), ["A"])


def test_esmfold2_is_on_the_same_scale_and_seeded_per_sequence(tmp_path: Path) -> None:
    network = EsmFold2.load(fold2_folder(tmp_path), CPU)
    first, second = network.fold(["MKTAYIAK", "GGW"])
    again = network.fold(["GGW"])[0]
    assert again.pdb == second.pdb and again.ptm == second.ptm
    assert first.residues.shape == (8,) and 1 < first.plddt <= 100 and 0 <= first.ptm <= 1
    ca = [float(line[60:66]) for line in first.pdb.splitlines() if line[12:16] == " CA "]
    assert np.allclose(ca, first.residues, atol=0.0051)
    with pytest.raises(InputError, match="is not an ESMFold2: its config.json says model_type=esm"):
        EsmFold2.load(write_folder_of_esm(tmp_path / "esm"), CPU)


def write_folder_of_esm(folder: Path) -> Path:
    folder.mkdir()
    return write_folder(folder, random_model())


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an ESMFold .model_type=esm, is_folding_model=False"):
        EsmFold.load(write_folder_of_esm(tmp_path / "esm"), CPU)
    mixed = write_folder_of_esm(tmp_path / "mixed")
    (mixed / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(InputError, match="holds weights of another model: .* tensors are not in it"):
        EsmFold.load(mixed, CPU)
    with pytest.raises(InputError, match="there is no config.json in it"):
        EsmFold.load(tmp_path, CPU)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match="the model cannot be loaded"):
        EsmFold.load(tmp_path, CPU)


def chosen(folder: Path | None, **keys: Any) -> str:
    settings = ProteinScoring(**keys)
    return choose(settings, folder, CPU, [40, 60]).reason


def test_auto_says_in_one_line_what_it_does_and_why(folder: Path) -> None:
    assert "takes about" in chosen(folder) and "for 2 designs on the CPU, by a measured step" in chosen(folder)
    told = chosen(folder, hours=0.0)
    assert "fold=auto: none, because it would take about" in told and "hours=0 is the limit, no GPU is here" in told
    assert "none, because the weights of facebook/esmfold_v1 are not on this machine" in chosen(None)
    assert "there is no GPU" in chosen(None) and "fold=esmfold fetches them" in chosen(None)
    assert all("\n" not in chosen(place) for place in (folder, None))


def test_auto_never_fetches_and_esmfold_tells_of_a_hub_it_cannot_reach() -> None:
    assert model_folder(ProteinScoring()) is None
    assert model_folder(ProteinScoring(fold="none")) is None
    with pytest.raises(InputError, match="fold_model=facebook/esmfold_v1 is not here, and the hub cannot be reached"):
        model_folder(ProteinScoring(fold="esmfold"))
    with pytest.raises(InputError, match="fold_model=nowhere: there is no such file or folder"):
        model_folder(ProteinScoring(fold_model="nowhere"))


def test_a_path_that_looks_like_a_hub_id_says_what_its_folder_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match=r"runs/fold is not here \(the folder runs has no fold\), and the hub cannot"):
        model_folder(ProteinScoring(fold="esmfold", fold_model="runs/fold"))


def test_the_estimate_grows_with_length_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

    @dataclass
    class Slow(Crowded):
        def fold(self, sequences: Sequence[str]) -> list[Folded]:
            clock[0] += 0.25 * sum(map(len, sequences))
            return []

    assert estimate(Slow(1), [48]) == pytest.approx(0.25 * 48)
    assert estimate(Slow(1), [48] * 10) == pytest.approx(10 * 0.25 * 48)
    assert estimate(Slow(1), [192]) == pytest.approx(32 * 0.25 * 48)  # one of 48 was folded; 4 ** 2.5
    assert (duration(0.001), duration(0.5), duration(30)) == ("4 s", "30 min", "30.0 h")


def test_a_structure_without_numbers_is_not_taken_for_one() -> None:
    assert not Folded(float("nan"), 1.0, 0.5, np.ones(2), np.ones((2, 2)), "").finite
    assert Folded(1.0, 1.0, 0.5, np.ones(2), np.ones((2, 2)), "").finite
