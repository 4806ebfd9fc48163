"""The model that a domain carries, sampled without a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import didi_core
from didi_core.checkpoints.card import read_card, write_card
from didi_core.cli import main
from didi_core.config import config_folder
from didi_core.domain.abilities import HasBundledStudent
from didi_core.errors import InputError
from didi_core.plugins import registry
from didi_core.sampling.generate import trained_with
from didi_core.storage.fingerprint import model_hash
from didi_toy import ToyDomain

OBJECTIVES = {"language": "few_calls", "protein": "few_calls", "toy": "didi"}  # of the main jobs


@pytest.mark.parametrize("name", OBJECTIVES)
def test_domains_carry_the_student_of_their_main_job(name: str, tmp_path: Path) -> None:
    domain = registry().domain(name, {})
    assert isinstance(domain, HasBundledStudent) and domain.bundled_student is not None
    card = read_card(domain.bundled_student)
    assert card["training"]["objective"] == OBJECTIVES[name]
    assert card["teacher"] == {"name": "bundled", "hash": model_hash(domain.teacher().eval())}
    (curve,) = card["steps_matter"]
    assert (curve["law"], curve["grid"]) == tuple(card["training"][f"rollout_{key}"] for key in ("law", "grid"))
    assert [*curve["by_steps"]] == ["1", "2", "4", "8", "16"]
    out, named = (tmp_path / f"{letter}{domain.suffix}" for letter in "ab")
    assert main(["sample", f"domain={name}", "num=2", "steps=1", f"out={out}"]) == 0
    assert main(["sample", "run=bundled", f"domain={name}", "num=2", "steps=1", f"out={named}"]) == 0
    assert card["sha256"]["model.safetensors"][:12] in out.read_text() and named.read_bytes() == out.read_bytes()
    files = [path for path in domain.bundled_student.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6, "what a domain may add to the package"


def test_fewer_calls_than_the_model_learnt_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for steps, told in ((1, True), (4, False)):
        words = ["num=1", "length=30", f"steps={steps}", f"out={tmp_path / 'one.fasta'}"]
        assert main(["sample", "domain=protein", *words]) == 0
        line = f"steps={steps}: the model learnt from rollouts of 4 and 8 calls, and fewer are outside its training"
        assert (line in capsys.readouterr().out) == told



def test_the_carried_student_is_sampled_as_it_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "run=bundled", "domain=protein", "num=2", "steps=1", f"out={tmp_path / 'a.fasta'}"]) == 0
    said = capsys.readouterr().out
    assert "law=stratified grid=power: as the model was trained" in said and "1 network call each" in said
    first = (tmp_path / "a.fasta").read_text().splitlines()[1]
    assert f"the first begins: {first[:60]}" in said


def test_settings_of_the_domain_count_for_the_carried_student() -> None:
    made = didi_core.sample("bundled", domain="toy", data={"length": 5}, num=2, steps=1)
    assert [len(sample.tokens or ()) for sample in made.samples] == [5, 5]
    made = didi_core.sample("bundled", domain="language", data={"length": 12}, num=1, steps=1)
    assert len(made.samples[0].tokens or ()) == 12
    for settings in ({"symbols": 5}, {"chain_seed": 1}):  # no student of that chain, and no teacher either
        with pytest.raises(InputError, match="the bundled teacher is for the default chain only"):
            didi_core.sample("bundled", domain="toy", data=settings, num=1, steps=1)


def test_a_domain_without_a_student_writes_with_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyDomain, "bundled_student", None)
    made = didi_core.sample("bundled", domain="toy", num=2, steps=1)
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


@pytest.mark.parametrize("compared", [5, [], {"laws": "iid"}, {"grids": [1]}, {"power": "x"}])
def test_a_card_with_another_comparison_is_refused(compared: object, tmp_path: Path) -> None:
    shutil.copytree(registry().domain("toy", {}).bundled_student, tmp_path / "student")
    card = read_card(tmp_path / "student")
    write_card(tmp_path / "student", {**card, "compared": compared})
    with pytest.raises(InputError, match="compared"):
        read_card(tmp_path / "student")


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
