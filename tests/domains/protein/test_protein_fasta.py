"""FASTA in and out: round trips, and one clear message for each way a file can be wrong."""

from __future__ import annotations

import gzip
import os
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_core.types import Sample
from didi_protein.fasta import read_fasta, write_fasta
from didi_protein.vocabulary import RESIDUES

words = st.text(alphabet=string.ascii_letters + string.punctuation + " éß\t", min_size=1, max_size=12).filter(
    lambda text: not any(c.isdigit() for c in text) and text.lstrip("+-") not in ("inf", "nan", "True", "False")
)
# A column of one kind: what a word is, is decided by the column.
info = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(-(10**6), 10**6),
        "nll": st.floats(allow_nan=False, allow_infinity=False),
        "kept": st.booleans(),
        "note": words,
    },
)
samples = st.builds(
    Sample,
    text=st.text(alphabet=RESIDUES, min_size=1, max_size=80),
    id=st.text(alphabet=string.ascii_letters + string.digits + "|._-", min_size=1, max_size=12),
    info=info,
)


def put(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(samples, min_size=1, max_size=5, unique_by=lambda sample: sample.id), st.sampled_from(["", ".gz"]))
def test_reading_inverts_writing(tmp_path: Path, written: list[Sample], suffix: str):
    path = tmp_path / f"x.fasta{suffix}"
    write_fasta(path, written)
    assert list(read_fasta(path).samples) == written


@pytest.mark.parametrize("name", ["x.fasta", "x.fasta.gz"])
def test_same_samples_same_bytes_and_nothing_else_left_in_the_folder(tmp_path: Path, name: str):
    natural = [Sample("MKV", "a", info={"nll": np.float64(2.5), "steps": 16, "note": "two words", "none": None})]
    write_fasta(tmp_path / name, natural)
    first = (tmp_path / name).read_bytes()
    write_fasta(tmp_path / name, natural)
    assert (tmp_path / name).read_bytes() == first
    assert os.listdir(tmp_path) == [name]
    assert (gzip.decompress(first) if name.endswith("gz") else first) == b">a nll=2.5 steps=16 note=two%20words\nMKV\n"


def test_gzip_is_told_by_its_bytes_not_its_name(tmp_path: Path):
    path = put(tmp_path / "plain.fasta", gzip.compress(b">a\nMKV\n"))
    assert read_fasta(path).samples[0].text == "MKV"


def test_what_is_accepted(tmp_path: Path):
    text = "\ufeff\r\n>a gene=blaOXA-114v class D score=0.5\r\nmkv\r\nAC D\r\n\r\n>b\nW\n>a\nWW"
    reading = read_fasta(put(tmp_path / "x.fa", text))
    assert [(s.id, s.text) for s in reading.samples] == [("a", "MKVACD"), ("b", "W"), ("a_2", "WW")]
    assert reading.samples[0].info == {"gene": "blaOXA-114v", "score": 0.5}
    assert reading.renamed == 1
    assert "3 sequences, 1 renamed" in reading.summary()


def test_a_new_id_never_collides_with_one_that_is_there(tmp_path: Path):
    reading = read_fasta(put(tmp_path / "x.fa", ">a\nM\n>a_2\nMM\n>a\nMMM\n>\nMMMM\n"))
    assert [sample.id for sample in reading.samples] == ["a", "a_2", "a_3", "seq_4"]
    assert reading.renamed == 2


WRONG_FILES = [
    (b"", "the file is empty"),
    (b"\n\n\n", "there is no record"),
    (b"MKV\n>a\nMKV\n", "line 1: 'MKV' stands before the first '>'"),
    (b"\n; comment\n>a\nMKV\n", "line 2: '; comment' stands before"),
    (b">a\nMK\0V\n", "line 2: binary data"),
    (b"\x00\x01\x02\x03\xff", "binary data|not UTF-8"),
    (b"\x89PNG\r\n\x1a\n", "byte 0x89 is not UTF-8 text"),
    (b">a caf\xe9\nMKV\n", "byte 0xe9 is not UTF-8 text"),
    (gzip.compress(b">a\n" + b"MKVW" * 500)[:-12], "gzip data is truncated or damaged"),
    (b"\x1f\x8b rubbish that only starts like gzip", "gzip data is .*damaged"),
    (gzip.compress(b""), "there is no record"),
]


