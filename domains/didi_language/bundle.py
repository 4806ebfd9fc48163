"""Make the package's assets: ``python -m didi_language.bundle --data TEXT --teacher DIR --judge DIR --source WORDS``.

``tokenizer/tokenizer.json`` comes first, from ``--tokenizer SIZE`` alone, because teacher and judge are trained with
it. The assets are derived from the data (weights, statistics) but contain no natural text. The statistics are those of
pieces of documents that neither network saw. ``benchmarks/bundle.py`` calls this, and adds assets from the teacher's
samples.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from didi_core.checkpoints.card import CARD, MODEL, OF_THE_FILES, amend_card
from didi_core.checkpoints.judge import load_judge, save_judge
from didi_core.evaluation.held_out import save_reference
from didi_core.metrics.features import TrunkFeatures
from didi_core.storage.files import read_json, write_atomic

from .assets import asset
from .domain import REFERENCE, LanguageDomain
from .packing import SPLITS
from .settings import LanguageSettings
from .tokenizer import FILE, train_tokenizer

HELD_OUT = 512  # blocks whose statistics are in the package


def halve_judge(folder: Path) -> None:
    """Keep a judge's weights in 16 bits, which halves its file; it computes in 32 bits as before."""
    about = {key: value for key, value in read_json(folder / CARD).items() if key not in OF_THE_FILES}
    save_judge(folder, load_judge(folder).half(), {**about, "stored": "float16"})


def bundle_tokenizer(data: Path, size: int) -> None:
    """A byte-level BPE of ``size`` tokens from the training documents; 257 means bytes and the end token only."""
    settings = LanguageSettings(path=(str(data),))
    source = settings.source
    if source is None:
        raise ValueError("settings with a path have a source")
    documents = (text for split, text in settings.held.split(source.read()) if split == SPLITS[0])
    write_atomic(asset("tokenizer") / FILE, train_tokenizer(documents, size).to_str() + "\n")


def main() -> None:
    """Tokenizer, or everything else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="text file that teacher and judge were trained on")
    parser.add_argument("--tokenizer", type=int, help="train the tokenizer of so many tokens, and stop")
    parser.add_argument("--teacher", type=Path, help="folder with model.safetensors and card.json")
    parser.add_argument("--judge", type=Path, help="folder with model.safetensors and card.json")
    parser.add_argument("--source", help="attribution of the data, for the cards")
    given = parser.parse_args()
    if given.tokenizer is not None:
        bundle_tokenizer(given.data, given.tokenizer)
        return
    if not (given.teacher and given.judge and given.source):
        parser.error("give --teacher, --judge and --source, or --tokenizer alone")
    for name in ("teacher", "judge"):
        shutil.rmtree(asset(name), ignore_errors=True)
        asset(name).mkdir(parents=True)
        for file in (MODEL, CARD):
            shutil.copyfile(getattr(given, name) / file, asset(name) / file)
    halve_judge(asset("judge"))
    with_data = LanguageDomain(LanguageSettings(path=(str(given.data),)))
    domain = LanguageDomain()
    features = TrunkFeatures(domain.teacher(), domain.encode)
    with_data.feature_reference(features).save(asset("features.npz"))
    save_reference(asset(REFERENCE), LanguageDomain(), with_data.held_out(HELD_OUT, 0))
    for name in ("teacher", "judge"):
        amend_card(asset(name), data_attribution=given.source, licence="Apache-2.0")


if __name__ == "__main__":
    main()
