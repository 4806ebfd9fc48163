"""The domain keeps didi_core's contract, and what is DNA about it holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from didi_dna import DnaDomain
from didi_dna.metrics import has_promoter
from didi_dna.strands import reverse_complement
from didi_dna.synthetic import genes

from didi_core.errors import InputError
from didi_core.plugins import registry
from didi_core.testing import DomainContract
from didi_core.types import Domain, Sample


class TestDna(DomainContract):
    def make(self) -> Domain:
        return DnaDomain()


def test_it_is_found_by_its_entry_point() -> None:
    assert registry().domain("dna", {}).name == "dna"
    with pytest.raises(InputError, match="unknown key 'data.max_lenght'. Did you mean 'data.max_length'"):
        registry().domain("dna", {"max_lenght": 3})


def test_both_strands_are_one_sequence() -> None:
    assert reverse_complement("AACG") == "CGTT"
    domain = DnaDomain()
    texts = [s.text for part in domain.splits.values() for s in part]
    assert not {*texts} & {reverse_complement(text) for text in texts if reverse_complement(text) != text}
    row = np.array(domain.encode("AACG"))
    seen = {domain.decode(domain.augment(row, torch.Generator().manual_seed(i))) for i in range(20)}
    assert seen == {"AACG", "CGTT"}


def test_quality_is_the_same_for_either_strand() -> None:
    quality, samples = DnaDomain().quality(), genes(20, seed=5)
    other = [Sample(reverse_complement(sample.text)) for sample in samples]
    assert np.array_equal(quality.statistics(samples), quality.statistics(other))


def test_rna_is_read_and_other_letters_are_refused() -> None:
    domain = DnaDomain()
    assert domain.decode(domain.encode("acgu")) == "ACGT"
    with pytest.raises(InputError, match="letter 'N' at position 3 is not in the alphabet of dna: ACGT"):
        domain.encode("ACN")


def test_synthetic_genes_have_their_promoter() -> None:
    share = np.mean([has_promoter(sample.text) for sample in genes(300, seed=1, mutation=0.0)])
    assert share == 1
    assert {*map(len, (s.text for s in genes(300, seed=1)))} <= set(range(59, 80))


def test_untrained_teacher_names_the_command(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    monkeypatch.setenv("DIDI_DNA_TEACHER", str(tmp_path / "none"))
    with pytest.raises(InputError, match="run `python -m didi_dna` once"):
        DnaDomain().teacher()
