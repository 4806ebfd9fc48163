

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
