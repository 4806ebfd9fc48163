"""Self-consistency with a stand-in for the inverse-folding program, folded here and by another predictor."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from designs_and_scores import rows_of, write_designs
from fold_files import fold_folder
from predictor_files import chain, confidence, text_of

from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.storage.journal import Journal
from didi_protein.fasta import read_fasta
from didi_protein.scoring import selfconsistency
from didi_protein.scoring.selfconsistency import InverseFolding, columns
from didi_protein.structures.atoms import read_chains
from didi_protein.structures.superposition import rmsd, tm_score

ONE, TWO = "MKTAYIAKQRQISFVK", "GSHMKKIAEELLRK"
PROGRAM = '''
import sys
from pathlib import Path

pdb, out, num, seed = sys.argv[1:]
lines = [line for line in Path(pdb).read_text().splitlines() if line[12:16] == " CA "]
chains = {line[21]: sum(l[21] == line[21] for l in lines) for line in lines}
Path(out, "seqs").mkdir()
with open(Path(out, "seqs", Path(pdb).stem + ".fa"), "w") as file:
    file.write(f">{Path(pdb).stem}, score=1.2, global_score=1.2, designed_chains=['A']\\n" + "A" * len(lines) + "\\n")
    for i in range(1, int(num) + 1):
        text = "/".join(("KLMNPQRS"[(i + int(seed)) % 8] * n) for n in chains.values())
        file.write(f">T=0.1, sample={i}, score=0.9, seq_recovery=0.3\\n{text}\\n")
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As ProteinMPNN writes: the design's own sequence first, chains with a slash between them."""
    path = tmp_path_factory.mktemp("a tool") / "mpnn.py"
    path.write_text(PROGRAM)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))} {{pdb}} {{out}} {{num}} {{seed}}"


def structure(folder: Path, name: str, sequence: str, seed: int) -> np.ndarray:
    """A structure file of made-up atoms; returns its CA positions."""
    folder.mkdir(exist_ok=True)
    made = chain(sequence, seed)
    (folder / f"{name}.pdb").write_text(text_of([made], [confidence(sequence, seed)]))
    return read_chains(folder / f"{name}.pdb")[0].positions()[:, 0]


