"""The model that a domain carries, sampled without a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import didi_core
from didi_core.checkpoints.card import read_card
from didi_core.cli import main
from didi_core.domain.abilities import HasBundledStudent
from didi_core.plugins import registry
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
