"""Tables of values: separators, quotes, columns by name, and rows that are cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from didi_core.errors import InputError
from didi_core.storage.sample_files import read_file
from didi_core.storage.tables import table_records
from didi_protein import ProteinDomain


def put(folder: Path, text: str, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_told_by_the_first_line(tmp_path: Path, separator: str) -> None:
    rows = [["id", "sequence", "gene", "n"], ["a", "MKV", "nan", "1"], ["b", "MKA", "x", "2.5"]]
    path = put(tmp_path, "\ufeff" + "\r\n".join(separator.join(row) for row in rows))
    first, second = read_file(path).samples
    assert (first.id, first.text, first.info) == ("a", "MKV", {"gene": "nan", "n": 1})
    assert (second.id, second.text, second.info) == ("b", "MKA", {"gene": "x", "n": 2.5})


def test_quoted_cells_hold_separators_and_lines_and_numbers_of_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = put(tmp_path, 'text,note\n"a\nb","x, y"\n\nc,"say ""hi"""\n')
    found = list(table_records(path))
    assert [(r.line, r.text, r.info) for r in found] == [
        (2, "a\nb", {"note": "x, y"}),
        (5, "c", {"note": 'say "hi"'}),
    ]


def test_rows_that_are_cut_short_are_named_with_their_line(tmp_path: Path) -> None:
    path = put(tmp_path, "id,text\na,MKV\nb\nc,MKA,more\n")
    with pytest.raises(InputError, match=r"x.csv, line 3: 1 cells where the first line names 2 columns"):
        read_file(path)
    reading = read_file(path, on_bad="skip")
    assert [sample.id for sample in reading.samples] == ["a"] and [s.line for s in reading.skipped] == [3, 4]
    with pytest.raises(InputError, match=r"x.csv, line 2: no row of a table"):
        read_file(put(tmp_path, 'text\n"never closed\n'))


def test_the_column_is_text_or_sequence_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path, "name,protein\na,MKV\n")
    with pytest.raises(InputError, match="no column 'text' or 'sequence': set data.column to one of: name, protein"):
        read_file(path)
    with pytest.raises(InputError, match="unknown text column 'protien'.*Did you mean 'protein'"):
        read_file(path, column="protien")
    assert read_file(path, column="protein").samples[0].text == "MKV"
    rows = put(tmp_path, '{"protein": "MKV", "text": "not this"}\n', "x.jsonl")
    assert read_file(rows, column="protein").samples[0].text == "MKV"


def test_a_domain_reads_a_table_as_it_reads_fasta(tmp_path: Path) -> None:
    sequences = ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" + letter for letter in "ACDEFGHIKLMNPQRSTVWY"]
    table = put(tmp_path, "id,aa\n" + "".join(f"p{i},{text.lower()}\n" for i, text in enumerate(sequences)))
    fasta = put(tmp_path, "".join(f">p{i}\n{text}\n" for i, text in enumerate(sequences)), "x.fasta")
    assert ProteinDomain(table, column="aa").samples == ProteinDomain(fasta).samples


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.csv", b"text,n\xff\nMKV,1\n", "line 1: byte 0xff is not UTF-8"),
        ("x.csv", b"text,n,text\nMKV,1,A\n", "line 1: two columns are named 'text'"),
        ("x.jsonl", b'{"id": "\\ud800", "text": "MKV"}\n', "line 1: a value beside the text holds half of a character"),
        ("x.jsonl", b'{"text": "MKV", "a": {"b": ["\\uDFFF"]}}\n', "half of a character"),
        ("x.jsonl", b'{"text": "MKV", "\\ud801": 1}\n', "half of a character"),
        ("x.json", b'[{"text": "MKV"}, {"text": "A", "id": "\\ud800"}]', "line 2: .*half of a character"),
    ],
)
def test_what_could_not_be_written_again_is_not_read(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_file(tmp_path / name)


def test_two_halves_are_a_character(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "MKV", "a": "\\ud83d\\ude00"}\n')
    assert read_file(tmp_path / "x.jsonl").samples[0].info == {"a": "\U0001f600"}
