"""Shared words and common subsequences leave out alignments, and change nothing that is found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_protein import kmers
from didi_protein.alignment import align, common_subsequence, identity, reaches
from didi_protein.clustering import greedy_clusters, split_by_similarity
from didi_protein.fasta import read_fasta
from didi_protein.kmers import KmerIndex, kmer_codes
from didi_protein.scoring.filtering import ProteinFilter, redundant
from didi_protein.scoring.sequence import CANDIDATES, cluster_columns, identity_clusters, needed_words

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PEPTIDE = st.text(alphabet="ACDW", min_size=1, max_size=20)


def relatives(count: int, members: int, seed: int = 0) -> list[str]:
    """Families whose members differ by substitutions, insertions and deletions at rates up to a half, shuffled."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        parent = list(random.choice(list(LETTERS), size=int(random.integers(20, 120))))
        for rate in np.linspace(0, 0.5, members):
            child = [str(random.choice(list(LETTERS))) if random.random() < rate else letter for letter in parent]
            if random.random() < 0.5:
                place = int(random.integers(len(child)))
                child = (
                    child[:place] + child[place + 3 :]
                    if random.random() < 0.5
                    else [*child[:place], "W", *child[place:]]
                )
            made.append("".join(child))
    return [made[i] for i in random.permutation(len(made))]


# --- alignments


@settings(deadline=None, max_examples=60)
@given(PEPTIDE, PEPTIDE)
def test_common_subsequence_is_that_of_the_table(one: str, other: str) -> None:
    @lru_cache(None)
    def longest(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if one[i - 1] == other[j - 1]:
            return longest(i - 1, j - 1) + 1
        return max(longest(i - 1, j), longest(i, j - 1))

    assert common_subsequence(one, other) == longest(len(one), len(other))


@settings(deadline=None, max_examples=60)
@given(PEPTIDE, PEPTIDE)
def test_no_alignment_has_more_identical_residues(one: str, other: str) -> None:
    assert align(one, other).identical <= common_subsequence(one, other)
    assert reaches(one, other, identity(one, other))


# --- filter


def by_alignment(rows: Sequence[dict[str, str]], limit: float) -> dict[str, str]:
    """Reasons as found by aligning every pair."""
    chosen: list[dict[str, str]] = []
    reasons = {}
    for row in rows:
        reasons[row["id"]] = ""
        for better in chosen:
            found = identity(better["sequence"], row["sequence"])
            if found > limit or row["sequence"] == better["sequence"]:
                reasons[row["id"]] = f"{100 * found:.0f} % identical to {better['id']}, which is better"
                break
        else:
            chosen.append(row)
    return reasons


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_what_is_redundant_is_what_aligning_every_pair_says(limit: float) -> None:
    sequences = [*relatives(8, 6), "MKV", "MKVA", "MKVA", "WWWWWWWWWWWW", "WWWWWWWWWWWWWW", relatives(8, 6)[3]]
    rows = [{"id": f"d{i}", "sequence": sequence} for i, sequence in enumerate(sequences)]
    found = redundant(rows, ProteinFilter(diversity=limit))
    assert found == by_alignment(rows, limit)
    assert any(found.values()) and not all(found.values())


# --- index, clusters and split


@pytest.mark.parametrize("piece", [1, 50, 10**6])
def test_an_index_made_in_pieces_is_the_same(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = ["", *relatives(6, 5), "MKVAC", "MK", ""]
    monkeypatch.setattr(kmers, "PIECE", piece)
    index, sets = KmerIndex(sequences, 3), [set(kmer_codes(sequence, 3).tolist()) for sequence in sequences]
    assert index.sizes.tolist() == [len(words) for words in sets]
    for number, words in enumerate(sets):
        assert index.words(number).tolist() == sorted(words)
        shared = [len(words & other) for other in sets]
        assert index.shared(index.words(number)).tolist() == shared
        for least in (1, 2, 7):
            names, counts = index.sharing(index.words(number), least)
            assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
                other: count for other, count in enumerate(shared) if count >= least
            }


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 1.0])
def test_close_sequences_are_those_of_the_containment(threshold: float) -> None:
    index = KmerIndex(["", *relatives(6, 5), "MKVAC", "MK"], 3)
    for number in range(len(index)):
        contained = index.containment(index.words(number)) >= threshold
        assert index.close_to(index.words(number), threshold).tolist() == np.flatnonzero(contained).tolist()


