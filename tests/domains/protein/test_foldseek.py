"""Foldseek by a stand-in that takes its words and writes its tables, and its tables in the layout that it documents.

The program itself is not on PyPI; where it is on the PATH, one test calls it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from designs_and_scores import rows_of, write_designs
from predictor_files import write_structure

from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.storage.journal import Journal
from didi_protein.design_report.designs import structure_name
from didi_protein.structures import foldseek
from didi_protein.structures.atoms import ca_positions, read_chains
from didi_protein.structures.foldseek import Nearest, read_clusters, read_hits
from didi_protein.structures.superposition import tm_score

ONE, TWO, THREE = "MKTAYIAKQRQISFVKSHFSRQ", "GSHMKKIAEELLRKAGNWCDEF", "MKTAYIAKQRQISFVKSHFSRQ"
# TM-scores of the first residues, over the length of the query or of the shorter; a name keeps or loses its suffix.
STAND_IN = '''
import sys
from pathlib import Path
from didi_protein.structures.atoms import read_chains
from didi_protein.structures.superposition import tm_score

words, suffix = sys.argv[1:], SUFFIX
with open(LOG, "a") as log:
    log.write(" ".join(words) + "\\n")
if words == ["version"]:
    print("10.941cd33")
    raise SystemExit
size = {"easy-search": 5, "easy-cluster": 4, "easy-multimercluster": 4}[words[0]]
options = dict(zip(words[size::2], words[size + 1::2], strict=True))
assert int(options["--threads"]) > 0


def entries(folder):
    for path in sorted(Path(folder).iterdir()):
        chains = read_chains(path)
        for chain in chains:
            name = path.stem + suffix
            yield (f"{name}_{chain.name}" if len(chains) > 1 else name), chain.positions()[:, 0]


def score(one, other):
    length = min(len(one), len(other))
    return tm_score(one[:length], other[:length]), length


if words[0] == "easy-multimercluster":
    leads, limit = [], float(options["--multimer-tm-threshold"])
    assert options["--cov-mode"] == "0" and limit == float(options["--chain-tm-threshold"])
    with open(words[2] + "_cluster.tsv", "w") as table:
        for path in sorted(Path(words[1]).iterdir()):
            chains = [chain.positions()[:, 0] for chain in read_chains(path)]
            assert len(chains) > 1
            near = [lead for lead, others in leads if [*map(len, others)] == [*map(len, chains)]
                    and min(map(tm_score, others, chains)) >= limit]
            if not near:
                leads.append((path.stem + suffix, chains))
            table.write(f"{near[0] if near else path.stem + suffix}\\t{path.stem + suffix}\\n")
    raise SystemExit
assert options["--alignment-type"] == "1"
if words[0] == "easy-search":
    assert options["--format-output"] == "query,target,qtmscore,alntmscore"
    assert options["--exhaustive-search"] == "1" and options["--tmscore-threshold"] == "0.0"
    with open(words[3], "w") as table:
        for query, one in entries(words[1]):
            for target, other in entries(words[2]):
                tm, length = score(one, other)
                if float(options["-e"]) >= 1:
                    table.write(f"{query}\\t{target}\\t{tm * length / len(one):.3E}\\t{tm:.3E}\\n")
else:
    leads = []
    with open(words[2] + "_cluster.tsv", "w") as table:
        for name, one in entries(words[1]):
            near = [lead for lead, other in leads if score(one, other)[0] >= float(options["--tmscore-threshold"])]
            if not near:
                leads.append((name, one))
            table.write(f"{near[0] if near else name}\\t{name}\\n")
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, suffix: str = "") -> Path:
    """A program of that name on the PATH; returns the file that it logs its calls in."""
    path, log = folder / "bin" / "foldseek", folder / "calls"
    path.parent.mkdir(exist_ok=True)
    body = body.replace("SUFFIX", repr(suffix)).replace("LOG", repr(str(log)))
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return log


def modules(log: Path) -> list[str]:
    """What the program was called for since the last look, without its version."""
    words = [line.split()[0] for line in log.read_text().splitlines()] if log.is_file() else []
    log.unlink(missing_ok=True)
    return [word for word in words if word != "version"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Three designs, the first and the third of one shape, and a set that holds the second's and another."""
    designs = write_designs(tmp_path / "x.fasta", {"a/1": ONE, "b": TWO, "c": THREE})
    for name, sequence, seed in (("a_1", ONE, 1), ("b", TWO, 2), ("c", THREE, 1)):
        write_structure(tmp_path / f"given/{name}.pdb", [sequence], seed=seed)
    write_structure(tmp_path / "known/1abc.pdb", [TWO + TWO], seed=2)
    write_structure(tmp_path / "known/2xyz.pdb", [TWO[:12]], seed=5)
    return ["score", f"input={designs}", f"structures={tmp_path / 'given'}", f"out={tmp_path / 'out'}"]


