"""Sequences that no other contains are told from the keys of all, and the split is the one that looks up each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_core.progress import Silent
from didi_core.storage.sample_store import Chosen, Strings
from didi_protein import contained as module
from didi_protein.clustering import Split, split_by_similarity
from didi_protein.contained import Classes, may_be_contained, worth_while
from didi_protein.fasta import read_fasta
from didi_protein.kmers import kmer_codes

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
THRESHOLDS = [0.2, 0.5, 0.8, 1.0]


@contextmanager
def sieved(chunk: int = 8, block: int = 64, lookup: float = 1e12) -> Iterator[None]:
    """Keys are made of however few sequences, in small chunks and blocks; a dear ``lookup`` gives the shortest keys."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FEWEST": 0, "CHUNK": chunk, "BLOCK": block, "PER_LOOKUP": lookup}.items():
            patch.setattr(module, name, value)
        yield


def mixture(families: int, members: int, alone: int, seed: int = 0) -> list[str]:
    """Families that differ at up to half of their residues, some members cut short, among unrelated sequences."""
    random = np.random.default_rng(seed)

    def drawn(length: int) -> str:
        return "".join(random.choice(list(LETTERS), length))

    made = [drawn(int(length)) for length in random.integers(10, 200, alone)]
    for _ in range(families):
        parent = drawn(int(random.integers(20, 150)))
        for rate in np.linspace(0, 0.5, members):
            child = "".join(drawn(1) if random.random() < rate else letter for letter in parent)
            start = int(random.integers(0, len(child) // 2))
            made.append(child if random.random() < 0.7 else child[start:])
        made.append(parent)
    return [made[i] for i in random.permutation(len(made))]


def contained(sequences: list[str], threshold: float, k: int) -> list[bool]:
    """Which have the share ``threshold`` of their words in another one that has no fewer, by comparing every pair."""
    words = [set(kmer_codes(sequence, k).tolist()) for sequence in sequences]
    return [
        any(
            len(mine & other) >= threshold * len(mine)
            for number, other in enumerate(words)
            if number != at and len(other) >= len(mine)
        )
        for at, mine in enumerate(words)
    ]


def same(one: Split, other: Split) -> bool:
    parts = ("train", "validation", "left_out")
    return (one.clusters, one.by_similarity) == (other.clusters, other.by_similarity) and all(
        getattr(one, part).tolist() == getattr(other, part).tolist() for part in parts
    )


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("lookup", [1e12, 1e5])
def test_no_contained_sequence_is_missed(threshold: float, lookup: float) -> None:
    sequences = mixture(20, 5, 100, seed=int(10 * threshold))
    with sieved(lookup=lookup):
        found = may_be_contained(sequences, threshold, 4)
    assert found is not None
    truth = np.array(contained(sequences, threshold, 4)) & (found.sizes > 0)
    assert found.sizes.tolist() == [len(set(kmer_codes(sequence, 4).tolist())) for sequence in sequences]
    assert truth.any() and not (truth & ~found.members).any()


def test_most_sequences_without_relatives_need_no_look_up() -> None:
    random = np.random.default_rng(0)
    alone = ["".join(random.choice(list(LETTERS), 100)) for _ in range(200)]
    with sieved():
        found = may_be_contained([*alone, alone[0][10:]], 0.5)
    assert found is not None
    assert np.flatnonzero(found.members).tolist() == [0, 200]  # the longer one shares half of its words too


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text(alphabet="ACD", max_size=30), min_size=1, max_size=12),
    st.sampled_from([0.3, 0.5, 0.77, 1.0]),
    st.integers(2, 4),
)
def test_no_contained_sequence_is_missed_among_repetitive_ones(texts: list[str], threshold: float, k: int) -> None:
    with sieved(chunk=3, block=5):
        found = may_be_contained(texts, threshold, k)
    for at, is_one in enumerate(contained(texts, threshold, k) if found else []):
        assert found is not None and (not is_one or not found.sizes[at] or found.members[at])


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize(("families", "alone"), [(0, 120), (12, 80), (30, 0)])
def test_the_split_is_that_of_looking_up_each(families: int, alone: int, threshold: float) -> None:
    sequences = [*mixture(families, 4, alone, seed=families), "", "MKV", "A" * 60, "AC" * 40, "AC" * 30]
    plain = split_by_similarity(sequences, fraction=0.2, threshold=threshold, k=4)
    with sieved():
        assert may_be_contained(sequences, threshold, 4) is not None
        assert same(split_by_similarity(sequences, fraction=0.2, threshold=threshold, k=4), plain)


