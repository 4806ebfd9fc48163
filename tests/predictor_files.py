"""Structures and confidences in the layouts that predictors document, with made-up numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from Bio.PDB.mmcifio import MMCIFIO
from Bio.PDB.PDBParser import PDBParser
from score_folder import bundle

from didi_protein.structures.atoms import Chain, pdb_text


def chain(sequence: str, seed: int = 0, name: str = "A") -> Chain:
    """N, CA, C and O of a bundle of helices."""
    rng = np.random.default_rng(seed)
    ca = bundle(len(sequence), rng)
    shifts = np.array([[-1.2, 0.6, -0.5], [0, 0, 0], [1.1, 0.9, 0.3], [1.0, 2.1, 0.4]])
    atoms = (ca[:, None] + shifts + rng.normal(0, 0.05, (len(sequence), 4, 3))).reshape(-1, 3)
    count = len(atoms)
    return Chain(
        name, sequence, tuple(str(i + 1) for i in range(len(sequence))), ("N", "CA", "C", "O") * len(sequence),
        ("N", "C", "C", "O") * len(sequence), np.repeat(np.arange(len(sequence)), 4), atoms,
        np.zeros(count), np.arange(count),
    )  # fmt: skip


def confidence(sequence: str, seed: int = 0) -> np.ndarray:
    """pLDDT of each residue, 0 to 100, two decimals."""
    return np.random.default_rng(seed + 1000).uniform(55, 97, len(sequence)).round(2)


def text_of(chains: Sequence[Chain], residues: Sequence[np.ndarray]) -> str:
    return pdb_text(chains, [np.repeat(values, 4) for values in residues])


def write_structure(path: Path, sequences: Sequence[str], scale: float = 1.0, seed: int = 0) -> None:
    """PDB or, by its suffix, mmCIF; B-factors are the confidence times ``scale``, or zero."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text_of([chain(s, seed + i) for i, s in enumerate(sequences)],
                   [confidence(s, seed + i) * scale for i, s in enumerate(sequences)])  # fmt: skip
    if path.suffix == ".pdb":
        path.write_text(text)
        return
    writer = MMCIFIO()
    writer.set_structure(PDBParser(QUIET=True).get_structure("x", io.StringIO(text)))
    writer.save(str(path))


def _json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values))


def boltz(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    place = folder / "predictions" / name
    write_structure(place / f"{name}_model_{sample}.cif", sequences, seed=sample)
    size = sum(map(len, sequences))
    _json(
        place / f"confidence_{name}_model_{sample}.json", confidence_score=score, ptm=score - 0.1, iptm=score - 0.2,
        complex_plddt=0.75, chains_ptm={"0": 0.7}, pair_chains_iptm={"0": {"0": 0.7}},
    )  # fmt: skip
    np.savez(place / f"pae_{name}_model_{sample}.npz", pae=np.full((size, size), 4.0 + sample))


def chai(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    write_structure(folder / name / f"pred.model_idx_{sample}.cif", sequences, seed=sample)
    np.savez(
        folder / name / f"scores.model_idx_{sample}.npz", aggregate_score=np.array([score]),
        ptm=np.array([score - 0.1]), iptm=np.array([score - 0.2]), has_inter_chain_clashes=np.array([False]),
    )  # fmt: skip


def protenix(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    place = folder / name / "seed_101" / "predictions"
    write_structure(place / f"{name}_sample_{sample}.cif", sequences, seed=sample)
    _json(
        place / f"{name}_summary_confidence_sample_{sample}.json", plddt=76.0, gpde=0.9, ptm=score - 0.1,
        iptm=score - 0.2, ranking_score=score, has_clash=0.0, disorder=0.0, num_recycles=10,
    )  # fmt: skip


def openfold3(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    """Without confidences in the mmCIF: they lie beside, atom by atom."""
    place, stem = folder / name / "seed_42", f"{name}_seed_42_sample_{sample}"
    write_structure(place / f"{stem}_model.cif", sequences, scale=0.0, seed=sample)
    atoms = np.concatenate([np.repeat(confidence(s, sample + i), 4) for i, s in enumerate(sequences)])
    _json(place / f"{stem}_confidences.json", plddt=atoms.tolist(), gpde=1.0)
    _json(
        place / f"{stem}_confidences_aggregated.json", avg_plddt=76.0, gpde=1.0, ptm=score - 0.1, iptm=score - 0.2,
        sample_ranking_score=score,
    )  # fmt: skip


def colabfold(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    """Rank 1 is the best."""
    rest = f"rank_{sample + 1:03d}_alphafold2_ptm_model_{3 - sample}_seed_000"
    write_structure(folder / f"{name}_unrelaxed_{rest}.pdb", sequences, seed=sample)
    size = sum(map(len, sequences))
    _json(
        folder / f"{name}_scores_{rest}.json", plddt=[70.0] * size, max_pae=20.0, pae=[[4.0] * size] * size,
        ptm=score - 0.1, **({"iptm": score - 0.2} if len(sequences) > 1 else {}),
    )  # fmt: skip


def alphafold3(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    """A sample in its own folder, and the best one again at the top."""
    run = f"seed-1_sample-{sample}"
    places = [(folder / name / run, f"{name}_{run}"), *([] if sample else [(folder / name, name)])]
    for place, stem in places:
        write_structure(place / f"{stem}_model.cif", sequences, seed=sample)
        _json(place / f"{stem}_summary_confidences.json", ptm=score - 0.1, iptm=None if len(sequences) == 1 else
              score - 0.2, ranking_score=score, fraction_disordered=0.0, has_clash=0.0)  # fmt: skip
        size = sum(map(len, sequences))
        _json(place / f"{stem}_confidences.json", pae=[[4.0] * size] * size, atom_plddts=[70.0] * size)


def server(folder: Path, name: str, sequences: Sequence[str], sample: int = 0, score: float = 0.8) -> None:
    place = folder / f"fold_{name}"
    write_structure(place / f"fold_{name}_model_{sample}.cif", sequences, seed=sample)
    _json(place / f"fold_{name}_summary_confidences_{sample}.json", ptm=score - 0.1, ranking_score=score)


Writer = Callable[..., None]
WRITERS: dict[str, Writer] = {
    "boltz": boltz, "chai": chai, "protenix": protenix, "openfold3": openfold3, "colabfold": colabfold,
    "alphafold3": alphafold3, "server": server,
}  # fmt: skip
