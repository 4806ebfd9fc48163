"""A domain of letters from nothing but its alphabet: data, lengths, batches, files, errors."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from didi_core.errors import InputError
from didi_core.metrics import KmerDivergence, word_counts
from didi_core.sequences import AlphabetDomain
from didi_core.testing import DomainContract
from didi_core.types import Sample


class Letters(AlphabetDomain):
    name, alphabet = "letters", "abcd"

    def normalise(self, text: str) -> str:
        return text.lower()


def written(folder: Path, texts: Sequence[str], name: str = "x.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(texts) + "\n")
    return path


def words(n: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    shares = [0.6, 0.2, 0.15, 0.05]
    return ["".join(random.choice(list("abcd"), p=shares, size=random.integers(4, 20))) for _ in range(n)]


@pytest.fixture
def domain(tmp_path: Path) -> Letters:
    return Letters(written(tmp_path, words(120)))


class TestLetters(DomainContract):
    @pytest.fixture(autouse=True)
    def at(self, tmp_path: Path) -> None:
        self.path = written(tmp_path, words(200))

    def make(self) -> Letters:
        return Letters(self.path)


def test_files_of_every_kind_hold_the_same_sequences(tmp_path: Path) -> None:
    texts = ["abca", "ddab"]
    plain = written(tmp_path, ["", *texts])
    fasta = written(tmp_path, [">one first", "ab", "ca", ">two", "ddab"], "x.fa")
    packed = tmp_path / "x.fa.gz"
    packed.write_bytes(gzip.compress(fasta.read_bytes()))
    Letters().write(tmp_path / "x.jsonl", [Sample(text) for text in texts])
    for path in (plain, fasta, packed, tmp_path / "x.jsonl"):
        assert [sample.text for sample in Letters().read(path)] == texts, path
    assert [sample.id for sample in Letters().read(fasta)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.txt", "ab\nabXb\n", r"x.txt, line 2: letter 'x' at position 3 is not in the alphabet of letters: abcd"),
        ("x.fa", ">one\nab\n>two\nq\n", r"x.fa, record 2 \(two\): letter 'q' at position 1"),
        ("x.fa", "ab\n", "is no FASTA file: its first line does not begin with '>'"),
        ("x.jsonl", '{"text": "abe"}\n', "line 1: letter 'e' at position 3"),
        ("x.txt", "\n\n", "the file has no sequences"),
    ],
)
def test_bad_files_are_told_with_their_place(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=told):
        Letters().read(tmp_path / name)


def test_split_keeps_equal_sequences_together_and_does_not_move_when_the_file_grows(tmp_path: Path) -> None:
    small = Letters(written(tmp_path, [*words(100), *(word.upper() for word in words(100))]))
    large = Letters(written(tmp_path, [*words(100), *words(300, seed=1)], "y.txt"))
    assert not {s.text.lower() for s in small.parts["train"]} & {s.text.lower() for s in small.parts["validation"]}
    assert {s.text for s in small.parts["validation"]} <= {s.text for s in large.parts["validation"]}


def test_lengths_outside_are_left_out_and_nothing_left_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, words(120))
    kept = Letters(path, min_length=8, max_length=12)
    assert all(8 <= len(s.text) <= 12 for part in kept.parts.values() for s in part)
    with pytest.raises(InputError, match="split of .*x.txt is empty: 0 different sequences of 50 to 60 letters"):
        Letters(path, min_length=50, max_length=60).parts  # noqa: B018


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"min_length": 0}, "data.min_length=0"),
        ({"validation": 1.0}, "data.validation=1.0 is out of range"),
    ],
)
def test_settings_are_checked(given: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Letters(**given)


def test_without_data_it_says_which_key_to_set() -> None:
    for ask in (lambda: next(Letters().batches("train", 2, 0)), lambda: Letters().lengths(2, torch.Generator())):
        with pytest.raises(InputError, match="domain letters has no data: set data.path"):
            ask()
    with pytest.raises(InputError, match="no bundled teacher: train one with .*pretrain domain=letters"):
        Letters().teacher()


@pytest.mark.parametrize("alphabet", ["a", "aa", "a_", "a b"])
def test_alphabets_that_cannot_be_read_back_are_refused(alphabet: str) -> None:
    with pytest.raises(InputError, match="give at least two different letters"):
        type("Odd", (AlphabetDomain,), {"name": "odd", "alphabet": alphabet})()


def test_sorting_in_pools_shows_the_same_sequences_with_less_padding(domain: Letters) -> None:
    def epoch(pool: int) -> list[torch.Tensor]:
        made = type("Pooled", (Letters,), {"pool": pool})(domain.paths)
        count = -(-len(made.parts["train"]) // 8)
        batches = made.batches("train", 8, seed=0)
        return [next(batches) for _ in range(count)]

    plain, pooled = epoch(1), epoch(8)
    padding = [sum(int((b == domain.vocabulary.pad).sum()) for b in batches) for batches in (plain, pooled)]
    assert padding[1] < padding[0] / 2

    def rows(batches: list[torch.Tensor]) -> set[str]:
        return {domain.decode(row) for batch in batches for row in batch.tolist()}

    assert rows(plain) == rows(pooled)


def test_word_counts_and_their_divergence_by_hand() -> None:
    assert word_counts("abab", "ab", 2).tolist() == [0, 2, 1, 0]
    assert word_counts("a", "ab", 2).tolist() == [0, 0, 0, 0]
    metric = KmerDivergence("ab", 1, np.array([1.0, 3.0]))
    rows = metric.statistics([Sample("aabb"), Sample("ab")])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert metric.aggregate(rows.mean(0)) == pytest.approx(expected)
