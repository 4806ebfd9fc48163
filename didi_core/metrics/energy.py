"""Energy distance between samples and a reference in the features of a frozen model, as a function of means.

The energy distance of vectors is 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely and Rizzo 2013). Up to a constant it is
the mean over directions of the distances of their projections, and in one dimension it is 2 * integral of (F - G)^2. F
is a mean of indicators, so a sample's statistics are indicators, which is all that intervals, merging and caching need.
The distance is zero only for equal distributions, whereas Fréchet's distance compares only two moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import nn

from didi_core.metrics.features import TrunkFeatures, digest
from didi_core.metrics.samples import Better
from didi_core.storage.files import write_atomic
from didi_core.streams import derive_seed
from didi_core.types import Sample

DIRECTIONS, POINTS, MARGIN = 32, 32, 0.5


@dataclass(frozen=True)
class FeatureReference:
    """The stored data of a reference: mean and scale, and the distribution functions of its projections.

    Features are standardised, so that no single one dominates. Directions are uniform on the sphere.
    """

    mean: Float[np.ndarray, "D"]
    scale: Float[np.ndarray, "D"]
    thresholds: Float[np.ndarray, "M T"]
    cdf: Float[np.ndarray, "M T"]
    seed: int = 0

    @classmethod
    def fit(cls, features: Float[np.ndarray, "m D"], seed: int = 0) -> FeatureReference:
        """The reference for features of reference samples."""
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        projected = ((features - mean) / scale) @ _directions(features.shape[1], seed).T
        low, high = projected.min(axis=0), projected.max(axis=0)
        room = MARGIN * (high - low)
        thresholds = np.linspace(low - room, high + room, POINTS, axis=1)
        cdf = (projected[:, :, None] <= thresholds).mean(axis=0)
        return cls(mean, scale, thresholds, cdf, seed)

    @cached_property
    def directions(self) -> Float[np.ndarray, "M D"]:
        return _directions(len(self.mean), self.seed)

    @cached_property
    def spread(self) -> float:
        """Mean over directions of the integral of G (1 - G): half the mean distance of two reference samples."""
        return float((self.cdf * (1 - self.cdf) * self.widths).sum(1).mean())

    @cached_property
    def widths(self) -> Float[np.ndarray, "M 1"]:
        """Distance between neighbouring thresholds."""
        return self.thresholds[:, 1:2] - self.thresholds[:, :1]

    @property
    def identity(self) -> str:
        return digest(self.mean, self.scale, self.thresholds, self.cdf)

    def save(self, path: Path) -> None:
        """Write an npz file, complete or absent."""

        def save(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez_compressed(
                    file, mean=self.mean, scale=self.scale, thresholds=self.thresholds, cdf=self.cdf, seed=self.seed
                )

        write_atomic(path, save)

    @classmethod
    def load(cls, path: Path) -> FeatureReference:
        with np.load(path) as found:
            return cls(found["mean"], found["scale"], found["thresholds"], found["cdf"], int(found["seed"]))


@dataclass(frozen=True)
class EnergyDistance:
    """Energy distance over the mean distance of two reference samples: 0 for equal distributions.

    Statistics: [n, M * T] indicators ``projection <= threshold``. The bootstrap subtracts the bias.
    """

    features: TrunkFeatures = field(repr=False)
    fit: Callable[[], FeatureReference] = field(repr=False)
    name: str = "energy"
    label: str = "energy distance"
    better: Better = "lower"
    minimum: int = 20
    biased: bool = True

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The denoiser behind the features."""
        return (self.features.denoiser,)

    @property
    def description(self) -> str:
        size = sum(p.numel() for p in self.features.denoiser.parameters())
        return (
            f"of mean hidden states of a frozen denoiser ({size / 1e6:.1f} M parameters, not the judge) from the "
            "reference's, over the reference's own mean distance"
        )

    @cached_property
    def reference(self) -> FeatureReference:
        return self.fit()

    @property
    def identity(self) -> str:
        """Everything on which the statistics of a sample depend."""
        return f"{self.features.identity} {self.reference.identity}"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, M * T]."""
        known = self.reference
        features = self.features(samples)
        projected = ((features - known.mean) / known.scale) @ known.directions.T
        below = (projected[:, :, None] <= known.thresholds).reshape(len(samples), -1).astype(np.float64)
        below[np.isnan(projected).any(axis=1)] = np.nan
        return below

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        known = self.reference
        gap = means.reshape(*means.shape[:-1], *known.cdf.shape) - known.cdf
        return np.asarray((gap**2 * known.widths).sum(-1).mean(-1) / known.spread)


def _directions(width: int, seed: int) -> Float[np.ndarray, "M D"]:
    drawn = np.random.default_rng(derive_seed(seed, "energy directions")).standard_normal((DIRECTIONS, width))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