# --- the tables


def test_the_highest_score_over_the_query_counts_and_names_of_every_release_are_read() -> None:
    lines = [
        "q0.pdb\t1tim.pdb.gz_A\t4.084E-01\t1.042\n",
        "q0.pdb\t8tim.pdb.gz_B\t9.670E-01\t9.710E-01\n",
        "q2_A\tAF-P12345-F1-model_v4\t2.000E-01\t0.3\n",
        "q2_B\td1asha_\t0.5\t0.6\r\n",
        "q3.pdb_C\tx\t0\t0\n",
    ]
    assert read_hits(lines, 4) == [
        Nearest("8tim.pdb.gz_B", 0.967, 0.971), None, Nearest("d1asha_", 0.5, 0.6), Nearest("x", 0.0, 0.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("q0\tx\t0.5", r"line 1: 3 columns, expected query, target, qtmscore, alntmscore"),
        ("q7\tx\t0.5\t0.5", r"line 1: 'q7' is not among the 2 structures it was given"),
        ("design\tx\t0.5\t0.5", r"'design' is not among"),
        ("q1\tx\tnan\t0.5", r"line 1: 'nan' is not a TM-score"),
        ("q1\tx\t0.5\t-", r"line 1: '-' is not a TM-score"),
        ("q1\tx\t-0.5\t0.5", r"line 1: '-0.5' is not a TM-score"),
    ],
)
def test_a_line_that_is_no_hit_is_refused(line: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_hits([line + "\n"], 2)


def test_clusters_are_numbered_by_their_first_member() -> None:
    assert read_clusters(["q2\tq2\n", "q2\tq0\n", "q1.pdb\tq1.pdb\n", "q1.pdb\tq4.pdb\n"], 5) == [1, 2, 1, None, 2]
    for line, told in (("q0\n", "line 1: 1 columns, expected two"), ("q0\tx\n", "'x' is not among the 5 structures")):
        with pytest.raises(InputError, match=told):
            read_clusters([line], 5)


# --- score


@pytest.mark.parametrize("suffix", ["", ".pdb"])
def test_novelty_and_clusters_stand_in_table_and_report(
    words: list[str], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = install(tmp_path, monkeypatch, STAND_IN, suffix)
    words += [f"foldseek={tmp_path / 'known'}", "structure_clusters=true"]
    assert main(words) == 0
    told = capsys.readouterr().err
    rows, out = rows_of(tmp_path / "out"), tmp_path / "out"
    known = {name: ca_positions(tmp_path / f"known/{name}.pdb") for name in ("1abc", "2xyz")}
    for name in ("a/1", "b", "c"):
        atoms = ca_positions(out / "pdb" / structure_name(name))
        scores = {
            target: tm_score(atoms[: len(other)], other[: len(atoms)]) * min(len(other), len(atoms)) / len(atoms)
            for target, other in known.items()
        }
        best = max(scores, key=scores.__getitem__)
        assert rows[name]["nearest_structure"] == best + suffix
        assert float(rows[name]["tm_nearest"]) == pytest.approx(scores[best], abs=1e-3)
        assert rows[name]["tm_method"] == "foldseek 10.941cd33, -e 10"
    assert float(rows["b"]["tm_nearest"]) > 0.8 and rows["b"]["nearest_structure"].startswith("1abc")
    assert rows["a/1"]["structure_cluster"] == rows["c"]["structure_cluster"] != ""
    assert "of 3 designs with a TM-score below 0.5 to every structure of known, median" in told
    assert "structural clusters: " in told and "of 3 designs (TM-score 0.5)" in told
    record = json.loads((out / "run.json").read_text())["foldseek"]
    assert record.startswith("foldseek 10.941cd33: easy-search against known, --alignment-type 1 --exhaustive-search 1")
    page = (out / "report.html").read_text()
    assert record in page and "TM-score to the nearest structure" in page and "structural cluster" in page
    assert modules(log) == ["easy-search", "easy-cluster"]
    assert main(["filter", f"input={out}", "max.tm_nearest=0.99", f"out={tmp_path / 'short'}"]) == 0


def test_nothing_is_searched_again_but_what_has_changed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install(tmp_path, monkeypatch, STAND_IN)
    words += [f"foldseek={tmp_path / 'known'}", "structure_clusters=true", "report=false"]
    assert main(words) == 0 and modules(log) == ["easy-search", "easy-cluster"]
    before = rows_of(tmp_path / "out")
    assert Journal(tmp_path / "out/parts/foldseek.jsonl").rows().keys() == {"a/1", "b", "c"}
    assert main(words) == 0 and modules(log) == [] and rows_of(tmp_path / "out") == before
    write_structure(tmp_path / "given/b.pdb", [TWO], seed=9)
    kept = Journal(tmp_path / "out/parts/foldseek.jsonl").path.read_text().count("\n")
    assert main(words) == 0 and modules(log) == ["easy-search", "easy-cluster"]
    assert Journal(tmp_path / "out/parts/foldseek.jsonl").path.read_text().count("\n") == kept + 1  # b alone
    after = rows_of(tmp_path / "out")
    assert after["b"]["tm_nearest"] != before["b"]["tm_nearest"] and after["c"] == before["c"]
    shutil.copy(tmp_path / "out/pdb/c.pdb", tmp_path / "known/3new.pdb")
    assert main(words) == 0 and modules(log) == ["easy-search"]
    row = rows_of(tmp_path / "out")["c"]
    assert row["nearest_structure"] == "3new" and float(row["tm_nearest"]) == pytest.approx(1, abs=1e-3)
    path = tmp_path / "bin/foldseek"
    path.write_text(path.read_text().replace("10.941cd33", "11.0"))
    assert main(words) == 0 and modules(log) == ["easy-search", "easy-cluster"]
    assert rows_of(tmp_path / "out")["c"]["tm_method"] == "foldseek 11.0, -e 10"


def test_a_design_without_a_hit_has_no_score_and_is_counted(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, STAND_IN)
    words += [f"foldseek={tmp_path / 'known'}", "foldseek_evalue=0.001", "report=false"]
    assert main(words) == 0
    row = rows_of(tmp_path / "out")["b"]
    assert (row["tm_nearest"], row["nearest_structure"]) == ("", "") and row["tm_method"].endswith("-e 0.001")
    assert "; 3 designs without any that foldseek reports" in capsys.readouterr().err


def test_chains_of_a_complex_are_searched_and_complexes_are_clustered_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, STAND_IN)
    designs = write_designs(tmp_path / "x.fasta", {"ab": f"{ONE}:{TWO}", "b": TWO})
    write_structure(tmp_path / "given/ab.pdb", [ONE, TWO], seed=1)
    write_structure(tmp_path / "given/b.pdb", [TWO], seed=1)
    write_structure(tmp_path / "known/1abc.pdb", [TWO], seed=2)
    words = [f"input={designs}", f"structures={tmp_path / 'given'}", f"out={tmp_path / 'out'}", "report=false"]
    words += ["foldseek_evalue=1e12", "structure_clusters=true"]
    assert main(["score", *words, f"foldseek={tmp_path / 'known'}"]) == 0
    assert main(["score", *words, f"foldseek={tmp_path / 'known'}"]) == 0
    rows = rows_of(tmp_path / "out")
    assert rows["ab"]["tm_method"].endswith("-e 1e+12")
    chains = [chain.positions()[:, 0] for chain in read_chains(tmp_path / "out/pdb/ab.pdb")]
    best = max(tm_score(atoms, ca_positions(tmp_path / "known/1abc.pdb")) for atoms in chains)
    assert float(rows["ab"]["tm_nearest"]) == pytest.approx(best, abs=1e-3)
    assert (rows["ab"]["structure_cluster"], rows["b"]["structure_cluster"]) == ("1", "2")
    assert "structural clusters: 2 of 2 designs (TM-score 0.5), 1 of them of several chains" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["", ".pdb", ".pdb_MODEL_1"])
