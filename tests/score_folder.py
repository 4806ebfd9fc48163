"""A score folder with designs of known scores and structures, for the tests of what reads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from Bio.Data.PDBData import protein_letters_1to3

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def bundle(length: int, rng: np.random.Generator) -> np.ndarray:
    """CA positions [L, 3] of a bundle of helices joined by loops: 1.5 A rise and 100 degrees a residue."""
    points, per = [], 22
    for i in range(length):
        helix, at = divmod(i, per)
        rise = 1.5 * (at if helix % 2 == 0 else per - at)
        turn = np.deg2rad(100) * at
        x, y = 10 * (helix % 3), 10 * (helix // 3)
        points.append([x + 2.3 * np.cos(turn), y + 2.3 * np.sin(turn), rise])
    return np.array(points) + rng.normal(0, 0.15, (length, 3))


def pdb_text(sequence: str, atoms: np.ndarray, plddt: np.ndarray) -> str:
    lines = ["PARENT N/A"]
    for i, (letter, (x, y, z), value) in enumerate(zip(sequence, atoms, plddt, strict=True), start=1):
        name = protein_letters_1to3[letter].strip()
        lines.append(
            f"ATOM  {i:5d}  CA  {name:>3s} A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{value:6.2f}           C  "
        )
    return "\n".join([*lines, "TER", "END", ""])


def score_folder(folder: Path, count: int = 40, folded: bool = True, seed: int = 0) -> Path:
    """Designs of two models at 4 to 32 steps. A longer sampling gives a higher pLDDT, the student a higher one yet."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        length, steps = int(rng.integers(50, 180)), 2 ** int(rng.integers(2, 6))
        model = ("student", "teacher")[number % 2]
        sequence = "".join(rng.choice(list(RESIDUES), length))
        row: dict[str, Any] = {"id": f"design_{number + 1}", "sequence": sequence, "model": model, "steps": steps}
        row |= {"nn_identity": float(rng.uniform(0.05, 0.9)), "low_complexity": float(rng.uniform(0, 0.2))}
        row |= {"longest_run": int(rng.integers(1, 5)), "gravy": float(rng.normal(0, 0.4))}
        if folded:
            level = 55 + 4 * np.log2(steps) + 6 * (model == "student") + rng.normal(0, 8)
            wave = 14 * np.sin(np.arange(length) / 9 + rng.uniform(0, 6))
            plddt = np.clip(level + wave + rng.normal(0, 2, length), 20, 98)
            row |= {"plddt": float(plddt.mean()), "ptm": float(plddt.mean() / 115)}
            row["plddt_per_residue"] = [round(float(v), 2) for v in plddt]
            (folder / "pdb").mkdir(parents=True, exist_ok=True)
            (folder / "pdb" / f"{row['id']}.pdb").write_text(pdb_text(sequence, bundle(length, rng), plddt))
        rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
