"""A bit that flips in anything that is kept to go on from: it is noticed by name, or makes no difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from didi_core.errors import InputError
from didi_core.evaluation.cache import SampleCache, StatisticsCache
from didi_core.sampling.generate import Generated
from didi_core.storage.journal import Journal
from didi_core.training.state import FolderKeeper, _damage
from didi_core.types import NFE, Sample
from didi_language.packing import Held, Packed
from didi_language.tokenizer import load_tokenizer

MAKING = {"domain": "toy", "model": "abc", "settings": {"steps": 2}}


def flipped(path: Path, apart: int = 1) -> Iterator[int]:
    """Flip a bit in every byte of a file, or some bytes apart, one after another; afterwards the file is as before."""
    content = path.read_bytes()
    for at in range(0, len(content), apart):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 7]) + content[at + 1 :])
        yield at
    path.write_bytes(content)


def test_manifests(tmp_path: Path) -> None:
    FolderKeeper(tmp_path, run="one").save(2, {"model": torch.nn.Linear(1, 1)})
    folder = tmp_path / "checkpoints/step_0000002"
    written = json.loads((folder / "manifest.json").read_text())
    assert _damage(folder, "one") == ""
    for _ in flipped(folder / "manifest.json"):
        told = _damage(folder, "one")
        assert told or json.loads((folder / "manifest.json").read_text()) == written  # a space became another


def test_a_manifest_names_its_run_and_every_state(tmp_path: Path) -> None:
    FolderKeeper(tmp_path, run="one").save(2, {"model": torch.nn.Linear(1, 1)})
    folder = tmp_path / "checkpoints/step_0000002"
    assert "belongs to another run (one)" in _damage(folder, "two")
    (folder / "ema.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert _damage(folder, "one") == "ema.safetensors is not in manifest.json"


def test_an_older_manifest_is_read_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = torch.nn.Linear(1, 1)
    FolderKeeper(tmp_path, run="one").save(2, {"model": network})
    path = tmp_path / "checkpoints/step_0000002/manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({"step": manifest["step"], "files": manifest["files"]}))
    assert FolderKeeper(tmp_path, run="one").restore({"model": network}) == 2
    assert "step_0000002 is of an older version" in capsys.readouterr().err
    path.write_text(json.dumps({key: manifest[key] for key in ("step", "run", "files")}))
    with pytest.raises(InputError, match="manifest.json has changed since it was written"):
        FolderKeeper(tmp_path, run="one").restore({"model": network})


def test_kept_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = SampleCache(tmp_path)
    made = Generated([Sample("ab", "1", (0, 1), {"x": 1}), Sample("b", "2", (1,))], NFE(2.0, 1.0), 0.5, (1.0, 2.0))
    cache.save(MAKING, made)
    path = cache.path(MAKING)
    assert path is not None and cache.load(MAKING) == made
    capsys.readouterr()
    for _ in flipped(path, 2):
        found = cache.load(MAKING)
        told = capsys.readouterr().err
        assert found == made if found is not None else str(path) in told and "drawn again" in told


def test_batches_of_a_set_that_is_whole_are_removed(tmp_path: Path) -> None:
    cache = SampleCache(tmp_path)
    parts = cache.parts(MAKING)
    assert parts is not None
    parts.mkdir()
    (parts / "one.jsonl").write_text("{}")
    assert cache.load(MAKING) is None and parts.is_dir()
    cache.save(MAKING, Generated([Sample("a", "1")], NFE(1.0), 0.5))
    assert cache.load(MAKING) is not None and not parts.exists()


def test_older_samples_are_read_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = SampleCache(tmp_path)
    made = Generated([Sample("ab", "1", (0, 1))], NFE(2.0), 0.5)
    cache.save(MAKING, made)
    path = cache.path(MAKING)
    assert path is not None
    head, *rows = path.read_text().splitlines()
    older = {key: value for key, value in json.loads(head).items() if key != "sha256"}
    path.write_text("\n".join([json.dumps(older), *rows]) + "\n")
    assert cache.load(MAKING) == made and "of an older version" in capsys.readouterr().err


class Costly:
    """A metric that counts how often it is asked."""

    name, identity, asked = "costly", "v1", 0

    def statistics(self, samples: Any) -> np.ndarray:
        self.asked += 1
        return np.arange(2.0 * len(samples)).reshape(-1, 2)


def test_kept_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric, samples, cache = Costly(), [Sample("a"), Sample("b")], StatisticsCache(tmp_path)
    rows = cache.statistics(metric, samples)  # type: ignore[arg-type]
    (path,) = (tmp_path / "statistics").glob("*.npy")
    for number, _ in enumerate(flipped(path, 5), start=2):
        assert np.array_equal(cache.statistics(metric, samples), rows)  # type: ignore[arg-type]
        assert metric.asked == number and "computed again" in capsys.readouterr().err


def test_scores_so_far(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl")
    journal.append([("a", {"v": 1.25, "w": "x"}), ("b", {"v": None})])
    written = journal.rows()
    content = journal.path.read_bytes()
    refused = 0
    for _ in flipped(journal.path):
        try:
            found = journal.rows()
        except InputError as error:
            assert f"{journal.path}, line" in str(error)
            refused += 1
        else:
            assert found.items() <= written.items()  # the last line's end was hit: its design is scored again
    assert refused > 0.9 * len(content) and journal.rows() == written


def test_older_scores_are_read_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "x.jsonl")
    journal.path.write_text('{"id": "a", "v": 1}\n')
    journal.append([("b", {"v": 2})])
    assert journal.rows() == {"a": {"v": 1}, "b": {"v": 2}} and "of an older version" in capsys.readouterr().err


def test_tokens_of_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Packed.make(tmp_path / "p", ["one two", "three"], load_tokenizer("bundled"), Held(last=1), {})
    assert Packed.open(tmp_path / "p") is not None and capsys.readouterr().err == ""
    for split in ("train", "validation"):
        for _ in flipped(tmp_path / f"p/{split}.bin"):
            assert Packed.open(tmp_path / "p") is None
            assert f"{split}.bin has changed" in capsys.readouterr().err
    older = {key: value for key, value in made.card.items() if key != "sha256"}
    (tmp_path / "p/card.json").write_text(json.dumps(older))
    assert Packed.open(tmp_path / "p") is not None and "of an older version" in capsys.readouterr().err