@pytest.mark.parametrize("data, message", WRONG_FILES, ids=range(len(WRONG_FILES)))
@pytest.mark.parametrize("on_bad", ["skip", "error"])
def test_files_that_are_not_fasta(tmp_path: Path, data: bytes, message: str, on_bad: str):
    path = put(tmp_path / "wrong.fasta", data)
    with pytest.raises(InputError, match=message) as caught:
        read_fasta(path, on_bad=on_bad)
    assert str(path) in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path):
    with pytest.raises(InputError, match="nothing.fasta: no such file"):
        read_fasta(tmp_path / "nothing.fasta")
    with pytest.raises(InputError, match="this is a folder"):
        read_fasta(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_no_permission(tmp_path: Path):
    path = put(tmp_path / "x.fasta", ">a\nMKV\n")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read .Permission denied"):
        read_fasta(path)


BAD_RECORDS = [
    ("MKXW", r"letter 'X' at position 3 \(an unknown residue\)"),
    ("M*K", r"letter '\*' at position 2 \(a stop codon inside"),
    ("MK/AC", r"letter '/' at position 3 \(a break between chains"),
    ("MK:AC", r"letter ':' at position 3 \(a break between chains"),
    ("MK\nK-A", "letter '-' at position 4 .a gap"),
    ("M.K", r"letter '\.' at position 2"),
    ("BMK", "letter 'B' at position 1"),
    ("MZK", "letter 'Z' at position 2"),
    ("MUK", "letter 'U' at position 2 .selenocysteine"),
    ("MOK", "letter 'O' at position 2 .pyrrolysine"),
    ("MJK", "letter 'J' at position 2"),
    ("MK1", "letter '1' at position 3"),
    ("M\tK", "letter .* at position 2"),
    ("", "the record has no sequence"),
]


@pytest.mark.parametrize("sequence, message", BAD_RECORDS, ids=range(len(BAD_RECORDS)))
def test_a_bad_record_is_an_error_or_skipped_and_listed(tmp_path: Path, sequence: str, message: str):
    path = put(tmp_path / "x.fasta", f">good\nMKV\nACD\n>bad one\n{sequence}\n>last\nMKVA\n")
    with pytest.raises(InputError, match=rf"x.fasta, line 4, record 'bad': {message}.*Repair or remove the record"):
        read_fasta(path, on_bad="error")
    reading = read_fasta(path, on_bad="skip")
    assert [sample.id for sample in reading.samples] == ["good", "last"]
    [skipped] = reading.skipped
    assert (skipped.line, skipped.id) == (4, "bad")
    assert "1 skipped (line 4 'bad'" in reading.summary()


def test_everything_skipped_is_an_error(tmp_path: Path):
    path = put(tmp_path / "x.fasta", ">a\nMXV\n>b\nM*K\n")
    with pytest.raises(InputError, match="all 2 records were skipped.*line 1, record 'a': letter 'X'"):
        read_fasta(path, on_bad="skip")


def test_unknown_rule(tmp_path: Path):
    with pytest.raises(InputError, match="data.on_bad='ignore': choose 'skip' or 'error'"):
        read_fasta(tmp_path / "x", on_bad="ignore")


def test_what_cannot_be_written(tmp_path: Path):
    path = tmp_path / "x.fasta"
    with pytest.raises(InputError, match="id 'two words'"):
        write_fasta(path, [Sample("MK", "two words")])
    with pytest.raises(InputError, match="has no letters"):
        write_fasta(path, [Sample("", "a")])
    with pytest.raises(InputError, match="cannot write 'a b'=1"):
        write_fasta(path, [Sample("MK", "a", info={"a b": 1})])
    assert not path.exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: cannot be written"):
        write_fasta(tmp_path / "folder", [Sample("MK", "a")])
    assert os.listdir(tmp_path) == ["folder"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.fasta"
    write_fasta(path, [Sample("MK", "old")])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="x.fasta: cannot be written .No space left"):
        write_fasta(path, [Sample("MKV", "new")])
    assert path.read_text() == ">old\nMK\n"
    assert os.listdir(tmp_path) == ["x.fasta"]


def test_real_files(data_dir: Path):
    reading = read_fasta(data_dir / "protein" / "train_pdb_chains.fasta")
    assert len(reading.samples) == 11801 and not reading.skipped
    families = read_fasta(data_dir / "protein" / "train_amr_families.fasta", on_bad="skip")
    assert len(families.samples) + len(families.skipped) == 8320
    assert families.samples[0].info["gene"] == "blaOXA-114v"
