"""Readers and parsers on mutated inputs: each one is read, or refused with an InputError, and terminates.

A good input of every kind is mutated: bytes are changed, pieces deleted, repeated and put in from a list of what has
hurt parsers before. The fast suite tries some of each; ``pytest -m slow -s`` tries many and prints how many.
"""

from __future__ import annotations

import gzip
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

from didi_core.domain.conditioning import read_template
from didi_core.errors import InputError
from didi_core.sampling.generate import length_ranges
from didi_core.sequences import AlphabetDomain
from didi_core.storage.fasta import parse_header
from didi_core.storage.sample_files import read_file
from didi_language.conditioning import gapped
from didi_language.sources import Source
from didi_language.tokenizer import load_tokenizer
from didi_protein import ProteinDomain
from didi_protein.contig import Contig, either_way
from didi_protein.design_report import read_designs
from didi_protein.structure_file import ResidueRange, StructureFile
from didi_toy.domain import ToySettings

FEW, MANY = 60, 3000
PATIENCE = 20  # seconds after which an input counts as a hang; they take milliseconds

ATOMS = "".join(
    f"ATOM  {i:5d}  CA  GLY A{i:4d}    {i:8.3f}{0:8.3f}{0:8.3f}{1:6.2f}{50:6.2f}           C  \n" for i in range(1, 6)
)
COLUMNS = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
    "B_iso_or_equiv", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num",
)  # fmt: skip
MMCIF = "data_s\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in COLUMNS) + "".join(
    f"ATOM {i} C CA . GLY A 1 {i} ? {i}.0 0.0 0.0 1.0 50.0 {i} GLY A CA 1\n" for i in range(1, 4)
)  # fmt: skip
HURTS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b"\xe2\x80\xa8", b">", b"{", b"[", b'"', b"'", b",", b";",
    b"\t", b"=", b"-", b"/", b":", b"_", b"[[", b"]]", b"*", b"nan", b"inf", b"1e999", b"9" * 5000, b"1" * 300 + b"x",
    b"[" * 2000, b'{"a":' * 500, b"-1", b"0", b"null", b"true", b"\\ud800", b"MKV", b"T=0.1, sample=1", b"a=b ",
    b"data_", b"loop_\n", b"_atom_site.id\n", b"ATOM  ", b"HETATM", b"MODEL        1\n", b"ENDMDL\n", b"A1-9999999999",
    b"$", b"#", b"\x1f\x8b", "é".encode(), "٣".encode(), "²".encode(), b" " * 100,
]  # fmt: skip


class Hung(BaseException):
    """An input that is not done with in time; no handler of exceptions takes it for one of its own."""


@contextmanager
def limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(random: np.random.Generator, data: bytes) -> bytes:
    """A few changes, seldom packed, seldom cut after packing."""
    for _ in range(int(random.integers(1, 6))):
        start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
        piece, kind = data[start : min(end, start + 40)], random.integers(6)
        if kind == 0 and data:
            at = int(random.integers(len(data)))
            data = data[:at] + bytes([int(random.integers(256))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:start] + data[start + len(piece) :]
        elif kind == 2:
            data = data[:start] + piece * int(random.integers(2, 4)) + data[start:]
        elif kind in (3, 4):
            data = data[:start] + HURTS[int(random.integers(len(HURTS)))] + data[start:]
        else:
            data = data[:end] if random.random() < 0.3 else data
    if random.random() < 0.1:
        data = gzip.compress(data, mtime=0)
        data = data[: int(random.integers(len(data)))] if random.random() < 0.5 else data
    return data


# --- readers of files: a name, good content, and what reads it


class Letters(AlphabetDomain):
    name, alphabet = "letters", ("M", "K", "V", "Mk", "Vv")


def texts(path: Path) -> None:
    for on_bad in ("error", "skip"):
        list(Source((str(path),), on_bad=on_bad).read())


def structure(path: Path) -> None:
    StructureFile(path).sequence(ResidueRange("A", 1, 3))


def designs(path: Path) -> None:
    read_designs(path.parent)


def proteins(path: Path) -> None:
    for on_bad in ("error", "skip"):
        ProteinDomain(path, on_bad=on_bad, min_length=1, allow_loss=True).data_report()


FASTA = b">a x=1 y=two\nMKV\nMKV*\n>b x=2\nMKVAC\n>T=0.1, sample=1, score=0.5\nACDEF\n>c\nMKVW\n"
ROWS = b'{"id": "a", "text": "MKV", "n": 1}\n{"text": "MKVA", "tokens": [1, 2]}\n{"text": "ACDE"}\n'
TABLE = b'id,text,n\na,MKV,1\n"b","MKVA",nan\nc,ACDEF,3\n'
SCORES = b'{"id": "a", "sequence": "MKV", "plddt": 8, "plddt_per_residue": [8, 8, 8]}\n{"id": "b", "sequence": "M"}\n'
FILES: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "FASTA": ("x.fasta", FASTA, lambda path: read_file(path, on_bad="skip")),
    "FASTA strictly": ("x.fa", b">a x=1\nMKV\n>b\nMkVv\n", lambda path: Letters().read(path)),
    "proteins of FASTA": ("x.faa", FASTA, proteins),
    "proteins of JSON lines": ("x.jsonl", ROWS, proteins),
    "proteins of a table": ("x.csv", TABLE, proteins),
    "JSON lines": ("x.jsonl", ROWS, lambda path: read_file(path, on_bad="skip")),
    "a JSON list": ("x.json", b'[{"text": "MKV"}, {"text": "A", "n": [1, {}]}]', lambda p: read_file(p, on_bad="skip")),
    "a table": ("x.tsv", TABLE.replace(b",", b"\t"), lambda path: read_file(path, on_bad="skip")),
    "lines": ("x.txt", b"MKV\n\nMk\nVv\n", lambda path: Letters().read(path)),
    "a file without a name": ("x", FASTA, lambda path: read_file(path, on_bad="skip")),
    "documents": ("x.txt", b"one\n\n\ntwo\n\n\nthree", texts),
    "documents of JSON lines": ("x.jsonl", ROWS, texts),
    "documents of a table": ("x.csv", TABLE, texts),
    "PDB": ("x.pdb", ATOMS.encode(), structure),
    "mmCIF": ("x.cif", MMCIF.encode(), structure),
    "scores": ("scores.jsonl", SCORES, designs),
}

