"""Two structures of the same residues laid on each other: RMSD, and the TM-score of Zhang and Skolnick (2004)."""

from __future__ import annotations

import numpy as np
from Bio.SVDSuperimposer import SVDSuperimposer
from jaxtyping import Float

ROUNDS = 20  # of refining a superposition
SHORTEST, STARTS = 4, 50  # residues of the smallest fragment that a superposition begins from, places tried of a size


def superpose(
    mobile: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Rotation and shift that lay ``mobile`` on ``target`` with the least RMSD: ``mobile @ rotation + shift``."""
    fit = SVDSuperimposer()
    fit.set(target, mobile)
    fit.run()
    return fit.get_rotran()


def rmsd(one: Float[np.ndarray, "N 3"], other: Float[np.ndarray, "N 3"]) -> float:
    """Root mean square distance of corresponding points after superposition, in their unit."""
    rotation, shift = superpose(one, other)
    return float(np.sqrt(((one @ rotation + shift - other) ** 2).sum(axis=1).mean()))


def tm_score(one: Float[np.ndarray, "L 3"], other: Float[np.ndarray, "L 3"]) -> float:
    """TM-score of CA atoms that correspond one to one, over the length L: 1 for the same structure.

    The largest over superpositions, each begun from a fragment and refined on the residues that it brings near, as in
    the program TMscore; its value is found to about 0.001. Above 0.5 two structures have the same fold.
    """
    length = len(one)
    if length < 3:
        return 1.0
    scale = max(1.24 * max(length - 15, 0) ** (1 / 3) - 1.8, 0.5)
    near = min(max(scale, 4.5), 8.0)
    best = 0.0
    for size in _sizes(length):
        step = (length - size) // STARTS + 1
        for start in range(0, length - size + 1, step):
            best = max(best, _refined(one, other, np.arange(start, start + size), scale, near))
    return best


def _sizes(length: int) -> list[int]:
    """Lengths of fragments: all, a half, a quarter ... at least SHORTEST."""
    sizes: list[int] = []
    size = length
    while size > SHORTEST and len(sizes) < 6:
        sizes.append(size)
        size //= 2
    return [*sizes, min(SHORTEST, length)]


def _refined(
    one: Float[np.ndarray, "L 3"], other: Float[np.ndarray, "L 3"], chosen: np.ndarray, scale: float, near: float
) -> float:
    """The best score on the way from superposing the chosen residues to superposing those that lie near."""
    best = 0.0
    for round_ in range(ROUNDS):
        rotation, shift = superpose(one[chosen], other[chosen])
        distances = np.sqrt(((one @ rotation + shift - other) ** 2).sum(axis=1))
        best = max(best, float((1 / (1 + (distances / scale) ** 2)).mean()))
        within = near - 1 if round_ == 0 else near + 1
        found = np.flatnonzero(distances < within)
        while len(found) < 3:  # fewer do not fix a superposition
            within += 0.5
            found = np.flatnonzero(distances < within)
        if np.array_equal(found, chosen):
            break
        chosen = found
    return best