@pytest.mark.parametrize("name", ["train_amr_families", "train_pdb_chains", "train_swissprot"])
def test_the_split_of_real_proteins_is_that_of_looking_up_each(data_dir, name: str) -> None:
    read = read_fasta(data_dir / "protein" / f"{name}.fasta", on_bad="skip").samples
    texts = [sample.text for sample in read if 30 <= len(sample.text) <= 300][:3000]
    plain = split_by_similarity(texts)
    with sieved(chunk=256, block=1 << 16, lookup=55_000):
        assert same(split_by_similarity(texts), plain)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = mixture(10, 4, 60)
    with sieved():
        one = may_be_contained(sequences, 0.5, 3)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        three = may_be_contained(sequences, 0.5, 3)
    assert one is not None and three is not None
    assert one.members.tolist() == three.members.tolist() and one.sizes.tolist() == three.sizes.tolist()


@pytest.mark.parametrize(("sections", "parts"), [(1, 1), (1, 2), (4, 2), (7, 2)])
def test_every_word_is_in_one_section(sections: int, parts: int) -> None:
    classes = Classes(3, sections, parts, 10)
    words = np.arange(20**3, dtype=np.uint32)
    inside = np.array([classes.in_section(words, section) for section in range(sections)])
    assert (inside.sum(axis=0) == 1).all() and classes.number == sections * parts
    assert np.bincount(classes.part_of(), minlength=parts).min() > 0


@pytest.mark.parametrize("number", [1, 4, 15])
def test_even_classes_share_fewest_keys(number: int) -> None:
    random = np.random.default_rng(number)
    classes = Classes(5, number, 1, 0)
    for need in range(40):
        spread = random.multinomial(need, random.dirichlet(np.ones(number)), size=50)
        assert classes.shared_keys(np.array([need]))[0] <= (spread * (spread - 1) // 2).sum(axis=1).min()


def test_keys_are_made_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.full(200_000, 300)
    assert worth_while(lengths, 0.5, 5) and not worth_while(lengths[:-1], 0.5, 5)
    assert not worth_while(lengths, 0.5, 6)  # too many words for a number
    assert not worth_while(lengths, 0.005, 5)  # a single word makes a relative
    mixed = worth_while(np.where(np.arange(200_000) < 20, 9, lengths), 0.5, 5)
    assert mixed and mixed.least > 9  # a few short ones are looked up
    monkeypatch.setattr(module, "PER_KEY", 1e9)
    assert not worth_while(lengths, 0.5, 5)


def test_a_bad_letter_is_placed_in_its_own_sequence() -> None:
    with sieved(), pytest.raises(InputError, match="letter 'X' at position 3"):
        may_be_contained(["MKVACDEFGH" * 3, "MKXACDEFGH" * 3], 0.5, 3)


def test_stored_texts_are_joined_as_a_list_is() -> None:
    sequences = mixture(3, 3, 10)
    store = Strings()
    for sequence in sequences:
        store.add(sequence)
    numbers = np.array([3, 4, 9, 1])
    with sieved():
        for kept, plain in ((store, sequences), (Chosen(store, numbers), [sequences[i] for i in numbers])):
            one, other = may_be_contained(kept, 0.5, 3, Silent()), may_be_contained(plain, 0.5, 3)
            assert one is not None and other is not None and one.sizes.tolist() == other.sizes.tolist()
            assert one.members.tolist() == other.members.tolist()
