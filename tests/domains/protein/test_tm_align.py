"""TM-scores beside TM-align's, where the package tmtools is installed: structures of its own, moved in many ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from didi_protein.structures.superposition import rmsd, tm_score

tmtools = pytest.importorskip("tmtools", reason="pip install tmtools (GPL-3, which is why no extra names it)")


@pytest.fixture(scope="module")
def known() -> tuple[np.ndarray, str]:
    """CA atoms and letters of a chain of a haemoglobin, 147 residues."""
    from tmtools.io import get_residue_data, get_structure
    from tmtools.testing import get_pdb_path

    atoms, letters = get_residue_data(next(get_structure(get_pdb_path("2gtl")).get_chains()))
    return np.asarray(atoms, dtype=np.float64), letters


def shaken(atoms: np.ndarray, size: float) -> np.ndarray:
    return atoms + np.random.default_rng(0).normal(size=atoms.shape) * size


def bent(atoms: np.ndarray, degrees: float) -> np.ndarray:
    """The second half turned about the axis z through its first residue."""
    turn, half, moved = np.radians(degrees), len(atoms) // 2, atoms.copy()
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    moved[half:] = (atoms[half:] - atoms[half]) @ rotation.T + atoms[half]
    return moved


@pytest.mark.parametrize(
    ("move", "amount", "bound"), [(shaken, 0.5, 1e-4), (shaken, 1.0, 1e-4), (bent, 10, 2e-3), (bent, 20, 2e-3)]
)
@pytest.mark.parametrize("length", [60, 147])
def test_scores_are_those_of_tm_align(
    known: tuple[np.ndarray, str],
    move: Callable[[np.ndarray, float], np.ndarray],
    amount: float,
    bound: float,
    length: int,
) -> None:
    """Where it pairs the same residues; it searches for pairs, and both search for the superposition."""
    atoms, letters = known[0][:length], known[1][:length]
    moved = move(atoms, amount) @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + [10, -5, 3]
    theirs = tmtools.tm_align(moved, atoms, letters, letters)
    assert theirs.seqxA == theirs.seqyA == letters
    assert tm_score(moved, atoms) == pytest.approx(theirs.tm_norm_chain2, abs=bound)
    assert rmsd(moved, atoms) == pytest.approx(theirs.rmsd, abs=1e-4)
