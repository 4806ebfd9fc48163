"""What the package carries for text, and the way it is made."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from didi_core.checkpoints.card import save_model
from didi_core.checkpoints.judge import save_judge
from didi_core.errors import InputError
from didi_core.evaluation.cache import SampleCache
from didi_core.evaluation.held_out import reference_rows
from didi_core.evaluation.measure import all_metrics
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.sampling.generate import SamplerSettings
from didi_core.storage.files import sha256
from didi_core.storage.fingerprint import model_hash
from didi_language import LanguageDomain, bundle
from didi_language.assets import asset
from didi_language.settings import LanguageSettings

NETWORKS = [asset("teacher"), asset("judge")]
bundled = pytest.mark.skipif(not all(folder.exists() for folder in NETWORKS), reason="teacher or judge is not bundled")


@bundled
def test_networks_are_those_of_their_cards_and_say_where_they_come_from() -> None:
    for folder in NETWORKS:
        card = json.loads((folder / "card.json").read_text())
        assert card["sha256"]["model.safetensors"] == sha256(folder / "model.safetensors")
        assert card["data_attribution"] and card["licence"] and card["trained"] and card["git_commit"]
        assert list(card["validation"])[-1] == str(card["training"]["steps"])  # the schedule came to its end
    assert sum(p.stat().st_size for p in asset("").rglob("*") if p.is_file()) < 25e6


@bundled
def test_calls_matter_to_the_teacher() -> None:
    plain, best, *others = json.loads((asset("teacher") / "card.json").read_text())["steps_matter"]
    assert (plain["law"], best["law"]) == ("iid", "dilated")
    for curve in (plain["by_steps"], best["by_steps"]):
        many, four, one = (curve[steps]["perplexity"][0] for steps in ("64", "4", "1"))
        assert 1.5 * many < four < one / 1.5
    for other in others:
        for steps, row in other["by_steps"].items():
            assert row["perplexity"][0] > best["by_steps"][steps]["perplexity"][0]


@bundled
def test_a_default_run_finds_the_samples_of_the_bundled_teacher() -> None:
    (file,) = asset("samples").glob("*.jsonl")
    making = json.loads(file.read_text().partition("\n")[0])["making"]
    assert making["model"] == model_hash(LanguageDomain().teacher())
    assert SampleCache(asset("samples")).path(making) == file
    assert making["settings"] == SamplerSettings(steps=64).record()


@bundled
def test_the_judge_tells_text_from_its_controls() -> None:
    domain = LanguageDomain()
    rows, _ = reference_rows(domain, domain.metrics()[:2], 512, resamples=20)
    quality = {row.model: row.values["perplexity"].value for row in rows}
    assert quality["held-out data"] * 2 < min(quality["shuffled"], quality["random"])


@bundled
def test_no_natural_text_is_bundled() -> None:
    with pytest.raises(InputError, match="no text to train on: set data.path"):
        LanguageDomain().held_out(3)
    assert not list(asset("").glob("*.jsonl"))


@bundled
def test_statistics_are_left_out_where_they_would_not_compare() -> None:
    assert LanguageDomain(LanguageSettings(length=128)).reference_statistics() is None
    known = LanguageDomain().reference_statistics() or {}
    assert list(known) == ["held-out data", "shuffled", "random", "repeats"]
    assert {name for row in known.values() for name in row} == {metric.name for metric in all_metrics(LanguageDomain())}
    other = LanguageDomain(LanguageSettings(judge=str(asset("judge")))).reference_statistics() or {}
    assert {*known["shuffled"]} - {*other["shuffled"]} == {"perplexity"}


def test_the_bundler_makes_a_package_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On networks without training; the assets go to a temporary place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = ["assets", "tokenizer", "judge", "domain", "bundle"]
    for place in places:
        monkeypatch.setattr(f"didi_language.{place}.asset", lambda name: tmp_path / "assets" / name)
    monkeypatch.setattr(LanguageDomain, "bundled", tmp_path / "assets" / "teacher")
    monkeypatch.setattr(LanguageDomain, "features", tmp_path / "assets" / "features.npz")
    data = tmp_path / "data.txt"
    data.write_text("\n\n\n".join(f"the cat sat on the mat {i} times" * 20 for i in range(100)))
    run = ["bundle", "--data", str(data)]
    monkeypatch.setattr(sys, "argv", [*run, "--tokenizer", "260"])
    bundle.main()
    domain = LanguageDomain()
    assert domain.tokenizer.size == 260
    torch.manual_seed(0)
    save_model(tmp_path / "teacher", DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), domain.vocabulary))
    judge = Judge(JudgeConfig(hidden=16, layers=1, heads=2, context=256), domain.vocabulary)
    save_judge(tmp_path / "judge", judge, {"data": {"tokenizer": "bundled"}})
    networks = ["--teacher", str(tmp_path / "teacher"), "--judge", str(tmp_path / "judge")]
    monkeypatch.setattr(sys, "argv", [*run, *networks, "--source", "a test"])
    bundle.main()
    card = json.loads((tmp_path / "assets/teacher/card.json").read_text())
    assert card["data_attribution"] == "a test"
    made = LanguageDomain()
    assert made.teacher().vocabulary == made.vocabulary  # type: ignore[union-attr]
    known = made.reference_statistics()
    assert known is not None and known["held-out data"]["perplexity"].shape[1] == 2
