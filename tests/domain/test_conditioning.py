"""What a design must hold: contigs, motifs, parents, excluded residues; and everything that is wrong with them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from Bio.Data.PDBData import protein_letters_1to3

import didi_core
from didi_core.cli import WRONG, main
from didi_core.commands.compose import compose_jobs
from didi_core.commands.merging import wish_values
from didi_core.domain.conditioning import Conditioning, HasConditioning, ranges, read_template, verify
from didi_core.errors import DidiError, InputError
from didi_core.sampling.batching import length_ranges, parse_length
from didi_core.streams import generator
from didi_core.types import Sample
from didi_protein.conditioning import ProteinConditioning
from didi_protein.contig import Contig, draw_lengths, either_way
from didi_protein.domain import ProteinDomain, asset
from didi_protein.fasta import read_fasta
from didi_protein.structure_file import ResidueRange, StructureFile
from didi_protein.vocabulary import MASK, VOCABULARY
from didi_toy.domain import ToyDomain

SEQUENCE = "ACDEFGHIKLMNPQRSTVWY"
THREE = {letter: protein_letters_1to3[letter].strip() for letter in SEQUENCE}


def atom(serial: int, name: str, chain: str, number: int, icode: str = " ", alt: str = " ", het: bool = False) -> str:
    record = "HETATM" if het else "ATOM  "
    position = f"{serial:8.3f}{0:8.3f}{0:8.3f}{1:6.2f}{50:6.2f}"
    return f"{record}{serial:5d}  CA {alt}{name:>3s} {chain}{number:4d}{icode}   {position}           C  "


def pdb(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


@pytest.fixture
def structure(tmp_path: Path) -> Path:
    """Chain A: the 20 amino acids numbered 11 to 30, and waters; chain B: three residues."""
    lines = [atom(i + 1, THREE[letter], "A", 11 + i) for i, letter in enumerate(SEQUENCE)]
    lines += [atom(50 + i, "HOH", "A", 20 + i, het=True) for i in range(3)]
    lines += [atom(60 + i, "GLY", "B", 1 + i) for i in range(3)]
    return pdb(tmp_path / "s.pdb", lines)


def no_motif(wanted: ResidueRange) -> str:
    raise InputError(f"{wanted} needs a file")


# --- contigs


def test_a_contig_says_what_is_kept_and_where(structure: Path) -> None:
    contig = Contig.parse("2-4/mkX/A12-14/5", StructureFile(structure).sequence)
    assert (contig.shortest, contig.longest, contig.pinned) == (13, 15, 5)
    layout = contig.draw((14, 14), generator(0, "x"))
    assert layout.text == "___MK_CDE_____" and layout.contig == "3/MK_/A12-14/5"
    assert layout.pieces == (
        {"first": 4, "last": 6, "residues": "MK_"},
        {"first": 7, "last": 9, "residues": "CDE", "source": "A12-14"},
    )


def test_drawn_lengths_are_even_over_all_combinations_that_fit() -> None:
    spans, stream = [(0, 2), (1, 3), (0, 1)], generator(0, "lengths")
    fitting = [(a, b, c) for a in range(3) for b in range(1, 4) for c in range(2) if 3 <= a + b + c <= 4]
    counts = Counter(tuple(draw_lengths(spans, 3, 4, stream)) for _ in range(4000))
    assert set(counts) == set(fitting)
    expected = 4000 / len(fitting)
    assert sum((counts[f] - expected) ** 2 / expected for f in fitting) < 25  # chi-square: p < 0.01


def test_a_contig_never_draws_a_design_without_a_free_position() -> None:
    contig = Contig.parse("0-1/MK/0-1", no_motif)
    stream = generator(0, "x")
    assert {contig.draw(None, stream).text for _ in range(50)} == {"_MK", "MK_", "_MK_"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "segment 1 is empty"),
        ("20//30", "segment 2 is empty"),
        ("20/", "segment 2 is empty"),
        ("40-20/MK", "the range falls"),
        ("20/0/MK", "no chain breaks"),
        ("20/MKJ", "letter 'J' at position 3.*not one of the 20"),
        ("20/MK T", "neither a length"),
        ("20/A12--", "neither a length"),
        ("20/A30-12", "the range falls"),
        ("20/A12A-30", "insertion codes"),
        ("20/A12-30B", "insertion codes"),
        ("MKT", "nothing to write"),
        ("MKT/0-0", "no chain breaks"),
        ("20/A1-9999999999", "'A1-9999999999' is 9,999,999,999 residues long; 10,000 are the most"),
        ("20/A1-" + "9" * 5000, "neither a length"),
        ("9" * 20000, "segment 1 has 20,000 characters"),
        ("5-10/0 B5-20", "a design is one chain, so there are no chain breaks"),
        ("10/MK/1000000000-2000000000", "up to 2,000,000,012 residues; 10,000 are the most"),
    ],
)
def test_contigs_that_are_wrong(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Contig.parse(text, no_motif)


def test_structure_files_without_chain_names_or_columns(tmp_path: Path) -> None:
    nameless = StructureFile(pdb(tmp_path / "s.pdb", [atom(1, "GLY", " ", 7)]))
    with pytest.raises(InputError, match=r"chain 'A'.*\(without a name\) 7-7. Give each chain a name"):
        nameless.sequence(ResidueRange("A", 7, 7))
    (tmp_path / "s.cif").write_text("data_s\nloop_\n_atom_site.id\n1\n")
    with pytest.raises(InputError, match="there is no _atom_site.label_atom_id in it"):
        StructureFile(tmp_path / "s.cif")


def test_rfdiffusions_brackets_are_understood() -> None:
    for text in ("[5-9/MK/3]", "['5-9/MK/3']", " 5-9/MK/3 "):
        assert Contig.parse(text, no_motif) == Contig.parse("5-9/MK/3", no_motif)


def test_chains_that_are_not_named_by_letters_are_written_with_a_colon(tmp_path: Path) -> None:
    lines = [atom(i, THREE[letter], "1", i) for i, letter in enumerate(SEQUENCE, start=1)]
    structure = StructureFile(pdb(tmp_path / "s.pdb", lines))
    layout = Contig.parse("5/1:3-5/4", structure.sequence).draw(None, generator(0, "x"))
    assert layout.text == "_____DEF____" and layout.contig == "5/1:3-5/4"
    assert str(ResidueRange("A1", 2, 3)) == "A1:2-3" and str(ResidueRange("AA", 2, 3)) == "AA2-3"


def test_a_length_that_could_be_residues_is_warned_of() -> None:
    said = either_way("5/11-17/A3-5", ["A", "1"])
    assert said is not None and "11-17 is 11 to 17 free positions" in said and "write 1:1-7 where you mean" in said
    assert either_way("5/11-17/A3-5", ["A", "B"]) is None and either_way("5/1:1-7/20-30", ["A", "1"]) is None


def test_ranges_that_overlap(structure: Path) -> None:
    with pytest.raises(InputError, match="ranges A12-20 and A18-25 overlap"):
        Contig.parse("5/A12-20/5/A18-25", StructureFile(structure).sequence)
    Contig.parse("5/A12-20/5/A21-25/B1-2", StructureFile(structure).sequence)


@pytest.mark.parametrize("allowed", [(1, 12), (16, 20), (5, 5)])
def test_a_motif_that_does_not_fit_the_length(allowed: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="makes 13 to 15 residues, 8 of them kept; length=.* does not fit"):
        Contig.parse("3-5/MKTAYIAK/2", no_motif).check_fits(*allowed)


# --- structure files


def test_a_range_is_read_from_plain_and_gzipped_files(structure: Path) -> None:
    packed = structure.with_suffix(".pdb.gz")
    packed.write_bytes(gzip.compress(structure.read_bytes()))
    for path in (structure, packed):
        assert StructureFile(path).sequence(ResidueRange("A", 12, 15)) == "CDEF"


def test_mmcif_is_read_with_the_authors_numbers(tmp_path: Path) -> None:
    columns = ["group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"]
    columns += ["label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy"]
    columns += ["B_iso_or_equiv", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num"]
    rows = [
        f"ATOM {i} C CA . {THREE[letter]} A 1 {i} ? {i}.0 0.0 0.0 1.0 50.0 {i + 40} {THREE[letter]} H CA 1"
        for i, letter in enumerate("MKTAY", start=1)
    ]
    path = tmp_path / "s.cif"
    path.write_text("\n".join(["data_s", "loop_", *(f"_atom_site.{c}" for c in columns), *rows, "#", ""]))
    assert StructureFile(path).sequence(ResidueRange("H", 42, 44)) == "KTA"


def test_names_of_force_fields_are_their_residues(tmp_path: Path) -> None:
    names = ["HIE", "HID", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "ASH", "GLH", "LYN", "ARN", "TYM"]
    lines = [atom(i, name, "A", i) for i, name in enumerate(names, start=1)]
    assert StructureFile(pdb(tmp_path / "s.pdb", lines)).sequence(ResidueRange("A", 1, 13)) == "HHHHHHCCDEKRY"


def test_the_content_tells_mmcif_from_pdb_not_the_name(tmp_path: Path) -> None:
    columns = ["group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"]
    columns += ["label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy"]
    columns += ["B_iso_or_equiv", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num"]
    rows = [f"ATOM {i} C CA . GLY A 1 {i} ? {i}.0 0.0 0.0 1.0 50.0 {i} GLY A CA 1" for i in (1, 2)]
    text = "\n".join(["# made by hand", "data_s", "loop_", *(f"_atom_site.{c}" for c in columns), *rows, "#", ""])
    (tmp_path / "s.pdb").write_text(text)
    assert StructureFile(tmp_path / "s.pdb").sequence(ResidueRange("A", 1, 2)) == "GG"
    (tmp_path / "p.cif").write_text(atom(1, "GLY", "A", 1) + "\nEND\n")
    assert StructureFile(tmp_path / "p.cif").sequence(ResidueRange("A", 1, 1)) == "G"
    for cut in range(60, len(text) - 5, 23):
        (tmp_path / "broken.cif").write_text(text[:cut])
        try:
            StructureFile(tmp_path / "broken.cif")
        except InputError as error:
            assert "broken.cif" in str(error)


def test_atoms_without_an_occupancy_are_read(tmp_path: Path) -> None:
    lines = [atom(1, "GLY", "A", 1, alt="A"), atom(2, "GLY", "A", 1, alt="B"), atom(3, "ALA", "A", 2)]
    blank = [f"{line[:54]}      {line[60:]}" for line in lines]
    assert StructureFile(pdb(tmp_path / "s.pdb", blank)).sequence(ResidueRange("A", 1, 2)) == "GA"


def test_selenomethionine_is_methionine_and_a_ligand_hides_no_residue(tmp_path: Path) -> None:
    lines = [atom(1, "MSE", "A", 1, het=True), atom(2, "LYS", "A", 2), atom(3, "ZN", "A", 2, het=True)]
    assert StructureFile(pdb(tmp_path / "m.pdb", lines)).sequence(ResidueRange("A", 1, 2)) == "MK"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (ResidueRange("C", 1, 3), "has no chain 'C'. Its chains: A 11-30, B 1-3"),
        (ResidueRange("A", 40, 50), "A40-50: is absent. Chains: A 11-30"),
        (ResidueRange("A", 5, 12), "lacks A5-10: a motif must be whole"),
        (ResidueRange("A", 28, 31), "lacks A31:"),
    ],
)
def test_ranges_absent_from_the_file(structure: Path, wanted: ResidueRange, told: str) -> None:
    with pytest.raises(InputError, match=told):
        StructureFile(structure).sequence(wanted)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([atom(1, "ALA", "A", 1), atom(2, "GLY", "A", 2), atom(3, "GLY", "A", 2, "A")], r"insertion codes \(A2A\)"),
        ([atom(1, "ALA", "A", 1), atom(2, "SEC", "A", 2, het=True)], "A2 is SEC, not one of the 20"),
        ([atom(1, "ALA", "A", 1), atom(2, "DG", "A", 2)], "A2 is DG, not one of the 20"),
        (
            [atom(1, "ALA", "A", 1), atom(2, "SER", "A", 2, alt="A"), atom(3, "THR", "A", 2, alt="B")],
            "A2 is SER or THR",
        ),
    ],
)
def test_residues_that_would_have_to_be_guessed(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        StructureFile(pdb(tmp_path / "x.pdb", lines)).sequence(ResidueRange("A", 1, 2))


def test_files_that_are_no_single_structure(tmp_path: Path) -> None:
    one = atom(1, "ALA", "A", 1)
    models = ["MODEL        1", one, "ENDMDL", "MODEL        2", one, "ENDMDL"]
    with pytest.raises(InputError, match="there are 2 models in it"):
        StructureFile(pdb(tmp_path / "n.pdb", models))
    with pytest.raises(InputError, match="no residue in it"):
        StructureFile(pdb(tmp_path / "e.pdb", ["REMARK nothing"]))
    with pytest.raises(InputError, match="no such file"):
        StructureFile(tmp_path / "absent.pdb")
    binary = tmp_path / "b.pdb"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="b.pdb: binary data, not a PDB or mmCIF file"):
        StructureFile(binary)
    cut = tmp_path / "c.pdb.gz"
    cut.write_bytes(gzip.compress(b"ATOM" * 500)[:20])
    with pytest.raises(InputError, match="truncated or damaged"):
        StructureFile(cut)


# --- the other keys


def test_bias_and_exclusion_become_one_vector() -> None:
    bias = ProteinConditioning(exclude=("c", "W"), bias={"A": 0.5, "W": 2.0}).token_bias()
    assert bias is not None
    tokens = VOCABULARY.tokens or ()
    assert bias[tokens.index("A")] == 0.5
    assert [tokens[i] for i in torch.isneginf(bias).nonzero().flatten()] == ["W", "C"]
    assert ProteinConditioning().token_bias() is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"exclude": "CX"}, "exclude=CX: letter 'X' at position 2"),
        ({"exclude": SEQUENCE}, "leaves no residue"),
        ({"bias": {"B": 1.0}}, "bias.B=B: letter 'B'"),
        ({"bias": {"AC": 1.0}}, "give one residue each"),
        ({"bias": {"A": float("inf")}}, "To forbid a residue, use exclude=A"),
        ({"bias": {"A": "high"}}, "is not a number"),
        ({"pdb": Path("x.pdb")}, "has no effect without contig"),
        ({"parent": Path("wt.fasta")}, "parent and mask_fraction go together"),
        ({"mask_fraction": 0.3}, "parent and mask_fraction go together"),
        ({"parent": Path("wt.fasta"), "mask_fraction": 1.5}, "must be in \\(0, 1\\]"),
        ({"parent": Path("wt.fasta"), "mask_fraction": 0.5, "contig": "5"}, "contig and parent exclude each other"),
    ],
)
def test_settings_that_are_wrong(given: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        ProteinConditioning(**given)


def test_the_yaml_declares_exactly_the_keys_of_the_domain() -> None:
    from omegaconf import OmegaConf

    from didi_core.config import config_folder

    declared = set(OmegaConf.load(config_folder() / "conditioning/protein.yaml"))
    assert declared == set(ProteinConditioning.__dataclass_fields__) <= wish_values("conditioning").keys()
    taken = set(OmegaConf.load(config_folder() / "sample.yaml")) | set(OmegaConf.load(config_folder() / "common.yaml"))
    assert not wish_values("conditioning").keys() & taken, "a bare key means one thing"


# --- the seam


def test_domains_say_whether_they_take_keys() -> None:
    assert isinstance(ProteinDomain(), HasConditioning)
    assert not isinstance(ToyDomain(), HasConditioning)


def test_x_and_underscore_are_free_in_a_protein_template() -> None:
    assert read_template(ProteinDomain(), "MK_Xx") == [0, 20, 15, MASK, MASK, MASK, 2]


def test_verify_catches_a_sampler_that_breaks_its_promise() -> None:
    template = read_template(ProteinDomain(), "MK_")
    bias = ProteinConditioning(exclude="C").token_bias()
    asked = Conditioning([template], bias=bias)
    encode = ProteinDomain().encode
    verify([Sample("MKA", "s", tuple(encode("MKA")))], asked, VOCABULARY)
    with pytest.raises(DidiError, match="s: token 2 was pinned to id 20 and came back as 5"):
        verify([Sample("AKA", "s", tuple(encode("AKA")))], asked, VOCABULARY)
    with pytest.raises(DidiError, match="token 4 is id 23, which was excluded"):
        verify([Sample("MKC", "s", tuple(encode("MKC")))], asked, VOCABULARY)
    with pytest.raises(DidiError, match="has 6 tokens, its template 5"):
        verify([Sample("MKAA", "s", tuple(encode("MKAA")))], asked, VOCABULARY)


def test_ranges_are_one_based_and_inclusive() -> None:
    assert ranges([True, True, False, True, False, False, True]) == "1-2,4,7"
    assert ranges([False]) == ""


def test_bare_keys_go_to_the_domain_and_misspelt_ones_are_told() -> None:
    config = compose_jobs("sample", ["run=x", "contig=20-40/MK/3", "bias.N=0.5", "bias.Y=-1", "exclude=CW"])[0].config
    assert config["conditioning"] == {"contig": "20-40/MK/3", "bias": {"N": 0.5, "Y": -1}, "exclude": "CW"}
    with pytest.raises(InputError, match="unknown key 'contgi'. Did you mean 'contig'"):
        compose_jobs("sample", ["run=x", "contgi=5"])
    with pytest.raises(InputError, match="unknown key 'contig'"):
        compose_jobs("evaluate", ["run=x", "contig=5"])


def test_lengths_number_range_or_several_in_turn() -> None:
    assert length_ranges("80-120") == [(80, 120)]
    drawn = parse_length(["50", "60-61"], ToyDomain(), 6, generator(0, "x"))
    assert drawn[::2] == [50] * 3 and set(drawn[1::2]) <= {60, 61}
    with pytest.raises(InputError, match="length=\\[\\] is empty"):
        length_ranges([])


# --- the command

RUN = asset("teacher")


def sample(out: Path, *words: str) -> int:
    return main(["sample", f"run={RUN}", "steps=2", "num=4", f"out={out}", *words])


def test_a_contig_in_brackets_is_understood_on_the_command_line(structure: Path, tmp_path: Path) -> None:
    made = []
    for number, contig in enumerate(("5/A12-15/5,MK/5", "[5/A12-15/5,MK/5]", "[5/A12-15,5/MK,5]")):
        assert sample(tmp_path / f"{number}.fasta", f"contig={contig}", f"pdb={structure}") == 0
        made.append((tmp_path / f"{number}.fasta").read_text())
    assert made[0] == made[1] == made[2] and "contig=5/A12-15/5/MK/5" in made[0]


def test_samples_without_a_motif_leave_no_index_map_of_earlier_ones(tmp_path: Path) -> None:
    assert sample(tmp_path / "x.fasta", "contig=5/MK/5") == 0 and (tmp_path / "x.fasta.map.json").is_file()
    assert sample(tmp_path / "x.fasta", "length=12") == 0 and not (tmp_path / "x.fasta.map.json").exists()


def test_designs_hold_what_the_contig_says(structure: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.fasta"
    assert sample(out, "contig=5-9/A12-15/MK/5-9", f"pdb={structure}", "length=[18,20]", "exclude=CW", "bias.G=1") == 0
    designs = read_fasta(out).samples
    where = json.loads((tmp_path / "d.fasta.map.json").read_text())["samples"]
    assert [len(d.text) for d in designs] == [18, 20, 18, 20]
    for design in designs:
        piece, letters = where[design.id]["pieces"]
        assert design.text[piece["first"] - 1 : piece["last"]] == "CDEF" and piece["source"] == "A12-15"
        assert design.text[letters["first"] - 1 : letters["last"]] == "MK"
        assert where[design.id]["pinned"] == f"{piece['first']}-{letters['last']}"
        assert design.info["contig"] == where[design.id]["contig"] and "A12-15/MK" in design.info["contig"]
        assert not set(design.text.replace("CDEF", "")) & set("CW")
        assert design.info["exclude"] == "CW" and design.info["bias"] == "G:1"


def test_parents_are_rewritten_in_part(tmp_path: Path) -> None:
    parents = {"wt": "MKTAYIAKQR" * 4, "other": "GSHMSLFDFF" * 3}
    (tmp_path / "wt.fasta").write_text("".join(f">{name}\n{text}\n" for name, text in parents.items()))
    out = tmp_path / "d.fasta"
    assert sample(out, f"parent={tmp_path / 'wt.fasta'}", "mask_fraction=0.3") == 0
    where = json.loads((tmp_path / "d.fasta.map.json").read_text())["samples"]
    designs = read_fasta(out).samples
    assert [d.info["parent"] for d in designs] == ["wt", "other", "wt", "other"]
    for design in designs:
        parent = parents[design.info["parent"]]
        kept = set()
        for span in where[design.id]["pinned"].split(","):
            first, _, last = span.partition("-")
            kept |= set(range(int(first), int(last or first) + 1))
        assert len(parent) - len(kept) == round(0.3 * len(parent)) == design.info["masked"]
        assert all(design.text[i - 1] == parent[i - 1] for i in kept)
    assert where["sample_1"]["pinned"] != where["sample_3"]["pinned"], "positions are drawn anew for each design"


def test_a_strong_bias_is_felt(tmp_path: Path) -> None:
    out = tmp_path / "d.fasta"
    assert sample(out, "length=40", "bias.W=30") == 0
    assert {d.text for d in read_fasta(out).samples} == {"W" * 40}
    assert not (tmp_path / "d.fasta.map.json").exists(), "nothing is pinned"


def test_the_same_seed_gives_the_same_designs(structure: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert sample(tmp_path / f"{name}.fasta", "contig=5-9/A12-15/5-9", f"pdb={structure}", "seed=3") == 0
    assert (tmp_path / "a.fasta").read_bytes() == (tmp_path / "b.fasta").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["contig=20-40/MK", "length=10"], "length=10 does not fit"),
        (["contig=20/MK", "template=MK__"], "template and contig exclude each other"),
        (["contig=20/A1-5"], "A1-5 needs the structure file: give pdb="),
        (["contig=20/MK", "pdb=x.pdb"], "x.pdb: no such file"),
        (["contig=20/MK", "parents=x"], "unknown key 'parents'. Did you mean 'parent'"),
        (["parent=none.fasta", "mask_fraction=0.3"], "none.fasta: no such file"),
        (["mask_fraction=much"], "mask_fraction='much' does not fit"),
        (["exclude=J"], "exclude=J"),
        (["bias=5"], "bias=5 does not fit"),
        (["conditioning.size=5"], "unknown key 'size'"),
    ],
)
def test_what_is_wrong_is_one_message(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "d.fasta"
    assert sample(out, *words) == WRONG
    message = capsys.readouterr().err
    assert told in message and "Traceback" not in message
    assert not list(tmp_path.glob("d.fasta*"))


def test_a_pdb_without_effect(structure: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(tmp_path / "d.fasta", "contig=20/MK", f"pdb={structure}") == WRONG
    assert "has no range such as A12-30" in capsys.readouterr().err


def test_a_domain_without_keys_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import didi_toy.domain

    run = didi_toy.domain.asset("teacher")
    assert main(["sample", f"run={run}", "contig=5", f"out={tmp_path / 'x.jsonl'}"]) == WRONG
    assert "domain 'toy' has no such key" in capsys.readouterr().err


def test_from_python() -> None:
    made = didi_core.sample(RUN, num=2, steps=2, contig="3/MKT/4", exclude="CW")
    assert all(s.text[3:6] == "MKT" and len(s.text) == 10 for s in made.samples)
    with pytest.raises(InputError, match="unknown key 'contgi'"):
        didi_core.sample(RUN, num=2, steps=2, contgi="3/MKT/4")
