"""The model that a domain carries, sampled without a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import didi_core
from didi_core.checkpoints.card import read_card
from didi_core.cli import main
from didi_core.config import config_folder
from didi_core.domain.abilities import HasBundledStudent
from didi_core.plugins import registry
from didi_core.sampling.generate import trained_with
from didi_core.storage.fingerprint import model_hash


def test_a_domain_may_carry_a_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which writes for ``run=bundled``; a domain without one writes with its teacher."""
    assert main(["sample", "run=bundled", "domain=protein", "num=2", "steps=1", f"out={tmp_path / 'a.fasta'}"]) == 0
    said = capsys.readouterr().out
    assert "law=stratified grid=power: as the model was trained" in said and "1 network calls each" in said
    student = registry().domain("protein", {}).bundled_student
    card = read_card(student)
    assert card["training"]["objective"] == "few_calls"
    assert f"model={card['sha256']['model.safetensors'][:12]}" in (tmp_path / "a.fasta").read_text()
    made = didi_core.sample("bundled", domain="toy", num=2, steps=1)
    assert not isinstance(registry().domain("toy", {}), HasBundledStudent)
    assert made.samples[0].info["model"] == model_hash(registry().domain("toy", {}).teacher().eval())[:12]


@pytest.mark.parametrize(
    ("domain", "given"),
    [
        ("toy", {}),
        ("toy", {"template": "ab__c___"}),
        ("language", {"length": 12, "prompt": "The "}),
        ("protein", {"contig": "4-9/MKT/5"}),
        ("protein", {"length": [20, 30]}),
    ],
)
def test_one_seed_gives_the_same_samples_for_one_number_of_them(domain: str, given: dict[str, object]) -> None:
    """For another number they are others, because lengths and a batch share their random numbers: the key says so."""
    first, again, more = (
        [s.text for s in didi_core.sample("bundled", domain=domain, num=n, steps=2, seed=4, **given).samples]
        for n in (3, 3, 6)
    )
    assert first == again and len({*more}) > 1
    assert first != more[:3]
    said = "num=3 is not the beginning of num=6"
    assert said in (config_folder() / "sample.yaml").read_text()


@pytest.mark.parametrize(
    ("card", "law", "grid"),
    [
        ({}, "iid", "uniform"),
        ({"training": {"rollout_law": "dilated"}}, "dilated", "uniform"),
        ({"compared": {"laws": ["stratified"], "grids": ["power"], "power": 3.0}}, "stratified", "power"),
        ({"training": {"rollout_law": "dilated"}, "compared": {"laws": ["iid"], "grids": []}}, "dilated", "uniform"),
        ({"training": {"rollout_grid": "power", "rollout_power": 2.0}}, "iid", {"kind": "power", "power": 2.0}),
        ({"training": {"rollout_law": {"kind": "blocks", "size": 4}}}, {"kind": "blocks", "size": 4}, "uniform"),
    ],
)
def test_a_model_goes_by_its_training_then_by_its_comparison(card: dict, law: object, grid: object) -> None:
    assert trained_with(card) == (law, grid)
