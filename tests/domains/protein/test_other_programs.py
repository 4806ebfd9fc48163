"""Files and spellings of other programs: sequences of several chains, contigs, structure files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from fuzzing.texts import MMCIF

from didi_core.errors import InputError
from didi_protein import ProteinDomain
from didi_protein.contig import Contig, Kept
from didi_protein.structure_file import ResidueRange, StructureFile
from didi_protein.structures.atoms import read_chains

MPNN = """>bb_0, score=1.6, fixed_chains=['B'], designed_chains=['A'], model_name=v_48_020, git_hash=unknown, seed=37
MIWVFNYS/MGDMHW
>T=0.1, sample=1, score=0.70, global_score=0.70, seq_recovery=0.41
MLQWQCQF/MLIATV
>T=0.1, sample=2, score=0.71, global_score=0.71, seq_recovery=0.42
MCKIKYTT/MFVAPD
"""
LIGAND = """>1BC8, T=0.1, seed=37, num_res=14, num_ligand_res=12, batch_size=1, model_path=./x.pt
MIWVFNYS:MGDMHW
>1BC8, id=1, T=0.1, seed=37, overall_confidence=0.38, ligand_confidence=0.3, seq_rec=0.5
MLQWQCQF:MLIATV
"""


@pytest.mark.parametrize(
    ("text", "ids", "first"),
    [
        (MPNN, ["bb_0", "bb_0_T0.1_sample_1", "bb_0_T0.1_sample_2"], "MIWVFNYS:MGDMHW"),
        (LIGAND, ["1BC8", "1BC8_T0.1_sample_1"], "MIWVFNYS:MGDMHW"),
        (">a\nMKV:ACD/EFG\n", ["a"], "MKV:ACD:EFG"),
        (">a\nmkv*/acd*\n", ["a"], "MKV:ACD"),
        (">a\nMKV /\nACD\n", ["a"], "MKV:ACD"),
    ],
)
def test_chains_of_designs(tmp_path: Path, text: str, ids: list[str], first: str) -> None:
    (tmp_path / "x.fa").write_text(text)
    found = ProteinDomain(on_bad="error").read_designs([tmp_path / "x.fa"], [])
    assert [design.id for design in found] == ids and found[0].text == first


@pytest.mark.parametrize("text", [MPNN, LIGAND, ">a\nMKV/ACD\n", ">a\nMKV:ACD\n"])
def test_chains_in_data_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.fa").write_text(">whole\nMKV\n>other\nMKVA\n" + text)
    told = str(ProteinDomain(tmp_path / "x.fa", min_length=1, allow_loss=True, validation_fraction=0.5).data_report())
    assert "a break between chains: give each chain a record of its own" in told
    with pytest.raises(InputError, match="line 5, record '.*a break between chains"):
        ProteinDomain(tmp_path / "x.fa", min_length=1, on_bad="error").data_report()


@pytest.mark.parametrize(
    "text",
    [
        "5-10/A2-4/7", "[5-10/A2-4/7]", "['5-10/A2-4/7']", '"5-10/A2-4/7"', "contigmap.contigs=[5-10/A2-4/7]",
        "contigs=['5-10/A2-4/7']", "5-10,A2-4,7", " 5 - 10 / A2 - 4 / 7 ", "5–10/A2–4/7-7", "5-10/A2-A4/7",
        "5-10/A:2-4/7",
    ],
)  # fmt: skip
def test_spellings_of_a_contig(text: str) -> None:
    made = Contig.parse(text, lambda wanted: "MKV")
    spans = [str(s.source) if isinstance(s, Kept) else (s.low, s.high) for s in made.segments]
    assert spans == [(5, 10), "A2-4", (7, 7)]


@pytest.mark.parametrize("text", ["5/A2-4/0 B1-9", "[5/A2-4/0 10-20]", "5,A2-4,/0,B1-9", "5/A2-4/0"])
def test_a_chain_break_in_a_contig_is_told(text: str) -> None:
    with pytest.raises(InputError, match="a design is one chain"):
        Contig.parse(text, lambda wanted: "G" * len(wanted))


def pdb(*names: str, chain: str = "A") -> str:
    """A chain of CA atoms. A name of four letters takes the blank column after it."""
    return "".join(
        f"ATOM  {i:5d}  CA  {name:<4s}{chain}{i:4d}    {i:8.3f}{0:8.3f}{0:8.3f}{1:6.2f}{50:6.2f}           C  \n"
        for i, name in enumerate(names, start=1)
    )


@pytest.mark.parametrize(
    ("names", "letters"),
    [
        (("HIE", "HID", "HIP"), "HHH"),  # AMBER
        (("HSD", "HSE", "HSP", "LSN"), "HHHK"),  # CHARMM
        (("CYX", "CYM", "ASH", "GLH", "LYN"), "CCDEK"),
        (("ala", "Gly", "mse"), "AGM"),
        (("NALA", "LYSH", "HISA", "CASP"), "AKHD"),  # GROMACS, and AMBER's ends of a chain
    ],
)
def test_names_of_force_fields(tmp_path: Path, names: tuple[str, ...], letters: str) -> None:
    (tmp_path / "x.pdb").write_text(pdb(*names))
    assert StructureFile(tmp_path / "x.pdb").sequence(ResidueRange("A", 1, len(names))) == letters
    assert read_chains(tmp_path / "x.pdb")[0].letters == letters


@pytest.mark.parametrize(
    ("names", "letters", "read"),
    [
        (("ALA", "SEP", "HYP"), "ASP", "A2 SEP as S, A3 HYP as P."),
        (("PTR",) * 7, "Y" * 7, "A5 PTR as Y, ..."),
        (("ALA", "MSE"), "AM", ""),
    ],
)
def test_modified_residues_are_read_as_their_parents_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], letters: str, read: str
) -> None:
    (tmp_path / "x.pdb").write_text(pdb(*names))
    assert StructureFile(tmp_path / "x.pdb").sequence(ResidueRange("A", 1, len(names))) == letters
    assert read_chains(tmp_path / "x.pdb")[0].letters == letters
    told = capsys.readouterr().err
    assert bool(told) == bool(read) and read in told and ("read as what they are made of" in told) == bool(read)


@pytest.mark.parametrize("name", ["A", "1", "AA", "B1", "A_1", "A-2"])
def test_names_of_chains(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.cif").write_text(MMCIF.decode().replace(" GLY A CA", f" GLY {name} CA"))
    found = StructureFile(tmp_path / "x.cif")
    made = Contig.parse(f"5/{name}:1-3/5", found.sequence)
    assert found.chains() == [name] and made.draw(None, None).text.count("G") == 3  # type: ignore[arg-type]
    assert Contig.parse(str(made.segments[1].source) + "/5", found.sequence).segments[0] == made.segments[1]  # type: ignore[union-attr]


PLAIN = pdb("GLY", "GLY", "GLY").encode()
MINIMAL = b"\n".join(
    b" ".join(line.split()[:-5] + line.split()[-1:]) if line.startswith(b"ATOM") else line
    for line in MMCIF.splitlines()
    if not line.startswith(b"_atom_site.auth_")
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pdb", MMCIF), ("x.ent", b"# a comment\n\n" + MMCIF), ("x.cif", PLAIN), ("x", gzip.compress(MMCIF, mtime=0)),
        ("x.pdb", gzip.compress(PLAIN, mtime=0)), ("x.pdb", PLAIN.replace(b"\n", b"\r\n")),
        ("x.pdb", PLAIN.replace(b"\n", b"\r")), ("x.pdb", b"\xef\xbb\xbf" + PLAIN),
        ("x.pdb", "REMARK Müller\n".encode("latin-1") + PLAIN), ("x.cif", MINIMAL),
        ("x.pdb", b"".join(line[:54] + b"\n" for line in PLAIN.splitlines())),
    ],
)  # fmt: skip
def test_what_a_file_is_shows_in_its_content(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert StructureFile(tmp_path / name).sequence(ResidueRange("A", 1, 3)) == "GGG"
