"""Make ``features.npz``, the reference of the energy distance, for a new teacher: ``python -m didi_toy.bundle``."""

from __future__ import annotations

from didi_core.metrics.energy import FeatureReference
from didi_core.metrics.features import TrunkFeatures
from didi_core.sequences import BUNDLED

from .domain import ToyDomain, asset

SEQUENCES = 2000


def main() -> None:
    """Write features of fresh draws from the default chain, which are not held-out data, under the bundled teacher."""
    domain = ToyDomain()
    features = TrunkFeatures(domain.teacher(BUNDLED), domain.encode)
    drawn = domain.held_out(SEQUENCES, seed=-1)
    FeatureReference.fit(features(drawn)).save(asset("features.npz"))


if __name__ == "__main__":
    main()
