"""The page of a training on data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from didi_core.report.pretraining import outcome, remarks, write_pretraining


@pytest.mark.parametrize(
    ("curve", "said", "remark"),
    [
        ({10: 3.0, 2000: 1.5}, "Validation loss 1.50 nats per position after 2,000 steps, from 3.00 after 10.", ""),
        ({10: 3.0}, "Validation loss 3.00 nats per position after 10 steps.", ""),
        ({10: 3.0, 20: 1.5, 30: 1.75}, "Validation loss 1.75 .* after 30 steps", "lowest, 1.50, after 20 steps"),
    ],
)
def test_the_curve_in_words(curve: dict[int, float], said: str, remark: str) -> None:
    assert re.search(said, outcome(curve))
    assert bool(remarks(curve)) == bool(remark) and all(re.search(remark, each) for each in remarks(curve))


@pytest.mark.parametrize("lines", [0, 1, 5])
def test_the_page_stands_with_and_without_a_curve(lines: int, tmp_path: Path) -> None:
    entries = [{"step": i, "loss": 3 / i, "validation_loss": 3 / i} for i in range(1, lines + 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    record = {"config": {"data": {"path": "<script>x</script>"}}}
    page = write_pretraining(tmp_path, "Teacher: <b>", {5: 0.6}, record).read_text()
    assert "<script>" not in page and "&lt;script&gt;x" in page and "<h1>Teacher: &lt;b&gt;</h1>" in page
    assert ("<svg" in page) == (tmp_path / "plots/training.png").is_file() == (lines > 1)


def test_a_rise_that_the_numbers_do_not_show_is_not_told() -> None:
    assert remarks({10: 1.5001, 20: 1.5001}) == remarks({10: 1.5001, 20: 1.5003}) == []
