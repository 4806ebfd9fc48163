"""Couples noise to the sequences of a fixed set, so that like sequences are given like noise.

A student that reads noise z can write several kinds of sequences in one call if z says which kind. A coupling says so
for the sequences that it learns from: each has a z of its own, and all of these together are independent normal draws,
as those of a sampler will be. That is the coupling of data and noise of Pooladian et al. 2023 ("Multisample flow
matching", arXiv 2304.14772), with halving in the place of an assignment solver, so that it needs S log S steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.types import Denoiser


def mean_features(denoiser: Denoiser, tokens: Int[Tensor, "S L"], rows: int) -> Float[Tensor, "S D"]:
    """Mean hidden state of each sequence over the positions that a sampler writes, on the CPU; ``rows`` at a time."""
    found = []
    for part in tokens.split(rows):
        written = denoiser.vocabulary.maskable(part)[..., None]
        hidden = denoiser.trunk(part).float()
        found.append((hidden * written).sum(1) / written.sum(1).clamp_min(1))
    return torch.cat(found).cpu()


def coupled(
    features: Float[Tensor, "S D"], sizes: Int[Tensor, "S"], group: int, noise: Float[Tensor, "S Z"]
) -> Float[Tensor, "S Z"]:
    """The rows of ``noise`` in the order in which the sequences have them.

    Sequences of about one size, ``group`` at a time, share a part of the noise: what a sampler writes at a given length
    is told apart by noise alone. Of a group, the sequences that are alike in the first Z principal components of the
    features have noise that is alike (``halved``).

    Args:
        sizes: number of positions to write of each sequence. Equal ones are kept in their order.
    """
    made, groups = torch.empty_like(noise), torch.argsort(sizes, stable=True).split(group)
    centred = features.double().clone()
    for members in groups:
        centred[members] -= centred[members].mean(0)
    components = centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : noise.shape[1]]
    for members in groups:
        own, drawn = halved(components[members]), halved(noise[members])
        made[members[own]] = noise[members[drawn]]
    return made


def halved(points: Float[Tensor, "N Z"]) -> Int[Tensor, "N"]:
    """An order of the points: below and above the median of the first coordinate, each half by the second, and so on.

    Two sets in their orders are matched cell by cell, so that neighbours of the one are neighbours in the other.
    """

    def order(members: Tensor, depth: int) -> list[Tensor]:
        if len(members) < 2:
            return [members]
        ranked = members[torch.argsort(points[members, depth % points.shape[1]], stable=True)]
        half = len(ranked) // 2
        return order(ranked[:half], depth + 1) + order(ranked[half:], depth + 1)

    return torch.cat(order(torch.arange(len(points)), 0))