def straightforward_clusters(index: KmerIndex, threshold: float) -> np.ndarray:
    labels = np.full(len(index), -1)
    for lead in np.argsort(-index.sizes, kind="stable").tolist():
        if labels[lead] < 0:
            near = index.containment(index.words(lead)) >= threshold
            labels[near & (labels < 0)] = lead
            labels[lead] = lead
    return labels


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_clusters_are_those_of_all_containments(threshold: float) -> None:
    sequences = [*relatives(15, 6), "MK", ""]
    index, filling = KmerIndex(sequences), KmerIndex(sequences, filled=False)
    assert greedy_clusters(filling, threshold).tolist() == straightforward_clusters(index, threshold).tolist()
    for number in range(len(index)):  # at the end it holds all
        assert filling.shared(index.words(number)).tolist() == index.shared(index.words(number)).tolist()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text(alphabet="ACDE", max_size=25), min_size=1, max_size=9),
    st.sampled_from([0.05, 0.3, 0.5, 0.77, 1.0]),
    st.integers(1, 9),
)
def test_clusters_do_not_depend_on_what_is_looked_up_first(texts: list[str], threshold: float, alike: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmers, "ALIKE", alike)
        found = greedy_clusters(KmerIndex(texts, 3, filled=False), threshold)
    assert found.tolist() == straightforward_clusters(KmerIndex(texts, 3), threshold).tolist()


@pytest.mark.parametrize("name", ["train_amr_families", "train_pdb_chains", "train_swissprot"])
def test_clusters_of_real_proteins_are_those_of_all_containments(data_dir, name: str) -> None:
    read = read_fasta(data_dir / "protein" / f"{name}.fasta", on_bad="skip").samples
    texts = [sample.text for sample in read if 30 <= len(sample.text) <= 300][:3000]
    found = greedy_clusters(KmerIndex(texts, filled=False))
    assert found.tolist() == straightforward_clusters(KmerIndex(texts), 0.5).tolist()


def test_clusters_by_identity_are_those_of_all_pairs() -> None:
    sequences = relatives(10, 6)
    index = KmerIndex(sequences, 4)
    for level in (0.5, 0.7, 0.9):
        leads: list[int] = []
        founders = {}
        for i in np.argsort(-index.sizes, kind="stable").tolist():
            shared = index.shared(index.words(i))
            near = sorted(
                (j for j in leads if shared[j] >= needed_words(level, int(index.sizes[i]))),
                key=lambda j: (-shared[j], j),
            )
            founders[i] = next(
                (j for j in near[:CANDIDATES] if identity(sequences[min(i, j)], sequences[max(i, j)]) >= level), i
            )
            leads += [i] * (founders[i] == i)
        numbers: dict[int, int] = {}
        expected = [numbers.setdefault(founders[i], len(numbers) + 1) for i in range(len(sequences))]
        assert cluster_columns(sequences)[f"cluster_{round(100 * level)}"] == expected
        assert (
            identity_clusters(index, level, lambda i, j, at: identity(sequences[min(i, j)], sequences[max(i, j)]) >= at)
            == expected
        )


def test_a_bad_letter_is_placed_in_its_own_sequence() -> None:
    with pytest.raises(InputError, match="letter 'X' at position 3"):
        KmerIndex(["MKVACDEF", "MKXACDEF"])


def test_split_leaves_no_relative_in_training() -> None:
    sequences = relatives(40, 3, seed=1)
    split = split_by_similarity(sequences, fraction=0.2)
    train = KmerIndex([sequences[i] for i in split.train])
    assert split.by_similarity and len(split.validation)
    for i in split.validation.tolist():
        assert train.containment(np.unique(kmer_codes(sequences[i], 5))).max() < 0.5