def test_designs_are_refolded_by_their_predictor(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    designs = write_designs(tmp_path / "x.fasta", {"a": ONE, "ab": f"{ONE}:{TWO}"})
    out, weights = tmp_path / "out", fold_folder(tmp_path / "weights")
    words = [f"input={designs}", "fold=esmfold", f"fold_model={weights}", "selfconsistency_num=2", f"out={out}"]
    assert main(["score", *words, f"selfconsistency={program}"]) == 0
    told = capsys.readouterr().err
    assert "of 2 designs refold within 2 A (best of up to 2 sequences), median scTM" in told
    written = read_fasta(out / "selfconsistency.fasta", complexes=True).samples
    assert [(s.id, s.info["of"]) for s in written[:2]] == [("a_sc1", "a"), ("a_sc2", "a")]
    assert written[0].text == "L" * 16 and written[2].text == "L" * 16 + ":" + "L" * 14
    rows = rows_of(out)
    for name, length in (("a", 16), ("ab", 30)):
        kept, design = (np.concatenate([c.positions()[:, 0] for c in read_chains(out / at / f"{name}.pdb")])
                        for at in ("selfconsistency", "pdb"))  # fmt: skip
        assert len(kept) == length and float(rows[name]["sc_rmsd"]) == pytest.approx(rmsd(kept, design), abs=1e-3)
        assert 0 < float(rows[name]["sc_tm"]) <= 1 and rows[name]["sc_sequences"] == "2"
    assert "scRMSD" in (out / "report.html").read_text()
    assert main(["score", *words, f"selfconsistency={program}"]) == 0 and rows_of(out) == rows  # nothing is done twice
    assert [*Journal(out / "parts/inverse.jsonl").rows()] == ["a", "ab"]
    assert main(["filter", f"input={out}", "max.sc_rmsd=100", f"out={tmp_path / 'short'}"]) == 0


def test_sequences_are_left_for_another_predictor_and_read_from_its_folder(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    designs, given = write_designs(tmp_path / "x.fasta", {"a": ONE, "b": TWO}), tmp_path / "given"
    native = structure(given, "a", ONE, 1)
    words = [f"input={designs}", f"structures={given}", "report=false"]
    assert main(["score", *words, f"selfconsistency={program}", "seed=1", f"out={tmp_path / 'out'}"]) == 0
    told = capsys.readouterr().err
    assert "selfconsistency.fasta and are not folded here" in told and "refolded=<its folder>" in told
    written = read_fasta(tmp_path / "out/selfconsistency.fasta").samples
    assert [s.id for s in written] == [f"a_sc{i}" for i in range(1, 9)] and written[0].text == "M" * 16
    refolded = [structure(tmp_path / "re", f"a_sc{i}", s.text, 10 + i) for i, s in enumerate(written[:3], start=1)]
    assert main(["score", *words, f"refolded={tmp_path / 're'}", f"out={tmp_path / 'again'}"]) == 0
    rows = rows_of(tmp_path / "again")
    assert float(rows["a"]["sc_rmsd"]) == pytest.approx(min(rmsd(atoms, native) for atoms in refolded), abs=1e-3)
    assert float(rows["a"]["sc_tm"]) == pytest.approx(max(tm_score(atoms, native) for atoms in refolded), abs=1e-3)
    assert rows["a"]["sc_sequences"] == "3" and rows["b"]["sc_rmsd"] == ""


def test_a_structure_of_itself_is_consistent_and_of_another_length_refused(tmp_path: Path) -> None:
    atoms = structure(tmp_path, "a", ONE, 1)
    row, best = columns(atoms, [tmp_path / "a.pdb"])
    assert best == 0 and row["sc_rmsd"] == pytest.approx(0, abs=1e-3) and row["sc_tm"] == pytest.approx(1, abs=1e-3)
    structure(tmp_path, "b", TWO, 1)
    with pytest.raises(InputError, match=r"b.pdb has 14 residues, its design 16"):
        columns(atoms, [tmp_path / "b.pdb"])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit('no weights here')", r"failed \(no weights here\)"),
        ("raise SystemExit(3)", r"failed \(exit code 3\)"),
        ("pass", "wrote no FASTA file into {out}"),
        ("open(sys.argv[2] + '/x.fa', 'w').write('>s\\nMK\\n')", "1 for a.pdb has 2 residues, the structure 16"),
        ("open(sys.argv[2] + '/x.fa', 'w').write('>s\\nMKX\\n')", "letter 'X'"),
    ],
)
def test_a_program_that_fails_is_told(code: str, told: str, tmp_path: Path) -> None:
    structure(tmp_path, "a", ONE, 1)
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote('import sys; ' + code)} {{pdb}} {{out}}"
    with pytest.raises(InputError, match=told):
        InverseFolding(command, 2).sequences({tmp_path / "a.pdb": 16})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["selfconsistency=true {pdb}"], "lacks {out}: write the command with {pdb} for the structure file, or"),
        (["selfconsistency=true {pdb} {pdbs} {out}"], "has both {pdb} and {pdbs}"),
        (["selfconsistency=true {out}"], "lacks {pdb}"),
        (["selfconsistency=no-such-program {pdb} {out}"], "there is no program 'no-such-program' on the PATH"),
        (["selfconsistency=true '{pdb} {out}"], "is no command line"),
        (["selfconsistency=true {pdb} {out}", "refolded=x"], "selfconsistency and refolded exclude each other"),
        (["selfconsistency=true {pdb} {out}", "fold=none"], "has no effect with fold=none: no design has a structure"),
        (["selfconsistency_num=0"], "selfconsistency_num=0 is out of range"),
        (["refolded=nowhere"], "refolded=nowhere: no such folder"),
    ],
)
def test_bad_input(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    designs, given = write_designs(tmp_path / "x.fasta", {"a": ONE}), tmp_path / "given"
    structure(given, "a", ONE, 1)
    more = [] if "fold=none" in words else [f"structures={given}"]
    assert main(["score", f"input={designs}", *more, *words, f"out={tmp_path / 'out'}"]) == 2
    assert told in capsys.readouterr().err


def test_a_script_that_is_there_and_cannot_be_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mpnn.sh").write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match=r"a file in this folder: write \./mpnn\.sh"):
        InverseFolding("mpnn.sh {pdb} {out}", 1)
    with pytest.raises(InputError, match=r"may not be executed: chmod \+x \./mpnn\.sh"):
        InverseFolding("./mpnn.sh {pdb} {out}", 1)
    (tmp_path / "mpnn.sh").chmod(0o755)
    assert InverseFolding("./mpnn.sh {pdb} {out}", 1).words[0] == "./mpnn.sh"


def test_one_call_is_for_all_structures_that_are_left(tmp_path: Path) -> None:
    calls, given = tmp_path / "calls", tmp_path / "given"
    loop = (
        "import sys, subprocess; from pathlib import Path; folder, out, num, seed = sys.argv[1:]; "
        "names = sorted(path.name for path in Path(folder).iterdir()); "
        f"Path({str(calls)!r}).open('a').write(' '.join(names) + '\\n'); "
        "[Path(out, name[:-4] + '.fa').write_text('>s\\n' + 'K' * (16 if name[0] == 'a' else 14)) for name in names]"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(loop)} {{pdbs}} {{out}} {{num}} {{seed}}"
    for name, text in (("a", ONE), ("b", TWO)):
        structure(given, name, text, 1)
    designs = write_designs(tmp_path / "x.fasta", {"a": ONE, "b": TWO})
    words = [f"input={designs}", f"structures={given}", "report=false", f"out={tmp_path / 'out'}"]
    assert main(["score", *words, f"selfconsistency={command}"]) == 0
    journal = Journal(tmp_path / "out/parts/inverse.jsonl")
    made = journal.rows()
    assert {name: row["sequences"] for name, row in made.items()} == {"a": ["K" * 16], "b": ["K" * 14]}
    journal.path.unlink()
    journal.append([("a", made["a"])])
    assert main(["score", *words, f"selfconsistency={command}"]) == 0 and journal.rows() == made
    assert calls.read_text().splitlines() == ["a.pdb b.pdb", "b.pdb"]


def test_a_structure_that_one_call_forgot_is_named(tmp_path: Path) -> None:
    for name in ("a", "c"):
        structure(tmp_path, name, ONE, 1)
    code = "import sys; open(sys.argv[2] + '/a.fa', 'w').write('>s\\n' + 'K' * 16)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{pdbs}} {{out}}"
    with pytest.raises(InputError, match=r"wrote nothing for c.pdb: .* as c.fa; it wrote a.fa"):
        InverseFolding(command, 1).sequences({tmp_path / "a.pdb": 16, tmp_path / "c.pdb": 16})


def test_no_predictor_is_loaded_where_every_design_is_done(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    designs, weights = write_designs(tmp_path / "x.fasta", {"a": ONE}), fold_folder(tmp_path / "weights")
    words = [f"input={designs}", "fold=esmfold", f"fold_model={weights}", f"selfconsistency={program}"]
    words += ["selfconsistency_num=1", "report=false", f"out={tmp_path / 'out'}"]
    assert main(["score", *words]) == 0
    before = rows_of(tmp_path / "out")

    def never(*_: object) -> None:
        raise AssertionError("a predictor was chosen")

    monkeypatch.setattr(selfconsistency, "choose", never)
    assert main(["score", *words]) == 0 and rows_of(tmp_path / "out") == before


def test_an_interrupted_inverse_folding_goes_on(program: str, tmp_path: Path) -> None:
    designs, given = write_designs(tmp_path / "x.fasta", {"a": ONE, "b": TWO}), tmp_path / "given"
    for name, text in (("a", ONE), ("b", TWO)):
        structure(given, name, text, 1)
    words = [f"input={designs}", f"structures={given}", f"selfconsistency={program}", f"out={tmp_path / 'out'}"]
    assert main(["score", *words]) == 0
    journal = Journal(tmp_path / "out/parts/inverse.jsonl")
    made = journal.rows()["a"]
    journal.path.unlink()
    journal.append([("a", {**made, "sequences": ["W" * 16]})])
    with journal.path.open("a") as file:
        file.write('{"id": "b", "sequ')
    assert main(["score", *words]) == 0
    texts = [s.text for s in read_fasta(tmp_path / "out/selfconsistency.fasta").samples]
    assert texts[0] == "W" * 16 and len(texts) == 1 + 8
