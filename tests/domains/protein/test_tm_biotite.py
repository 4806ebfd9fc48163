"""TM-scores beside biotite's, where it is installed: its formula at every superposition tried, and its own search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from score_folder import bundle

from didi_protein.structures import superposition
from didi_protein.structures.superposition import tm_score

structure = pytest.importorskip("biotite.structure", reason="pip install biotite")


def atoms(ca: np.ndarray) -> Any:
    """CA atoms of a chain of alanines."""
    made = structure.AtomArray(len(ca))
    made.coord, made.res_id = ca.astype(np.float32), np.arange(1, len(ca) + 1)
    made.atom_name[:], made.res_name[:], made.element[:], made.chain_id[:] = "CA", "ALA", "C", "A"
    return made


def theirs(one: np.ndarray, other: np.ndarray) -> float:
    """Their score of two structures as they lie."""
    order = np.arange(len(one))
    return float(structure.tm_score(atoms(other), atoms(one), order, order))


def bent(ca: np.ndarray, degrees: float) -> np.ndarray:
    """The last third turned about the axis z through its first residue."""
    turn, hinge, moved = np.radians(degrees), 2 * len(ca) // 3, ca.copy()
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    moved[hinge:] = (ca[hinge:] - ca[hinge]) @ rotation + ca[hinge]
    return moved


@pytest.mark.parametrize("length", [12, 20])
def test_the_score_is_theirs_at_the_best_superposition_tried(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = bundle(length, np.random.default_rng(0))
    moved = bent(ca, 60) + np.random.default_rng(1).normal(size=ca.shape)
    tried = []
    real = superposition.superpose
    monkeypatch.setattr(superposition, "superpose", lambda *pair: tried.append(real(*pair)) or tried[-1])
    ours = tm_score(moved, ca)
    assert ours < 0.99 and len(tried) > 10
    assert ours == pytest.approx(max(theirs(moved @ rotation + shift, ca) for rotation, shift in tried), abs=1e-5)


@pytest.mark.parametrize("degrees", [0, 20, 40, 60])
def test_their_search_finds_no_better_superposition(degrees: float) -> None:
    ca = bundle(120, np.random.default_rng(0))
    moved = bent(ca, degrees) + np.random.default_rng(1).normal(size=ca.shape) / 2
    found, *_ = structure.superimpose_structural_homologs(atoms(ca), atoms(moved))
    assert theirs(found.coord, ca) <= tm_score(moved, ca) + 1e-4
