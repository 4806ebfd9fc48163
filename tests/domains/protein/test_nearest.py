"""The nearest known protein: exact, through MMseqs2, by shared words, and which of them runs."""

from __future__ import annotations

import csv
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from didi_core.cli import main
from didi_core.errors import InputError
from didi_protein.alignment import score
from didi_protein.nearest import choice, exact, mmseqs
from didi_protein.nearest.choice import make_search
from didi_protein.nearest.exact import ExactSearch
from didi_protein.nearest.mmseqs import MmseqsSearch
from didi_protein.nearest.neighbour import NOTHING, Search, best_of, expected
from didi_protein.nearest.words import WordSearch
from didi_protein.vocabulary import RESIDUES

needs_pyopal = pytest.mark.skipif(not exact.installed(), reason="pyopal is not installed")


def random_protein(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(RESIDUES), length))


def distant(sequence: str) -> str:
    """Every second residue another one: half of them identical, and no word of five shared."""
    return "".join("W" if i % 2 and letter != "W" else letter for i, letter in enumerate(sequence))


REFERENCE = tuple(random_protein(60 + 7 * i, i) for i in range(40))


def silent(_: str) -> None:
    pass


# --- exact


@needs_pyopal
@pytest.mark.parametrize("threads", [1, 3])
def test_scores_are_those_of_an_independent_aligner(threads: int) -> None:
    queries = [REFERENCE[3][5:50] + REFERENCE[9][:20], random_protein(90, 99), "WWW", distant(REFERENCE[7])]
    search = ExactSearch(REFERENCE, threads)
    for query in queries:
        assert search.scores(query).tolist() == [score(known, query) for known in REFERENCE]


@needs_pyopal
def test_an_exact_search_finds_a_relative_that_shares_no_word() -> None:
    query = distant(REFERENCE[5])
    missed, found = WordSearch(REFERENCE).nearest(query), ExactSearch(REFERENCE).nearest(query)
    assert missed.index != 5
    assert found.index == 5 and found.identity == pytest.approx(0.5, abs=0.1) and found.coverage > 0.9
    assert found.evalue < 1e-6


@needs_pyopal
def test_where_nothing_scores_there_is_no_neighbour() -> None:
    assert ExactSearch(("WWWW",)).nearest("PPPP") == NOTHING


def test_an_evalue_is_that_of_blast() -> None:
    # 0.041 * 100 * 10^6 * exp(-0.267 * 60); the bit score of raw 60 is (0.267 * 60 - ln 0.041) / ln 2 = 27.7
    bits = (0.267 * 60 - math.log(0.041)) / math.log(2)
    assert expected(60, 100, 10**6) == pytest.approx(100 * 10**6 * 2**-bits)
    assert best_of([], REFERENCE, 1, "MKV") == NOTHING


# --- MMseqs2


