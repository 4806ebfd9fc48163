"""Make the package's assets from training runs and data: ``python -m didi_protein.bundle --data FASTA --teacher DIR
--judge DIR``.

The assets are derived from the data (weights, counts, per-sample statistics) but contain no natural sequence. In
reports, statistics of the held-out sequences under every metric replace the sequences themselves.
``benchmarks/bundle.py`` calls this, and adds assets from the teacher's samples.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from didi_core.checkpoints.card import CARD, MODEL, amend_card
from didi_core.evaluation.held_out import save_reference
from didi_core.metrics.features import TrunkFeatures
from didi_core.sequences import BUNDLED

from .domain import REFERENCE, ProteinDomain, asset
from .statistics import BundledStatistics


def main() -> None:
    """Copy the networks, count the training split, measure the held-out split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="FASTA file that teacher and judge were trained on")
    parser.add_argument("--teacher", required=True, type=Path, help="folder with model.safetensors and card.json")
    parser.add_argument("--judge", required=True, type=Path, help="folder with model.safetensors and card.json")
    parser.add_argument("--source", required=True, help="attribution of the data, for statistics and cards")
    parser.add_argument("--similarity", type=float, default=1.0, help="data.similarity of the training runs")
    given = parser.parse_args()
    for name in ("teacher", "judge"):
        shutil.rmtree(asset(name), ignore_errors=True)
        asset(name).mkdir(parents=True)
        for file in (MODEL, CARD):
            shutil.copyfile(getattr(given, name) / file, asset(name) / file)
        amend_card(asset(name), data_attribution=given.source, licence="Apache-2.0")
    domain = ProteinDomain(given.data, similarity=given.similarity)
    BundledStatistics.of(domain.training_set(), given.source).save(asset("statistics.json"))
    domain.feature_reference(TrunkFeatures(domain.teacher(BUNDLED), domain.encode)).save(asset("features.npz"))
    save_reference(asset(REFERENCE), ProteinDomain(), domain.splits["validation"])


if __name__ == "__main__":
    main()
