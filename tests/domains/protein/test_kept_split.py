"""A large split is kept beside its data, and given to no other data."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.progress import Silent
from didi_core.types import Sample
from didi_protein import kept_split as module
from didi_protein.clustering import Split, split_by_similarity
from didi_protein.domain import ProteinDomain
from didi_protein.fasta import write_fasta

HOW = module.Splitting(0.2, 0.5)


def proteins(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), 40)) for _ in range(count)]


@pytest.fixture(autouse=True)
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_FROM", 30)


class Heard(Silent):
    """Keeps what is said, and how far a bar went."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.total = self.done = 0

    def start(self, title: str, total: int, done: int = 0) -> None:
        self.total, self.done = total, done

    def advance(self, scalars: Mapping[str, float] | None = None, by: int = 1) -> None:
        self.done += by

    def message(self, text: str) -> None:
        self.said.append(text)


def made(sequences: list[str], path: Path, how: module.Splitting = HOW) -> tuple[Split, list[str]]:
    bar = Heard()
    return module.kept_split(sequences, path, bar, how), bar.said


def same(one: Split, other: Split) -> bool:
    parts = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in module.PARTS)
    return parts and (one.clusters, one.by_similarity) == (other.clusters, other.by_similarity)


def test_a_kept_split_is_the_one_that_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [*proteins(30), *(text[:-1] + "A" for text in proteins(10))]
    first, said = made(sequences, tmp_path / "x.fasta")
    assert same(first, split_by_similarity(sequences, fraction=0.2)) and not said
    monkeypatch.setattr(module, "split_by_similarity", lambda *_, **__: pytest.fail("made again"))
    assert same(made(sequences, tmp_path / "x.fasta")[0], first)


@pytest.mark.parametrize("count", [30, 999, 1000, 1001])
def test_a_bar_shows_how_far_a_split_is(count: int, tmp_path: Path) -> None:
    bar = Heard()
    module.kept_split(proteins(count), tmp_path / "x.fasta", bar, HOW)
    assert bar.done == bar.total == count


def test_small_data_leave_nothing_behind(tmp_path: Path) -> None:
    made(proteins(29), tmp_path / "x.fasta")
    assert not list(tmp_path.iterdir())


def test_changed_data_are_refused_unless_they_are_to_be_split_again(tmp_path: Path) -> None:
    path = tmp_path / "x [1].fasta"
    made(proteins(40), path)
    for changed in (proteins(40)[:-1], [*proteins(40), "M" * 40], [*proteins(39), "W" * 40]):
        with pytest.raises(InputError, match=r"x \[1\].fasta is not what it was .* set data.resplit=true"):
            made(changed, path)
    fewer, said = made(proteins(40)[:-1], path, replace(HOW, again=True))
    assert same(fewer, split_by_similarity(proteins(40)[:-1], fraction=0.2)) and "again" in said[0]
    assert same(made(proteins(40)[:-1], path)[0], fewer)  # both are kept
    assert not made(proteins(40), path)[1] and not made(proteins(40, seed=1), tmp_path / "y.fasta")[1]


@pytest.mark.parametrize("other", [{"seed": 1}, {"fraction": 0.1}, {"selection": {"max_length": 39}}])
def test_other_settings_are_no_change_of_the_data(other: dict[str, Any], tmp_path: Path) -> None:
    made(proteins(40), tmp_path / "x.fasta")
    made(proteins(41), tmp_path / "x.fasta", replace(HOW, **other))
    with pytest.raises(InputError, match="is not what it was"):
        made(proteins(41), tmp_path / "x.fasta")


def test_a_damaged_split_is_made_anew(tmp_path: Path) -> None:
    first, _ = made(proteins(40), tmp_path / "x.fasta")
    (kept,) = (tmp_path / module.FOLDER).glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:50])
    again, said = made(proteins(40), tmp_path / "x.fasta")
    assert same(again, first) and "is damaged" in said[0]
    assert not made(proteins(40), tmp_path / "x.fasta")[1]


def test_of_several_processes_one_makes_the_split_and_the_others_read_it(tmp_path: Path) -> None:
    """Forks that start at once, each of which notes that it makes a split and takes a while."""
    sequences, forks = proteins(40), multiprocessing.get_context("fork")

    def make(sequences: list[str], **how: Any) -> Split:
        with (tmp_path / "made").open("a") as file:
            file.write("x")
        time.sleep(0.1)
        return split_by_similarity(sequences, **how)

    def act(start: Any, found: Any) -> None:
        module.split_by_similarity = make  # type: ignore[assignment]
        start.wait()
        found.put([getattr(made(sequences, tmp_path / "x.fasta")[0], name).tolist() for name in module.PARTS])

    start, found = forks.Barrier(3), forks.SimpleQueue()
    started = [forks.Process(target=act, args=(start, found)) for _ in range(3)]
    for one in started:
        one.start()
    splits = [found.get() for _ in started]
    for one in started:
        one.join()
    assert (tmp_path / "made").read_text() == "x"
    assert splits[0] == splits[1] == splits[2] and sorted(sum(splits[0], [])) == list(range(40))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / module.FOLDER).write_text("a file where the folder would be")
    split, said = made(proteins(40), tmp_path / "x.fasta")
    assert same(split, split_by_similarity(proteins(40), fraction=0.2)) and "cannot be kept" in said[0]


def test_the_domain_keeps_its_split_and_refuses_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "x.fasta", tmp_path / "run"
    write_fasta(path, [Sample(text, f"p{i}") for i, text in enumerate(proteins(40))])
    first, again = (ProteinDomain(path).splits for _ in range(2))
    assert first == again and len(list((tmp_path / module.FOLDER).glob("*.npz"))) == 1
    write_fasta(path, [Sample(text, f"p{i}") for i, text in enumerate(proteins(41))])
    words = ["pretrain", "domain=protein", f"data.path={path}", "data.validation_fraction=0.05", f"run_dir={out}"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{path} is not what it was" in told and "41 now" in told and not out.exists()
    assert ProteinDomain(path, max_length=200).splits  # a choice of others is no change of the file
    assert len(ProteinDomain(path, resplit=True).splits["train"]) > 0 and ProteinDomain(path).splits
