"""FASTA headers of other programs, words that look like numbers, and headers that are made to hurt."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from didi_core.errors import InputError
from didi_core.storage.fasta import Kinds, parse_header
from didi_core.storage.sample_files import read_file
from didi_core.types import Sample

MPNN = """>bb_0, score=1.6, global_score=1.6, fixed_chains=['B', 'C'], designed_chains=['A'], seed=37
MKV
>T=0.1, sample=1, score=0.79, seq_recovery=0.41
MKA
>T=0.1, sample=2, score=0.81, seq_recovery=0.42
MKC
>T=0.3, sample=1, score=0.83, seq_recovery=0.43
MKD
>bb_1, score=1.2, global_score=1.2, fixed_chains=[], designed_chains=['A'], model_name=v_48_020, seed=37
MKE
>T=0.1, sample=1, score=0.75, seq_recovery=0.44
MKF
"""
LIGAND = """>1BC8, T=0.1, seed=111, num_res=3, batch_size=1, model_path=./x.pt
MKV
>1BC8, id=1, T=0.1, seed=111, overall_confidence=0.38, seq_rec=0.5
MKA
>1BC8, id=2, T=0.1, seed=111, overall_confidence=0.39, seq_rec=0.5
MKC
"""


def read(folder: Path, text: str | bytes, name: str = "x.fa") -> dict[str, Sample]:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return {sample.id: sample for sample in read_file(path).samples}


def test_proteinmpnns_samples_are_named_after_their_backbone(tmp_path: Path) -> None:
    found = read(tmp_path, MPNN)
    assert [*found] == [
        "bb_0", "bb_0_T0.1_sample_1", "bb_0_T0.1_sample_2", "bb_0_T0.3_sample_1", "bb_1", "bb_1_T0.1_sample_1",
    ]  # fmt: skip
    assert found["bb_0_T0.1_sample_1"].info == {"sample": 1, "T": 0.1, "score": 0.79, "seq_recovery": 0.41}
    assert found["bb_0"].info["fixed_chains"] == "['B', 'C']" and found["bb_0"].info["seed"] == 37


def test_ligandmpnns_samples_are_named_by_their_number(tmp_path: Path) -> None:
    found = read(tmp_path, LIGAND)
    assert [*found] == ["1BC8", "1BC8_T0.1_sample_1", "1BC8_T0.1_sample_2"]
    assert found["1BC8_T0.1_sample_2"].info["overall_confidence"] == 0.39


@pytest.mark.parametrize(
    ("title", "name", "info"),
    [
        ("sp|P1|X Kinase, putative OS=Homo sapiens GN=abc", "sp|P1|X", {"OS": "Homo sapiens", "GN": "abc"}),
        (
            "tr|P1|X Putative a=b OS=Zea mays (maize) OX=4577 GN= SV=1 plddt=80",
            "tr|P1|X",
            {"a": "b", "OS": "Zea mays (maize)", "OX": "4577", "SV": "1", "plddt": "80"},
        ),
        ("sp|P1|X OS=Homo%20sapiens", "sp|P1|X", {"OS": "Homo sapiens"}),
        ("a x=1 y=two%20words", "a", {"x": "1", "y": "two words"}),
        ("", "", {}),
        ("a\tx=1\ty=2", "a", {"x": "1", "y": "2"}),
        ("a\u2028b x=1", "a", {"x": "1"}),
        ("a x=1\u2028y z=\x85w", "a", {"x": "1\u2028y", "z": "\x85w"}),
        ("a =1 b= c==2", "a", {"c": "=2"}),
    ],
)
def test_other_headers_are_words(title: str, name: str, info: dict) -> None:
    assert parse_header(title) == (name, info)


def typed(word: str) -> object:
    kinds = Kinds()
    kinds.see({"key": word})
    return kinds.typed("key", word)


@pytest.mark.parametrize("word", ["007", "-01", "00", "007.5", "01e3"])
def test_what_begins_with_zeros_is_no_number(word: str) -> None:
    assert typed(word) == word


@pytest.mark.parametrize("word", ["0", "0.5", "-0.5", "10", "1e-05", "0e3", ".5"])
def test_numbers_are_numbers(word: str) -> None:
    assert typed(word) == float(word)


def test_a_column_is_numbers_only_where_every_word_is_one(tmp_path: Path) -> None:
    text = ">a GN=nan OX=7227 n=1 f=1e999\nM\n>b GN=iav OX=7 n=2.5 f=1\nM\n>c GN=1433 OX=8\nM\n"
    found = read(tmp_path, text)
    assert [s.info["GN"] for s in found.values()] == ["nan", "iav", "1433"]
    assert [s.info["OX"] for s in found.values()] == [7227, 7, 8]
    assert found["a"].info["n"] == 1 and found["b"].info["n"] == 2.5
    assert found["a"].info["f"] == "1e999", "what no float holds stays a word"


@pytest.mark.parametrize("word", ["1" * 60_000 + "x", "1" * 5000, "1." * 30_000, "e" * 60_000, "[" * 60_000])
def test_headers_made_to_hurt_are_words(word: str) -> None:
    """A pattern that goes back would take minutes over each of them."""
    assert parse_header(f"a f={word}") == ("a", {"f": word})
    assert typed(word) == word


def test_the_same_bytes_are_the_same_samples_whatever_they_are_called(tmp_path: Path) -> None:
    data = "\ufeff>a x=1\r\nmk\r\nv\r\n>b\nmka".encode()
    expected = read(tmp_path, data)
    assert {name: sample.text for name, sample in expected.items()} == {"a": "mkv", "b": "mka"}
    for name in ("x.fasta", "x.faa", "x.fas", "x.FA", "x.fna", "x", "x.fa.gz", "x.unknown"):
        packed = gzip.compress(data) if name.endswith("gz") else data
        assert read(tmp_path, packed, name) == expected
    assert read(tmp_path, gzip.compress(data), "packed.fa") == expected, "gzip is recognised by its bytes"


def test_what_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.fa.gz"
    path.write_bytes(gzip.compress(b">a\n" + b"MKV\n" * 100_000))
    with pytest.raises(InputError, match="more than 10,000 bytes. If that is right, unpack it.*data.unpacked_limit"):
        read_file(path, unpacked=10_000)
