"""Anybody's samples: read by suffix, refused with file and line, merged by label."""

from __future__ import annotations

from pathlib import Path

import pytest

from didi_core.errors import InputError
from didi_core.evaluation.contenders import Measuring
from didi_core.evaluation.evaluate import evaluate_files
from didi_core.evaluation.held_out import overlap_notes
from didi_core.run import Run
from didi_core.storage.sample_files import read_samples, read_sets
from didi_core.types import Sample
from didi_toy import ToyDomain


@pytest.fixture(scope="module")
def domain() -> ToyDomain:
    return ToyDomain()


@pytest.fixture(scope="module")
def texts(domain: ToyDomain) -> list[str]:
    return [sample.text for sample in domain.held_out(60, 3)]


def test_every_format_gives_the_same_samples(domain: ToyDomain, texts: list[str], tmp_path: Path) -> None:
    domain.write(tmp_path / "a.jsonl", [Sample(text) for text in texts])
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "a.fa").write_text("".join(f">s{i} x=1\n{t[:9]}\n{t[9:]}\n" for i, t in enumerate(texts)))
    for name in ("a.jsonl", "a.txt", "a.fa"):
        assert [sample.text for sample in read_samples(domain, tmp_path / name)] == texts
    assert read_samples(domain, tmp_path / "a.fa")[1].id == "s1"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"abc\nabZ\n", "a.txt, line 2: letter 'Z'"),
        ("a.txt", b"MKT\n", r"line 1: .*another domain than toy"),
        ("a.txt", b"ab\n\xffc\n", "a.txt, line 2: byte 0xff is not UTF-8"),
        ("a.txt", b"", "the file is empty"),
        ("a.txt", b"\n\nab", None),
        ("a.fasta", b"ab\n>x\nab\n", "line 1: 'ab' stands before the first '>'"),
        ("a.fasta", b">x\nab\n>y\nabZ\n", "a.fasta, line 3, record 'y': letter 'Z'"),
        ("a.fasta", b">x\n>y\n", "all of its 2 samples are empty"),
        ("a.jsonl", b'{"text": "ab"}\n{"text": "a', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"text": ""}\n', "all of its 1 samples are empty"),
    ],
)
def test_bad_files_are_told_with_their_line(
    domain: ToyDomain, tmp_path: Path, name: str, content: bytes, said: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    if said is None:
        assert [s.text for s in read_samples(domain, tmp_path / name)] == ["", "", "ab"]
        return
    with pytest.raises(InputError, match=said):
        read_samples(domain, tmp_path / name)


def test_missing_file(domain: ToyDomain, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        read_samples(domain, tmp_path / "none.txt")


def test_labels_must_be_as_many_as_files(domain: ToyDomain, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels=\['a'\] are 1 for 2 files"):
        read_sets(domain, [tmp_path / "x.txt", tmp_path / "y.txt"], ["a"])


def test_parts_of_one_label_are_the_whole(domain: ToyDomain, texts: list[str], tmp_path: Path) -> None:
    for name, part in (("whole", texts), ("one", texts[:25]), ("two", texts[25:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part) + "\n")
    paths = [tmp_path / f"{name}.txt" for name in ("whole", "one", "two")]
    sets = read_sets(domain, paths, ["whole", "parts", "parts"])
    found = evaluate_files(Run(domain), sets, Measuring(30, resamples=50))
    rows = {row.model: row for row in found.rows}
    assert rows["parts"].n == rows["whole"].n == 60
    assert rows["parts"].values == rows["whole"].values


def test_empty_samples_and_one_length_are_told(domain: ToyDomain, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(["", *texts]) + "\n")
    (tmp_path / "b.txt").write_text("\n".join(texts) + "\n")
    sets = read_sets(domain, [tmp_path / "a.txt", tmp_path / "b.txt"])
    found = evaluate_files(Run(domain), sets, Measuring(30, resamples=20))
    assert "a.txt: 1 of 61 samples are empty, and left out by metrics that need tokens." in found.notes
    assert any(note.startswith("b.txt: all samples have 32 characters") for note in found.notes)
    row = next(row for row in found.rows if row.model == "a.txt")
    assert (row.values["nll"].n, row.values["nll"].left_out) == (60, 1)


def test_metric_is_skipped_where_too_few_samples_define_it(domain: ToyDomain) -> None:
    few = [Sample("")] * 8 + [Sample("ab" * 16)] * 4
    found = evaluate_files(Run(domain), {"few": few}, Measuring(30, resamples=20))
    skipped = found.rows[-1].skipped
    assert skipped["pair_kl"] == "needs at least 10 samples, and is defined for 4 of 12"
    assert skipped["energy"] == "needs at least 20 samples, got 12"


def test_reference_that_overlaps_the_training_set_is_told_with_the_count(domain: ToyDomain, texts: list[str]) -> None:
    class Trained(ToyDomain):
        def training_set(self) -> list[str]:
            return texts[:7]

    samples = [Sample(text) for text in texts]
    (note,) = overlap_notes(Trained(), samples)
    assert note.startswith("7 of the 60 reference sequences are in the training set")
    assert overlap_notes(domain, samples) == ()
    found = evaluate_files(Run(Trained()), {"a": samples[30:]}, Measuring(30, reference=samples[:30], resamples=20))
    assert found.rows[0].n == 30 and found.notes[0].startswith("7 of the 30")