# --- parsers of what is typed


def contig(text: str) -> None:
    made = Contig.parse(text, lambda wanted: "G" * len(wanted))
    made.draw(None, torch.Generator())
    either_way(text, ["1", "A"])


TYPED: dict[str, tuple[str, Callable[[str], object]]] = {
    "a header": ("T=0.1, sample=1, score=0.79, designed_chains=['A', 'B'] x=1 y=%20", parse_header),
    "a contig": ("[5-10/MKX/A12-30/1:3-5/20]", contig),
    "a template": ("MKV__Mk_", lambda text: read_template(Letters(), text)),
    "a protein's template": ("MKV__XAC", lambda text: read_template(ProteinDomain(), text)),
    "gaps": ("the cat [[12]] sat [[*]] on", lambda text: gapped(load_tokenizer(), text, 254)),
    "a range of lengths": ("80-120", length_ranges),
    "the toy's length": ("16-32", lambda text: ToySettings(length=text)),
    "letters": ("MkVvMKV", lambda text: Letters().encode(text)),
}


def tried(make: Callable[[np.random.Generator], Callable[[], object]], count: int, seed: int) -> Counter[str]:
    """How inputs ended: read, refused, hung, or with another exception (its name and the number of the input)."""
    ends: Counter[str] = Counter()
    for number in range(count):
        go = make(np.random.default_rng((seed, number)))
        try:
            with limited():
                go()
            ends["read"] += 1
        except InputError:
            ends["refused"] += 1
        except Hung:
            ends[f"hung: input {number}"] += 1
        except Exception as error:
            ends[f"{type(error).__name__}: {str(error)[:60]} (input {number})"] += 1
    return ends


def try_files(name: str, folder: Path, count: int, seed: int) -> Counter[str]:
    file, good, read = FILES[name]
    path = folder / file
    path.write_bytes(good)
    read(path)  # the content that is mutated is good

    def make(random: np.random.Generator) -> Callable[[], object]:
        path.write_bytes(mutated(random, good))
        return lambda: read(path)

    return tried(make, count, seed)


def try_typed(name: str, count: int, seed: int) -> Counter[str]:
    good, parse = TYPED[name]
    parse(good)

    def make(random: np.random.Generator) -> Callable[[], object]:
        text = mutated(random, good.encode()).decode("utf-8", "replace")
        return lambda: parse(text)

    return tried(make, count, seed)


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    assert {*try_files(name, tmp_path, FEW, 0)} <= {"read", "refused"}


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_is_read_or_refused(name: str) -> None:
    assert {*try_typed(name, FEW, 0)} <= {"read", "refused"}


@pytest.mark.slow
def test_many_inputs_are_read_or_refused(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    for name in FILES:
        (folder := tmp_path / name.replace(" ", "_")).mkdir()
        ends += try_files(name, folder, MANY, 1)
    for name in TYPED:
        ends += try_typed(name, MANY, 1)
    print(f"{ends.total():,} inputs: {dict(ends)}")
    assert {*ends} <= {"read", "refused"}