def test_complexes_alike_are_one_cluster_beside_those_of_single_chains(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install(tmp_path, monkeypatch, STAND_IN, suffix)
    shapes = {"x": ([ONE, TWO], 1), "alone": ([TWO], 1), "y": ([THREE, TWO], 1), "three": ([ONE, TWO, ONE], 1)}
    designs = write_designs(tmp_path / "x.fasta", {name: ":".join(chains) for name, (chains, _) in shapes.items()})
    for name, (chains, seed) in shapes.items():
        write_structure(tmp_path / f"given/{name}.pdb", chains, seed=seed)
    words = ["score", f"input={designs}", f"structures={tmp_path / 'given'}", "report=false", "structure_clusters=true"]
    words += [f"out={tmp_path / 'out'}"]
    assert main(words) == 0 and modules(log) == ["easy-cluster", "easy-multimercluster"]
    numbers = {name: row["structure_cluster"] for name, row in rows_of(tmp_path / "out").items()}
    assert numbers == {"x": "1", "alone": "2", "y": "1", "three": "3"}
    record = json.loads((tmp_path / "out/run.json").read_text())["foldseek"]
    assert "easy-cluster --alignment-type 1" in record and "easy-multimercluster --multimer-tm-threshold 0.5" in record
    write_structure(tmp_path / "given/y.pdb", [THREE, TWO], seed=7)
    assert main(words) == 0 and modules(log) == ["easy-multimercluster"]


def test_a_database_goes_by_the_name_that_it_was_made_with(tmp_path: Path) -> None:
    for name in ("pdb", "pdb.dbtype", "pdb.index", "pdb_ca", "pdbs.txt"):
        (tmp_path / name).write_text("x")
    foldseek.check_target(tmp_path / "pdb", "foldseek")
    before = foldseek.fingerprint(tmp_path / "pdb")
    (tmp_path / "pdbs.txt").write_text("another")
    assert foldseek.fingerprint(tmp_path / "pdb") == before
    (tmp_path / "pdb_ca").write_text("another")
    assert foldseek.fingerprint(tmp_path / "pdb") != before


# --- bad input


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["foldseek=nowhere"], "foldseek=nowhere: no such database, file or folder. Give a folder of structures"),
        (["foldseek=EMPTY"], "there is no PDB or mmCIF file in this folder"),
        (["foldseek=GIVEN"], "is a folder of structures=: each design would be nearest to itself"),
        (["foldseek_evalue=1"], "foldseek_evalue=1.0 has no effect without foldseek="),
        (["foldseek=KNOWN", "foldseek_evalue=0"], "foldseek_evalue=0.0 is out of range"),
        (["foldseek=KNOWN", "fold=none", "structures=null"], "has no effect with fold=none: no design has a structure"),
        (["structure_clusters=true", "fold=none", "structures=null"], "structure_clusters=true has no effect with"),
    ],
)
def test_bad_input(
    words: list[str], more: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    log = install(tmp_path, monkeypatch, STAND_IN)
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": "empty", "GIVEN": "given", "KNOWN": "known"}
    for place, name in places.items():
        more = [word.replace(place, str(tmp_path / name)) for word in more]
    kept = [word for word in words if not (word.startswith("structures=") and "structures=null" in more)]
    assert main([*kept, *more]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert modules(log) == []


def test_a_program_that_is_not_there_is_told_with_what_installs_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for more in (f"foldseek={tmp_path / 'known'}", "structure_clusters=true"):
        assert main([*words, more]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "no program foldseek on the PATH" in told and "conda install -c conda-forge -c bioconda foldseek" in told
    assert not (tmp_path / "out/scores.csv").exists()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "print('Error: Search died'); sys.exit('one\\ntwo\\nthree\\nfour\\nout of disk')",
            "failed (two / three / four / out of disk)",
        ),
        ("print('Error: query createdb died'); sys.exit(1)", "failed (Error: query createdb died)"),
        ("sys.exit(3)", "failed (exit code 3)"),
        ("pass", "foldseek easy-search ended well, and wrote no table"),
        ("open(sys.argv[4], 'w').write('x\\ty\\t1\\t1\\n')", "'x' is not among the 3 structures it was given"),
    ],
)
def test_a_failure_is_told_and_earlier_results_stay(
    words: list[str], code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    install(tmp_path, monkeypatch, f"import sys\nif sys.argv[1] == 'version':\n    sys.exit(print('10'))\n{code}")
    assert main([*words, f"foldseek={tmp_path / 'known'}", "report=false"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert rows_of(tmp_path / "out")["b"]["folded_by"] == "given"


def test_designs_that_were_not_folded_are_scored_without(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = install(tmp_path, monkeypatch, STAND_IN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [word for word in words if not word.startswith("structures=")]
    assert main([*words, f"foldseek={tmp_path / 'known'}", "report=false", "hours=0"]) == 0
    assert "foldseek: nothing, as no design has a structure" in capsys.readouterr().err
    assert modules(log) == [] and "tm_nearest" not in rows_of(tmp_path / "out")["b"]


@pytest.mark.skipif(shutil.which("foldseek") is None, reason="foldseek is not on the PATH")
def test_the_program_itself_finds_a_copy(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_structure(tmp_path / f"known/{seed}.pdb", [ONE * 4], seed=seed)
    found = foldseek.search([tmp_path / "known/2.pdb"], tmp_path / "known", 1e12, 1)
    assert found[0] is not None and found[0].target.startswith("2") and found[0].tm == pytest.approx(1, abs=0.01)
