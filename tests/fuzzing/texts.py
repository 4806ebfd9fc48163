"""Readers of sequences, documents and structures, and parsers of what is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from didi_core.commands.grammar import choices, read
from didi_core.commands.setting import parse
from didi_core.domain.conditioning import read_template
from didi_core.sampling.batching import length_ranges
from didi_core.sequences import AlphabetDomain
from didi_core.storage.fasta import parse_header, write_fasta
from didi_core.storage.jsonl import write_jsonl
from didi_core.storage.sample_files import read_file, read_sets
from didi_language import create
from didi_language.conditioning import gapped
from didi_language.sources import Source
from didi_language.tokenizer import load_tokenizer
from didi_protein import ProteinDomain
from didi_protein.contig import Contig, either_way
from didi_protein.structure_file import ResidueRange, StructureFile
from didi_protein.structures.atoms import read_chains
from didi_protein.structures.motif import pieces_in_header, pieces_of
from didi_toy.domain import ToySettings
from fuzzing.case import text


class Letters(AlphabetDomain):
    name, alphabet = "letters", ("M", "K", "V", "Mk", "Vv")


FASTA = b">a x=1 y=two\nMKV\nMKV*\n>b x=2\nMKVAC\n>T=0.1, sample=1, score=0.5\nACDEF\n>c\nMKVW\n>d\nMKV/AC:D\n"
ROWS = b'{"id": "a", "text": "MKV", "n": 1}\n{"text": "MKVA", "tokens": [1, 2]}\n{"text": "ACDE"}\n'
TABLE = b'id,text,n\na,MKV,1\n"b","MKVA",nan\nc,ACDEF,3\n'
PROMPTS = b'{"prompt": "why", "response": "so"}\n{"prompt": "who", "n": [1, {}]}\n{"prompt": "a", "response": "b"}\n'
LIST = b'[{"text": "MKV"}, {"text": "A", "n": [1, {}]}]'
ATOMS = "".join(
    f"ATOM  {i:5d}  CA  GLY A{i:4d}    {i:8.3f}{0:8.3f}{0:8.3f}{1:6.2f}{50:6.2f}           C  \n" for i in range(1, 6)
).encode()
COLUMNS = (
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
    "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
    "B_iso_or_equiv", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num",
)  # fmt: skip
MMCIF = ("data_s\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in COLUMNS) + "".join(
    f"ATOM {i} C CA . GLY A 1 {i} ? {i}.0 0.0 0.0 1.0 50.0 {i} GLY A CA 1\n" for i in range(1, 4)
)).encode()  # fmt: skip


def texts(path: Path) -> None:
    for on_bad in ("error", "skip"):
        list(Source((str(path),), on_bad=on_bad).read())


def prompts(path: Path) -> None:
    for on_bad in ("error", "skip"):
        create(prompts=[str(path)], on_bad=on_bad, length=40, allow_loss=True).data_report()


def proteins(path: Path) -> None:
    for on_bad in ("error", "skip"):
        ProteinDomain(path, on_bad=on_bad, min_length=1, allow_loss=True).data_report()


def structure(path: Path) -> None:
    StructureFile(path).sequence(ResidueRange("A", 1, 3))


def skipping(path: Path) -> None:
    """Samples are read, and can be written again."""
    samples = read_file(path, on_bad="skip").samples
    for write, name in ((write_jsonl, "out.jsonl"), (write_fasta, "out.fasta")):
        write(path.with_name(name), samples)


TEXTS = {
    "FASTA": text("x.fasta", FASTA, skipping),
    "FASTA strictly": text("x.fa", b">a x=1\nMKV\n>b\nMkVv\n", lambda path: Letters().read(path)),
    "designs of FASTA": text("x.fa", FASTA, lambda path: ProteinDomain(on_bad="skip").read_designs([path], [])),
    "samples of FASTA": text("x.fa", b">a x=1\nMKV\n>b\nMKVA\n", lambda path: read_sets(ProteinDomain(), [path])),
    "proteins of FASTA": text("x.faa", FASTA.partition(b">d")[0], proteins),
    "proteins of JSON lines": text("x.jsonl", ROWS, proteins),
    "proteins of a table": text("x.csv", TABLE, proteins),
    "JSON lines": text("x.jsonl", ROWS, skipping),
    "a JSON list": text("x.json", LIST, skipping),
    "a table": text("x.tsv", TABLE.replace(b",", b"\t"), skipping),
    "lines": text("x.txt", b"MKV\n\nMk\nVv\n", lambda path: Letters().read(path)),
    "a file without a name": text("x", FASTA, skipping),
    "documents": text("x.txt", b"one\n\n\ntwo\n\n\nthree", texts),
    "documents of JSON lines": text("x.jsonl", ROWS, texts),
    "prompts of JSON lines": text("x.jsonl", PROMPTS, prompts),
    "documents of a table": text("x.csv", TABLE, texts),
    "PDB": text("x.pdb", ATOMS, structure),
    "mmCIF": text("x.cif", MMCIF, structure),
    "chains of PDB": text("x.pdb", ATOMS, read_chains),
    "chains of mmCIF": text("x.cif", MMCIF, read_chains),
}  # fmt: skip

# --- what is typed


def contig(text: str) -> None:
    made = Contig.parse(text, lambda wanted: "G" * len(wanted))
    made.draw(None, torch.Generator())
    either_way(text, ["1", "A"])


def setting(text: str) -> None:
    parse(text)
    for annotation in (Any, int, float, bool, str, tuple[str, ...], dict[str, float]):
        read(text.partition("=")[2], annotation)
    choices(text)


TYPED: dict[str, tuple[str, Callable[[str], object]]] = {
    "a header": ("T=0.1, sample=1, score=0.79, designed_chains=['A', 'B'] x=1 y=%20", parse_header),
    "a contig": ("[5-10/MKX/A12-30/1:3-5/20]", contig),
    "a motif": ("27-34=A12-19,60-64=1:3-7", pieces_of),
    "a contig of a header": ("5/A8-14/5", pieces_in_header),
    "a template": ("MKV__Mk_", lambda text: read_template(Letters(), text)),
    "a protein's template": ("MKV__XAC", lambda text: read_template(ProteinDomain(), text)),
    "gaps": ("the cat [[12]] sat [[*]] on", lambda text: gapped(load_tokenizer(), text, 254)),
    "a range of lengths": ("80-120", length_ranges),
    "the toy's length": ("16-32", lambda text: ToySettings(length=text)),
    "letters": ("MkVvMKV", lambda text: Letters().encode(text)),
    "a setting": ("objective.reward=[{kind: scorer, clip: 4.0}, \"log_ratio\"]", setting),
}  # fmt: skip
