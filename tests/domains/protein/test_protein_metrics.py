"""Each metric on cases with a known answer, and on real proteins against the negative controls."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.metrics import DistinctFraction
from didi_core.types import Metric, Sample
from didi_protein import ProteinDomain
from didi_protein.controls import controls
from didi_protein.metrics import protein_metrics
from didi_protein.metrics.complexity import low_complexity, low_complexity_fraction
from didi_protein.metrics.composition import UNIREF50, composition_divergence, dipeptide_divergence
from didi_protein.metrics.diversity import ClusterFraction, DistinctWords, PairDistance
from didi_protein.metrics.entropy import PositionalDiversity, token_entropy
from didi_protein.metrics.protparam import properties
from didi_protein.metrics.repeats import longest_run, repeated_words, top_share
from didi_protein.nearest.words import WordSearch
from didi_protein.vocabulary import RESIDUES

ALL = RESIDUES
proteins = st.text(alphabet=RESIDUES, min_size=1, max_size=80)


def value(metric: Metric, samples: list[Sample] | list[str]) -> float:
    samples = [s if isinstance(s, Sample) else Sample(s) for s in samples]
    return float(metric.aggregate(np.nanmean(metric.statistics(samples), axis=0)))


# --- known answers


def test_divergence_is_zero_for_the_reference_itself():
    counts = np.round(UNIREF50 / 2000).astype(int)
    text = "".join(letter * n for letter, n in zip(RESIDUES, counts, strict=True))
    assert value(composition_divergence(), [text]) == pytest.approx(0, abs=1e-6)
    pairs = [a + b for a in ALL for b in ALL]
    assert value(dipeptide_divergence(pairs), pairs) == pytest.approx(0, abs=1e-12)


def test_composition_of_uniform_residues_as_published():
    assert value(composition_divergence(), [ALL]) == pytest.approx(0.130, abs=0.02)


def test_dipeptides_may_come_as_counts():
    reference = ["MKVACD", "WWWYKK"]
    counts = np.rint(dipeptide_divergence(reference).reference - 1).astype(np.int64)
    assert value(dipeptide_divergence(counts), ["MKMKV"]) == value(dipeptide_divergence(reference), ["MKMKV"])


def slow_seg(sequence: str) -> list[bool]:
    """The definition, window by window."""

    def entropy(window: str) -> float:
        shares = [window.count(letter) / 12 for letter in set(window)]
        return -sum(p * math.log2(p) for p in shares)

    entropies = [entropy(sequence[i : i + 12]) for i in range(len(sequence) - 11)]
    marked = [False] * len(sequence)
    for trigger, bits in enumerate(entropies):
        if bits > 2.2:
            continue
        first = last = trigger
        while first > 0 and entropies[first - 1] <= 2.5:
            first -= 1
        while last + 1 < len(entropies) and entropies[last + 1] <= 2.5:
            last += 1
        marked[first : last + 12] = [True] * (last + 12 - first)
    return marked


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["ACD", "K", "QP", ALL]), st.integers(1, 25), st.integers(0, 99)), max_size=5)
)
def test_low_complexity_is_its_definition(parts: list[tuple[str, int, int]]):
    text = "".join("".join(np.random.default_rng(s).choice(list(a), size=n)) for a, n, s in parts)
    assert low_complexity(text).tolist() == slow_seg(text)


def test_low_complexity_of_extremes():
    assert low_complexity_fraction("A" * 30) == 1.0
    assert low_complexity_fraction(ALL * 3) == 0.0
    assert math.isnan(low_complexity_fraction("MKVACDEFGHI"))


def test_repeats():
    assert longest_run("MKKKVAAW") == 3 and longest_run("M") == 1
    assert top_share("MKKKVAAW") == 3 / 8
    assert repeated_words("MKVMKVMKV") == pytest.approx(1 - 3 / 7)
    assert math.isnan(repeated_words("MK"))


@given(proteins)
def test_entropy_lies_between_zero_and_the_logarithm_of_the_letters(text: str):
    entropy = token_entropy().statistics([Sample(text)]).item()
    assert -1e-12 <= entropy <= math.log(len(set(text))) + 1e-12


def test_entropy_known():
    one, all_of_them = token_entropy().statistics([Sample("A" * 9), Sample(ALL * 2)])[:, 0]
    assert one == 0.0 and all_of_them == pytest.approx(math.log(20))


def test_diversity_of_copies_and_of_strangers():
    random = np.random.default_rng(0)
    strangers = ["".join(random.choice(list(ALL), size=60)) for _ in range(60)]
    copies = [strangers[i % 6] for i in range(60)]
    assert value(DistinctFraction(), strangers) == 1 and value(DistinctFraction(), copies) == 0.1
    assert value(ClusterFraction(), strangers) == 1 and value(ClusterFraction(), copies) == 0.1
    assert value(DistinctWords(), copies) == pytest.approx(value(DistinctWords(), strangers[:6]) / 10)
    assert value(PairDistance(), copies) == pytest.approx(50 / 59 * value(PairDistance(), strangers), abs=0.01)
    assert value(PositionalDiversity(), copies) < math.log(6) + 1e-9 < 2.7 < value(PositionalDiversity(), strangers)


def test_positional_diversity_is_the_entropy_of_columns():
    assert value(PositionalDiversity(positions=3), ["AC", "AD"]) == pytest.approx(math.log(2) / 2)


def test_properties_against_known_values():
    found = properties("MKVLAAGIVGLLLAQPSFA")
    assert found["molecular_weight"] == pytest.approx(1899.37, abs=0.1)  # sum of average masses
    assert found["aromaticity"] == pytest.approx(1 / 19)
    hydropathy = {"M": 1.9, "K": -3.9, "V": 4.2, "L": 3.8, "A": 1.8, "G": -0.4, "I": 4.5, "Q": -3.5, "P": -1.6}
    hydropathy |= {"S": -0.8, "F": 2.8}  # Kyte and Doolittle
    assert found["gravy"] == pytest.approx(np.mean([hydropathy[letter] for letter in "MKVLAAGIVGLLLAQPSFA"]))


def test_nearest_neighbour_is_found_through_substitutions_and_gaps():
    random = np.random.default_rng(0)
    reference = tuple("".join(random.choice(list(ALL), size=80)) for _ in range(50))
    search = WordSearch(reference)
    itself = search.nearest(reference[7])
    assert (itself.index, itself.identity, itself.coverage) == (7, 1.0, 1.0)
    part = search.nearest(reference[7][:40])
    assert (part.index, part.identity) == (7, 1.0)
    gapped = search.nearest(reference[7][:40] + reference[7][45:])
    assert (gapped.index, gapped.identity, gapped.coverage) == (7, 1.0, 1.0)
    half = search.nearest(reference[7][:40] + "".join(reversed(reference[9][:40])))
    assert half.index == 7 and 0.5 <= half.identity < 0.7
    assert search.nearest("WWWW").index is None


# --- the protocol


def test_every_metric_keeps_the_protocol_and_skips_what_it_cannot_measure():
    metrics = protein_metrics(["MKVACDEFGH" * 3], neighbours=WordSearch(("MKVACDEFGH" * 3,)))
    assert len({metric.name for metric in metrics}) == len(metrics)
    samples = [Sample(text) for text in ("MKVACDEFGHIK" * 3, "MKV", "W", ALL)]
    for metric in metrics:
        assert isinstance(metric, Metric)
        statistics = metric.statistics(samples)
        assert statistics.dtype == np.float64 and statistics.shape[0] == len(samples), metric.name
        rows = np.isnan(statistics)
        assert (rows.all(1) == rows.any(1)).all(), f"{metric.name}: a sample is undefined as a whole or not at all"
        resampled = np.stack([np.nanmean(statistics, axis=0)] * 3)
        assert metric.aggregate(resampled).shape == (3,), metric.name
        assert np.isfinite(metric.aggregate(resampled)).all(), metric.name


def test_judge_comes_first_then_the_entropy():
    judge = dipeptide_divergence(["MKV"])
    assert [m.name for m in protein_metrics(["MKV"])][:2] == ["dipeptide_kl", "entropy"]
    assert protein_metrics(["MKV"], judge=judge)[0] is judge
    assert protein_metrics(["MKV"], judge=judge)[1].name == "entropy"


# --- controls


@settings(max_examples=30, deadline=None)
@given(st.lists(proteins, min_size=1, max_size=4), st.integers(0, 5))
def test_controls_keep_lengths_and_are_a_function_of_the_seed(texts: list[str], seed: int):
    natural = [Sample(text) for text in texts]
    made = controls(natural, seed)
    assert made == controls(natural, seed) and list(made) == ["shuffled", "random", "repeats"]
    for rows in made.values():
        assert [len(row.text) for row in rows] == [len(text) for text in texts]
    for row, text in zip(made["shuffled"], texts, strict=True):
        assert sorted(row.text) == sorted(text)
    for row in made["repeats"]:
        assert longest_run(row.text) >= len(row.text) // 3


@pytest.fixture(scope="module")
def natural(data_dir: Path) -> tuple[ProteinDomain, dict[str, list[Sample]]]:
    domain = ProteinDomain(data_dir / "protein" / "train_pdb_chains.fasta")
    held_out = domain.held_out(300, 0)
    return domain, {"natural": held_out, **domain.controls(held_out, 0)}


def test_metrics_separate_natural_proteins_from_the_controls(natural: tuple[ProteinDomain, dict[str, list[Sample]]]):
    domain, rows = natural
    found = {m.name: {name: value(m, row) for name, row in rows.items()} for m in domain.metrics()}
    for name, low, high in [
        ("composition_kl", 0.0, 0.02),
        ("dipeptide_kl", 0.0, 0.02),
        ("low_complexity", 0.02, 0.12),
        ("low_complexity_rows", 0.0, 0.12),
        ("longest_run", 2.7, 4.5),
        ("top_residue", 0.10, 0.15),
        ("crowded_rows", 0.0, 0.03),
        ("repeated_3mers", 0.01, 0.06),
        ("nn_identity", 0.05, 0.2),
    ]:
        assert low <= found[name]["natural"] <= high, (name, found[name])
    for name in ("low_complexity", "longest_run", "top_residue", "repeated_3mers"):
        assert found[name]["repeats"] > 2 * found[name]["natural"], name
        assert found[name]["random"] < found[name]["natural"], name
    assert found["crowded_rows"]["repeats"] > 0.99 and found["low_complexity_rows"]["repeats"] > 0.99
    assert found["entropy"]["repeats"] < found["entropy"]["natural"] < found["entropy"]["random"]
    assert found["composition_kl"]["random"] > 10 * found["composition_kl"]["natural"]
    # Order is seen by the pairs alone: composition is blind to shuffling, and it is right that it is.
    assert found["composition_kl"]["shuffled"] == pytest.approx(found["composition_kl"]["natural"])
    pairs = found["dipeptide_kl"]
    assert pairs["natural"] * 2 < pairs["shuffled"] < pairs["random"] < pairs["repeats"]
    assert found["nn_identity"]["shuffled"] < found["nn_identity"]["natural"]


def test_neighbours_of_families_tell_relatives_from_strangers(data_dir: Path):
    domain = ProteinDomain(data_dir / "protein" / "train_amr_families.fasta")
    rows = domain.held_out(60, 0)
    identity = {m.name: m for m in domain.metrics()}["nn_identity"]
    made = domain.controls(rows, 0)
    assert value(identity, rows) > 0.4 > 4 * value(identity, made["shuffled"])


def test_a_collapsed_set_shows_in_the_set_metrics_only(natural: tuple[ProteinDomain, dict[str, list[Sample]]]):
    domain, rows = natural
    collapsed = [rows["natural"][i % 10] for i in range(len(rows["natural"]))]
    metrics = {metric.name: metric for metric in domain.metrics()}
    for name in ("distinct", "clusters", "distinct_4", "positional_entropy", "pair_distance"):
        assert value(metrics[name], collapsed) < 0.95 * value(metrics[name], rows["natural"]), name
    assert value(metrics["entropy"], collapsed) == pytest.approx(value(metrics["entropy"], rows["natural"]), abs=0.1)