def fake_mmseqs(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A program of that name that does as the body says with its words."""
    path = folder / "bin" / "mmseqs"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_candidates_of_mmseqs_are_aligned_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "assert words[0] == 'easy-search' and words[words.index('--format-output') + 1] == 'query,target,bits'\n"
        "queries = open(words[1]).read().count('>')\n"
        "open(words[3], 'w').write(''.join(f'{q}\\t{t}\\t{b}\\n' for q in range(queries) for t, b in ((4, 9), (5, 3))))"
    )
    fake_mmseqs(tmp_path, monkeypatch, body)
    query = distant(REFERENCE[5])
    found = MmseqsSearch(REFERENCE, [query, query, REFERENCE[4]]).nearest(query)
    assert (found.index, found.identity) == (5, pytest.approx(0.5, abs=0.1))


def test_a_failure_of_mmseqs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mmseqs(tmp_path, monkeypatch, "sys.exit('out of disk')")
    with pytest.raises(InputError, match=r"mmseqs easy-search failed \(out of disk\)"):
        MmseqsSearch(REFERENCE, ["MKV"])


@pytest.mark.skipif(not mmseqs.installed(), reason="mmseqs is not on the PATH")
def test_the_program_itself_finds_a_copy() -> None:
    assert MmseqsSearch(REFERENCE, [REFERENCE[8]]).nearest(REFERENCE[8]).index == 8


# --- the benchmark


@needs_pyopal
def test_recall_is_measured_on_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import novelty

    rng = np.random.default_rng(0)
    records = []
    for family in range(6):
        parent = np.array(list(random_protein(150, 500 + family)))
        for member, changed in enumerate((0.0, 0.2, 0.45, 0.62, 0.7)):
            letters = np.where(rng.random(150) < changed, rng.choice(list(RESIDUES), 150), parent)
            records.append(f">f{family}m{member} gene=bla{'ABCDEF'[family]}-{member}\n{''.join(letters)}\n")
    (tmp_path / "families.fasta").write_text("".join(records))
    found = novelty.recall(tmp_path, 8)
    assert sum(found["pairs"]) > 10
    for exactly, by_words, count in zip(found["exact"], found["kmers"], found["pairs"], strict=True):
        assert not count or exactly >= by_words
    assert min(share for share, count in zip(found["exact"], found["pairs"], strict=True) if count) > 0.8
    one = np.array([0, 0, 1, 1, 2])
    assert novelty.adjusted_rand(one, np.array([5, 5, 3, 3, 0])) == pytest.approx(1.0)
    assert abs(novelty.adjusted_rand(rng.integers(0, 5, 2000), rng.integers(0, 5, 2000))) < 0.02


# --- the choice


def chosen(monkeypatch: pytest.MonkeyPatch, *, pyopal: bool, program: bool, cells: float = 1e12) -> str:
    monkeypatch.setattr(exact, "installed", lambda: pyopal)
    monkeypatch.setattr(mmseqs, "installed", lambda: program)
    monkeypatch.setattr(choice, "MOST_CELLS", cells)
    return " ".join(choice.chosen("auto", ["MKV"], REFERENCE))


def test_auto_is_exact_up_to_a_size_then_mmseqs_then_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, pyopal=True, program=True).startswith("exact")
    assert chosen(monkeypatch, pyopal=True, program=True, cells=1).startswith(
        "mmseqs novelty=auto: mmseqs, because too"
    )
    assert "pyopal is not installed" in chosen(monkeypatch, pyopal=False, program=True)
    assert "novelty=exact would take" in chosen(monkeypatch, pyopal=True, program=False, cells=1)
    assert "pip install 'didi-core[novelty]'" in chosen(monkeypatch, pyopal=False, program=False)


def test_the_reason_is_told() -> None:
    lines: list[str] = []
    search: Search = make_search("kmers", ["MKV"], ["MKV"], REFERENCE, lines.append)
    assert (search.name, lines) == ("kmers", ["novelty=kmers"])


# --- the command


def write(path: Path, sequences: list[str]) -> Path:
    path.write_text("".join(f">p{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    return path


@pytest.mark.parametrize("method", ["kmers", pytest.param("exact", marks=needs_pyopal)])
def test_the_table_names_the_method(tmp_path: Path, method: str) -> None:
    designs = write(tmp_path / "designs.fasta", [REFERENCE[5][:40], distant(REFERENCE[6])])
    known = write(tmp_path / "known.fasta", list(REFERENCE))
    words = ["score", f"input={designs}", f"reference={known}", "fold=none", f"novelty={method}"]
    assert main([*words, f"out={tmp_path / 'out'}"]) == 0
    with (tmp_path / "out" / "scores.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [row["nn_method"] for row in rows.values()] == [method, method]
    assert rows["p0"]["nn_id"] == "p5" and float(rows["p0"]["nn_evalue"]) < 1e-9
    assert (rows["p1"]["nn_id"] == "p6") == (method == "exact")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["novelty=exact"], "novelty=exact has no effect without reference"),
        (["novelty=blast", "reference=known.fasta"], "unknown novelty 'blast'"),
        (["novelty=exact", "reference=known.fasta"], r"needs the package pyopal: pip install 'didi-core\[novelty\]'"),
        (["novelty=mmseqs", "reference=known.fasta"], "needs the program mmseqs on the PATH"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setattr(exact, "installed", lambda: False)
    monkeypatch.setattr(mmseqs, "installed", lambda: False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "designs.fasta", ["MKV"])
    write(tmp_path / "known.fasta", list(REFERENCE))
    assert main(["score", "input=designs.fasta", "fold=none", "out=out", *words]) == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
