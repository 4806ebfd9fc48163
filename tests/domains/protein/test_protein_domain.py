"""The protein domain as the core sees it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from didi_core.errors import InputError
from didi_core.evaluation.cache import SampleCache
from didi_core.evaluation.measure import all_metrics
from didi_core.objectives.coupled import CouplingSettings
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.storage.fingerprint import model_hash
from didi_core.streams import generator
from didi_core.types import Sample
from didi_protein import VOCABULARY, ProteinDomain, create
from didi_protein.domain import asset


def test_template_masks_what_is_free_and_pins_the_rest():
    tokens = ProteinDomain().template([2, 4])
    assert tokens.tolist() == [[0, 32, 32, 2, 1, 1], [0, 32, 32, 32, 32, 2]]
    assert ((tokens == VOCABULARY.mask) == VOCABULARY.maskable(tokens)).all()
    assert VOCABULARY.lengths(tokens).tolist() == [4, 6]


@pytest.mark.parametrize("lengths", [[], [3, 0], [-1]])
def test_template_of_nothing_is_refused(lengths: list[int]):
    with pytest.raises(InputError, match="at least one letter"):
        ProteinDomain().template(lengths)


def test_bundled_lengths_are_inside_the_limits_and_reproducible():
    domain = ProteinDomain(min_length=50, max_length=120)
    drawn = domain.lengths(500, generator(0, "lengths"))
    assert drawn == domain.lengths(500, generator(0, "lengths"))
    assert set(drawn) <= set(range(50, 121)) and len(set(drawn)) > 10
    with pytest.raises(InputError, match=r"no bundled length lies in \[1, 5\]"):
        ProteinDomain(min_length=1, max_length=5).lengths(1, generator(0))


def test_lengths_of_own_data_have_its_frequencies(tmp_path: Path):
    domain = ProteinDomain()
    letters = ["".join(p) for p in itertools.islice(itertools.permutations("ACDEFGHIKL"), 0, 300000, 9000)]
    samples = [Sample(text * (3 if i % 4 else 5), f"p{i}") for i, text in enumerate(letters)]
    domain.write(tmp_path / "x.fasta", samples)
    own = ProteinDomain(tmp_path / "x.fasta")
    expected = Counter(len(sample.text) for sample in own.splits["train"])
    drawn = Counter(own.lengths(4000, generator(0)))
    assert set(drawn) == set(expected) == {30, 50}
    assert drawn[50] / 4000 == pytest.approx(expected[50] / expected.total(), abs=0.03)


def test_write_and_read_back(tmp_path: Path):
    samples = [Sample("MKV", "a", info={"steps": 16, "nll": 2.25}), Sample("WY", "b")]
    domain = ProteinDomain()
    domain.write(tmp_path / "x.fasta", samples)
    assert domain.read(tmp_path / "x.fasta") == samples


def test_batches_without_data_name_the_key():
    with pytest.raises(InputError, match="set data.path to a FASTA file"):
        ProteinDomain().batches("train", 4, 0)


def test_teacher_that_is_nowhere():
    pytest.importorskip("didi_core.checkpoints.card")
    with pytest.raises(InputError, match="unknown teacher 'bundle'.*Did you mean 'bundled'"):
        ProteinDomain().teacher("bundle")


def test_settings_of_the_data_group():
    domain = create(path="x.fasta", min_length=10, on_bad="error")
    assert domain.paths == (Path("x.fasta"),) and domain.on_bad == "error"
    assert create().paths == ()
    assert create(path=["a.fasta", "b.fasta"]).paths == (Path("a.fasta"), Path("b.fasta"))
    with pytest.raises(InputError, match="unknown key 'data.min_lenght'. Did you mean 'data.min_length'"):
        create(min_lenght=3)


def test_bundled_metrics_need_no_data():
    metrics = ProteinDomain().metrics()
    assert [metric.name for metric in metrics[:2]] == ["perplexity", "entropy"]


def test_bundled_reference_tells_proteins_from_controls():
    domain = ProteinDomain()
    metrics = {metric.name: metric for metric in all_metrics(domain)}
    found = domain.reference_statistics()
    assert list(found) == ["held-out data", "shuffled", "random", "repeats"]
    assert {name for rows in found.values() for name in rows} == set(metrics)

    def value(name: str, metric: str) -> float:
        return float(metrics[metric].aggregate(np.nanmean(found[name][metric], axis=0)))

    assert value("held-out data", "perplexity") < 0.5 * value("shuffled", "perplexity")
    assert value("held-out data", "dipeptide_kl") < value("shuffled", "dipeptide_kl") < value("random", "dipeptide_kl")
    assert value("repeats", "low_complexity") > 5 * value("held-out data", "low_complexity")
    assert value("repeats", "entropy") < value("held-out data", "entropy") < value("random", "entropy")


def test_no_natural_sequence_is_bundled():
    with pytest.raises(InputError, match="no proteins without data: set data.path"):
        ProteinDomain().held_out(3)


def test_bundled_teacher_writes_proteins():
    domain = ProteinDomain()
    made = generate(domain, domain.teacher(), settings=SamplerSettings(steps=4, law="stratified"), num=4, seed=1)
    assert all(30 <= len(s.text) <= 300 and set(s.text) <= set("ACDEFGHIKLMNPQRSTVWY") for s in made.samples)
    assert made.nfe.total == 4


def test_calls_matter_to_the_bundled_teacher():
    plain, best, *_ = json.loads((asset("teacher") / "card.json").read_text())["steps_matter"]
    assert (plain["law"], best["law"], best["grid"]) == ("iid", "stratified", "power")
    for curve in (plain["by_steps"], best["by_steps"]):
        assert list(curve) == ["1", "2", "4", "8", "16", "32", "64", "128", "256"]
        (many, _, highest), (few, lowest, _) = (curve[steps]["perplexity"] for steps in ("64", "2"))
        assert 1.5 * many < few and highest < lowest


def test_a_default_run_finds_the_samples_of_the_bundled_teacher():
    """256 for references, and as many as coupled noise asks for."""
    found = []
    for file in asset("samples").glob("*.jsonl"):
        making = json.loads(file.read_text().partition("\n")[0])["making"]
        assert making["model"] == model_hash(ProteinDomain().teacher())
        assert SampleCache(asset("samples")).path(making) == file
        assert making["settings"] == SamplerSettings(steps=64).record()
        found.append(making["num"])
    assert sorted(found) == [256, CouplingSettings().states.samples]


def test_statistics_are_in_the_package():
    assert asset("statistics.json").is_file()


def test_held_out_comes_from_the_validation_split(data_dir: Path):
    domain = ProteinDomain(data_dir / "protein" / "train_amr_families.fasta")
    rows = domain.held_out(50, 0)
    assert rows == domain.held_out(50, 0) != domain.held_out(50, 1)
    assert len(rows) == 50 and not {r.text for r in rows} & {s.text for s in domain.splits["train"]}
    assert all(30 <= len(row.text) <= 300 for row in rows)


def test_batches_of_real_proteins_decode_to_what_was_read(data_dir: Path):
    domain = ProteinDomain(data_dir / "protein" / "train_amr_families.fasta")
    known = {sample.text for sample in domain.splits["train"]}
    batch = next(domain.batches("train", 6, 0))
    assert batch.dtype == torch.int64
    assert all(domain.decode(row.tolist()) in known for row in batch)
