"""Split by similarity and batches of similar lengths."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_core.sequences.batches import epoch_batches, padded
from didi_core.streams import generator
from didi_core.types import Sample
from didi_protein.clustering import greedy_clusters, split_by_similarity
from didi_protein.domain import ProteinDomain
from didi_protein.fasta import write_fasta
from didi_protein.kmers import KmerIndex, kmer_codes
from didi_protein.vocabulary import RESIDUES, VOCABULARY, residue_ids


def random_protein(random: np.random.Generator, length: int) -> str:
    return "".join(random.choice(list(RESIDUES), size=length))


def mutate(random: np.random.Generator, sequence: str, changes: int) -> str:
    letters = list(sequence)
    for place in random.choice(len(letters), size=changes, replace=False):
        letters[place] = random.choice(list(RESIDUES))
    return "".join(letters)


def families(count: int, members: int, seed: int = 0, length: int = 80) -> list[str]:
    random = np.random.default_rng(seed)
    return [
        mutate(random, parent, 2)
        for parent in (random_protein(random, length) for _ in range(count))
        for _ in range(members)
    ]


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    sequences = [random_protein(random, int(n)) for n in random.integers(30, 90, size=103)]
    write_fasta(tmp_path / "x.fasta", [Sample(s, f"p{i}") for i, s in enumerate(sequences)])
    return tmp_path / "x.fasta"


# --- k-mers


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(alphabet="ACDE", max_size=25), min_size=1, max_size=6), st.text(alphabet="ACDE", max_size=25))
def test_index_counts_shared_words_like_sets_do(sequences: list[str], query: str):
    def words(s: str) -> set[str]:
        return {s[i : i + 3] for i in range(len(s) - 2)}

    index = KmerIndex(sequences, k=3)
    codes = np.unique(kmer_codes(query, 3))
    expected = [len(words(s) & words(query)) for s in sequences]
    assert index.shared(codes).tolist() == expected
    shorter = [min(len(words(s)), len(words(query))) for s in sequences]
    assert index.containment(codes).tolist() == [e / s if s else 0.0 for e, s in zip(expected, shorter, strict=True)]


# --- clusters and split


def test_clusters_are_the_families():
    sequences = families(12, 7)
    labels = greedy_clusters(KmerIndex(sequences, filled=False))
    assert [len(set(labels[i : i + 7].tolist())) for i in range(0, 84, 7)] == [1] * 12
    assert len(set(labels.tolist())) == 12


def test_a_chain_of_relatives_is_not_swallowed_whole():
    random = np.random.default_rng(1)
    chain = [random_protein(random, 100)]
    for _ in range(30):
        chain.append(mutate(random, chain[-1], 6))
    assert len(set(greedy_clusters(KmerIndex(chain, filled=False)).tolist())) > 3


def test_split_holds_out_whole_families_and_covers_everything_once():
    sequences = families(40, 5)
    split = split_by_similarity(sequences, fraction=0.2)
    family = np.arange(200) // 5
    assert split.by_similarity and split.clusters == 40
    assert not set(family[split.train].tolist()) & set(family[split.validation].tolist())
    together = np.concatenate([split.train, split.validation, split.left_out])
    assert sorted(together.tolist()) == list(range(200))
    assert 30 <= len(split.validation) <= 50


def test_split_is_a_function_of_its_seed():
    sequences = families(40, 5)
    first, again, other = (split_by_similarity(sequences, seed=seed) for seed in (3, 3, 4))
    assert first.validation.tolist() == again.validation.tolist() != other.validation.tolist()


def test_one_family_falls_back_to_single_sequences():
    split = split_by_similarity(families(1, 50), fraction=0.1)
    assert not split.by_similarity
    assert (len(split.train), len(split.validation), len(split.left_out)) == (45, 5, 0)


@pytest.mark.parametrize("sequences", [["MKVACDEFG"], ["MKVACDEFG", "WWWWYYYYHH"], ["MK", "MKV", "AC"]])
def test_tiny_sets_still_give_something_to_train_on(sequences: list[str]):
    split = split_by_similarity(sequences)
    assert len(split.train) and len(split.validation)


@pytest.mark.parametrize("name", ["train_amr_families", "train_pdb_chains"])
def test_no_relatives_across_the_split_of_real_proteins(data_dir: Path, name: str):
    data = ProteinDomain(data_dir / "protein" / f"{name}.fasta")
    train = KmerIndex(data.training_set())
    validation = data.splits["validation"]
    assert 0.04 * len(data.samples) < len(validation) < 0.07 * len(data.samples)
    assert 0.95 * len(data.samples) < len(validation) + len(data.training_set()) <= len(data.samples)
    for sample in validation[:100]:
        assert train.containment(np.unique(kmer_codes(sample.text, 5))).max() < data.similarity


# --- batches


def take(data: ProteinDomain, count: int, **options: int) -> list[torch.Tensor]:
    return list(islice(data.batches("train", **{"batch_size": 8, "seed": 0, **options}), count))


def test_rows_are_cls_residues_eos_padding():
    tokens = padded([residue_ids("MKV"), residue_ids("A")], VOCABULARY)
    assert tokens.tolist() == [[0, 20, 15, 7, 2], [0, 5, 2, 1, 1]]
    assert VOCABULARY.lengths(tokens).tolist() == [5, 3]


@pytest.mark.parametrize("start", [1, 7, 12, 13, 14, 40])
def test_start_skips_exactly_that_many_batches(fasta: Path, start: int):
    data = ProteinDomain(fasta)
    straight = take(data, start + 3)[start:]
    for a, b in zip(straight, take(data, 3, start=start), strict=True):
        assert torch.equal(a, b)


def test_batches_depend_on_the_seed_alone(fasta: Path):
    first, again = take(ProteinDomain(fasta), 20), take(ProteinDomain(fasta), 20)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = take(ProteinDomain(fasta), 20, seed=1)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=True))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 13), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_shows_everything_in_full_batches(n: int, batch_size: int, pool: int, seed: int):
    lengths = torch.randint(5, 50, (n,), generator=generator(seed, "lengths"))
    batches = epoch_batches(lengths, batch_size, pool, generator(seed, "epoch"))
    assert len(batches) == -(-n // batch_size) and all(len(rows) == batch_size for rows in batches)
    seen = Counter(torch.cat(batches).tolist())
    assert set(seen) == set(range(n))
    assert sum(seen.values()) - n < batch_size


def test_buckets_waste_little_on_padding(data_dir: Path):
    pooled = type("Pooled", (ProteinDomain,), {"pool": 32})
    data = pooled(data_dir / "protein" / "train_pdb_chains.fasta")
    padding = np.mean([(tokens == 1).float().mean().item() for tokens in take(data, 100)])
    spread = np.mean([len(set((tokens != 1).sum(1).tolist())) for tokens in take(data, 100)])
    assert padding < 0.04 and spread > 2  # similar lengths, yet not the same sequences together every epoch


def test_several_files_and_repeated_sequences(tmp_path: Path, fasta: Path):
    write_fasta(tmp_path / "y.fasta", [Sample("MKVACDEFGH" * 4, "new")])
    both = ProteinDomain((fasta, tmp_path / "y.fasta", fasta))
    assert len(both.samples) == 104


@pytest.mark.parametrize(
    "settings_, message",
    [
        ({"min_length": 50, "max_length": 40}, "data.min_length=50, data.max_length=40"),
        ({"on_bad": "ignore"}, "data.on_bad='ignore'"),
        ({"validation_fraction": 1.0}, "data.validation_fraction=1.0"),
        ({"similarity": 0.0}, "data.similarity=0.0"),
        ({"path": ()}, "data.path is empty"),
    ],
)
def test_settings_are_checked(settings_: dict, message: str):
    with pytest.raises(InputError, match=message):
        ProteinDomain(**{"path": "x.fasta", **settings_})


def test_unknown_split_and_batch_size_are_told_at_once(fasta: Path):
    data = ProteinDomain(fasta)
    with pytest.raises(InputError, match="unknown split 'valid'. Did you mean 'validation'"):
        data.batches("valid", 8, 0)
    with pytest.raises(InputError, match="batch_size=0"):
        data.batches("train", 0, 0)
