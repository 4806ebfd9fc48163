"""What ``score`` keeps between runs is used only as long as everything that it was made from is the same."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from designs_and_scores import rows_of, write_designs
from dplm_files import random_model, write_folder
from fold_files import fold_folder
from predictor_files import write_structure
from safetensors.torch import load_file, save_file
from score_folder import score_folder

from didi_core.cli import main
from didi_core.storage.files import read_json, sha256
from didi_core.storage.journal import Journal
from didi_protein.scoring import hashes as hashing
from didi_protein.scoring import running, selfconsistency
from didi_protein.scoring.hashes import Hashes
from didi_protein.scoring.kept import OUT_OF_MEMORY, Kept, program_stamp, stamp, weights_stamp

ONE, TWO = "MKTAYIAKQRQISFVK", "GSHMKKIAEELLRK"
# Writes sequences that depend on the structure, and on the letter in its own text.
PROGRAM = '''
import sys
from pathlib import Path

pdb, out = sys.argv[1:]
lines = [line for line in Path(pdb).read_text().splitlines() if line[12:16] == " CA "]
letters = ["ACDEFGHIKL"[int(abs(float(line[30:38])) * 10) % 10] for line in lines]
Path(out, "x.fa").write_text(">s\\n" + "W" + "".join(letters[1:]) + "\\n")
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two designs, structures of two predictors, models, a program and known proteins."""
    monkeypatch.chdir(tmp_path)
    write_designs(tmp_path / "x.fasta", {"a": ONE, "b": TWO})
    write_designs(tmp_path / "known.fasta", {"k": ONE[::-1], "l": TWO + ONE})
    for folder, seed in (("first", 1), ("second", 5)):
        for name, sequence in (("a", ONE), ("b", TWO)):
            write_structure(tmp_path / f"{folder}/{name}.pdb", [sequence], seed=seed)
    (tmp_path / "mpnn.py").write_text(PROGRAM)
    return tmp_path


def weights_of_fold(folder: Path) -> None:
    fold_folder(folder / "weights")


def weights_of_pppl(folder: Path) -> None:
    (folder / "judge").mkdir()
    write_folder(folder / "judge", random_model())


def other_weights(name: str) -> Callable[[Path], None]:
    """Another model under the same name."""

    def change(folder: Path) -> None:
        whole, pickled = folder / name / "model.safetensors", folder / name / "pytorch_model.bin"
        tensors = load_file(whole) if whole.is_file() else torch.load(pickled)
        moved = {key: value + 0.05 if value.is_floating_point() else value for key, value in tensors.items()}
        save_file(moved, whole, {"format": "pt"}) if whole.is_file() else torch.save(moved, pickled)

    return change


def edit(name: str, before: str, after: str) -> Callable[[Path], None]:
    """A file with another text."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after))

    return change


FOLDED = ["fold=esmfold", "fold_model=weights"]
GIVEN = ["structures=first"]
KNOWN = ["fold=none", "reference=known.fasta", "novelty=kmers"]
CONSISTENT = [f"selfconsistency={shlex.quote(sys.executable)} mpnn.py {{pdb}} {{out}}", "selfconsistency_num=1"]
Words, Step = list[str], Callable[[Path], Any]
CHANGES: dict[str, tuple[Words, Step | None, Step]] = {  # the command, what it needs, what changes
    "known proteins": (KNOWN, None, edit("known.fasta", TWO, "W" * 14)),
    "names of known proteins": (KNOWN, None, edit("known.fasta", ">l", ">other")),
    "model of pppl": (["fold=none", "pppl=judge"], weights_of_pppl, other_weights("judge")),
    "model of fold": (FOLDED, weights_of_fold, other_weights("weights")),
    "model, and refolds": ([*FOLDED, *CONSISTENT], weights_of_fold, other_weights("weights")),
    "inverse folding": ([*FOLDED, *CONSISTENT], weights_of_fold, edit("mpnn.py", '"W"', '"Y"')),
    "a given structure": (
        [*GIVEN, *CONSISTENT], None, lambda folder: write_structure(folder / "first/b.pdb", [TWO], seed=9)
    ),
    "a second opinion": (
        ["structures=[first,second]"], None, lambda folder: write_structure(folder / "second/b.pdb", [TWO], seed=9)
    ),
    "a structure that is gone": (
        [*GIVEN, *CONSISTENT, "mmcif=true"], None, lambda folder: (folder / "first/b.pdb").unlink()
    ),
}  # fmt: skip


def state(out: Path) -> dict[str, bytes]:
    """What a reader of the folder sees."""
    names = ("scores.csv", "scores.jsonl", "selfconsistency.fasta", "view.pml")
    files = [out / name for name in names]
    files += [path for place in ("pdb", "cif", "selfconsistency") for path in out.glob(f"{place}/*")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize("what", CHANGES)
def test_a_repeated_command_ends_where_a_new_one_does(what: str, place: Path) -> None:
    more, needed, change = CHANGES[what]
    if needed is not None:
        needed(place)
    words = ["score", "input=x.fasta", "report=false", *more]
    assert main([*words, "out=out"]) == 0
    before = state(place / "out")
    change(place)
    assert main([*words, "out=out"]) == 0
    after = state(place / "out")
    assert main([*words, "out=fresh"]) == 0
    assert after == state(place / "fresh") != before
    lines = {path: path.read_text() for path in (place / "out/parts").glob("*.jsonl")}
    assert main([*words, "out=out"]) == 0
    assert {path: path.read_text() for path in lines} == lines and state(place / "out") == after


def test_what_is_made_again_is_counted_aloud(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "input=x.fasta", "report=false", *KNOWN, "out=out"]
    assert main(words) == 0 and "again" not in capsys.readouterr().err
    edit("known.fasta", TWO, "W" * 14)(place)
    assert main(words) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "sequence: 2 results came from another reference or search for the nearest protein, and are made" in told


def test_another_search_makes_novelty_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["score", "input=x.fasta", "report=false", *KNOWN, "out=out"]
    assert main(words) == 0
    used = rows_of(place / "out")["a"]["nn_method"]
    asked: list[str] = []
    monkeypatch.setattr(running, "chosen", lambda *_: ("another", "for a test"))
    monkeypatch.setattr(running, "sequence_scores", lambda text, *_: asked.append(text) or {"length": len(text)})
    assert main(words) == 0 and sorted(asked) == sorted([ONE, TWO]) and used != "another"


def test_a_structure_that_was_deleted_is_folded_again(place: Path) -> None:
    weights_of_fold(place)
    words = ["score", "input=x.fasta", "report=false", *FOLDED, "out=out"]
    assert main(words) == 0
    whole = state(place / "out")
    (place / "out/pdb/a.pdb").unlink()
    assert main(words) == 0 and state(place / "out") == whole


def test_refolds_that_ran_out_of_memory_are_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights_of_fold(place)
    words = ["score", "input=x.fasta", "report=false", *FOLDED, *CONSISTENT, "out=out"]
    with monkeypatch.context() as patched:
        patched.setattr(selfconsistency, "fold_within_memory", lambda _, sequences, say: [None] * len(sequences))
        assert main(words) == 0
    assert {row["sc_sequences"] for row in rows_of(place / "out").values()} == {"0"}
    assert main(words) == 0
    rows = rows_of(place / "out")
    assert {row["sc_sequences"] for row in rows.values()} == {"1"} and all(row["sc_rmsd"] for row in rows.values())


def test_a_shortlist_holds_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    scores = score_folder(tmp_path / "out", 4) / "scores.jsonl"
    words = ["filter", f"input={tmp_path / 'out'}", "min.plddt=10", f"out={tmp_path / 'short'}"]
    assert main(words) == 0 and len(list((tmp_path / "short/pdb").iterdir())) == 4
    scores.write_text("".join(re.sub(r'"plddt": [0-9.]+', '"plddt": 5.0', line) for line in scores.open()))
    assert main(words) == 1  # nothing passes any more
    left = {p.name for p in (tmp_path / "short").rglob("*") if p.is_file() and p.parent.name != "plots"}
    assert left == {".lock", "run.json", "rejected.csv"}


# --- the same folder with other keys

ADDED: dict[str, tuple[Words, Words]] = {  # the first command, the second
    "folding": (["fold=none"], FOLDED),
    "folding where auto found no weights": ([], FOLDED),
    "folding, beside structures that were given": (["structures=first", "mmcif=true"], [*FOLDED, "structures=first"]),
    "a second opinion on what was folded": (FOLDED, [*FOLDED, "structures=first"]),
    "known proteins": (["fold=none"], KNOWN),
    "no known proteins any more": (KNOWN, ["fold=none"]),
    "pppl": (["fold=none"], ["fold=none", "pppl=judge"]),
    "pppl of fewer positions": (["fold=none", "pppl=judge"], ["fold=none", "pppl=judge", "pppl_positions=3"]),
    "no pppl any more": (["fold=none", "pppl=judge"], ["fold=none"]),
    "other structures": (["structures=first", "mmcif=true"], ["structures=second"]),
    "no structures any more": (GIVEN, ["fold=none"]),
    "refolding": (FOLDED, [*FOLDED, *CONSISTENT]),
    "more refolds": ([*FOLDED, *CONSISTENT], [*FOLDED, CONSISTENT[0], "selfconsistency_num=2"]),
    "one spelling for another": (FOLDED, ["fold_model=weights"]),
}


@pytest.mark.parametrize("what", ADDED)
def test_a_folder_scored_again_with_other_keys_is_as_a_new_one(what: str, place: Path) -> None:
    """And back again: what the first command made is not lost, unless it was folded."""
    first, second = ADDED[what]
    weights_of_fold(place)
    weights_of_pppl(place)
    assert main(["score", "input=x.fasta", "report=false", *first, "out=out"]) == 0
    assert main(["score", "input=x.fasta", "report=false", *second, "out=out"]) == 0
    assert main(["score", "input=x.fasta", "report=false", *second, "out=fresh"]) == 0
    assert state(place / "out") == state(place / "fresh")


def test_what_other_keys_leave_as_it_was_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_of_fold(place)
    assert main(["score", "input=x.fasta", *KNOWN, "out=out"]) == 0
    monkeypatch.setattr(running, "sequence_scores", lambda *_: pytest.fail("scored twice"))
    capsys.readouterr()
    assert main(["score", "input=x.fasta", *FOLDED, *KNOWN[1:], "out=out"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "scored before with other settings (fold: none -> esmfold; fold_model: absent -> weights): what they" in told
    assert read_json(place / "out/run.json")["command_line"][2:4] == FOLDED
    assert "fold=esmfold" in (place / "out/report.html").read_text()


OTHER_FOLDS: list[Words] = [["fold=none"], ["fold=auto", "structures=first"], ["fold=esmfold2"]]


@pytest.mark.parametrize("more", [*OTHER_FOLDS, [*FOLDED, "recycles=1"], [*FOLDED, "pae=true"]])
def test_what_was_folded_is_not_lost_to_other_keys(
    more: Words, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_of_fold(place)
    words = ["score", "input=x.fasta", "report=false"]
    assert main([*words, *FOLDED, "out=out"]) == 0
    before = state(place / "out")
    assert main([*words, *more, "out=out"]) == 2
    told = capsys.readouterr().err
    assert "out holds structures that were folded with fold=esmfold fold_model=weights, and other keys of" in told
    assert state(place / "out") == before
    assert main([*words, *FOLDED, "out=out"]) == 0


def test_a_command_that_was_refused_does_not_bind_the_folder(place: Path) -> None:
    words = ["score", "input=x.fasta", "report=false", "out=out"]
    assert main([*words, "fold=none"]) == 0
    before = state(place / "out")
    assert main([*words, "structures=nowhere"]) == 2
    assert main([*words, "fold=esmfold", "fold_model=nowhere"]) == 2
    assert state(place / "out") == before
    assert main([*words, *GIVEN]) == 0 and len(list((place / "out/pdb").iterdir())) == 2


def test_structures_stay_where_the_weights_are_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fold=auto, folded on a machine with weights: elsewhere their hash is not known, and structures are no waste."""
    weights_of_fold(place)
    here = place / "weights"
    monkeypatch.setattr(running, "model_folder", lambda _: here)
    words = ["score", "input=x.fasta", "report=false", "out=out"]
    assert main(words) == 0
    whole = state(place / "out")
    assert "pdb/a.pdb" in whole
    monkeypatch.setattr(running, "model_folder", lambda _: None)
    assert main(words) == 0 and state(place / "out") == whole


# --- the pieces


def test_rows_of_all_processes_count_if_they_have_the_stamp_of_now(tmp_path: Path) -> None:
    lacking, fine = {"status": OUT_OF_MEMORY}, {"status": "ok", "plddt": 80.0}
    kept = Kept(tmp_path, "fold", dict.fromkeys("abcd", "now"), "model")
    kept.append([("a", fine), ("b", lacking), ("c", lacking)])
    kept.append([("a", lacking), ("b", fine)], rank=1)
    Journal(tmp_path / "parts/fold.2.jsonl").append([("a", {"of": "then", **lacking}), ("d", fine), ("gone", fine)])
    said: list[str] = []
    dropped: list[str] = []
    assert kept.rows(said.append, dropped.append) == {"a": fine, "b": fine, "c": lacking}
    assert dropped == ["d"] and said == ["fold: 1 result came from another model, and is made again"]


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write_folder(tmp_path / "one", random_model())
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)  # with other times
    (tmp_path / "two/README.md").write_text("a card")
    assert weights_stamp(tmp_path / "one") == weights_stamp(tmp_path / "two") != weights_stamp(None) == ""
    path = next(p for p in (tmp_path / "two").iterdir() if p.suffix in (".safetensors", ".bin"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert weights_stamp(tmp_path / "one") != weights_stamp(tmp_path / "two")


def test_weights_in_the_hub_s_cache_are_not_read(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    torch.save({}, blob)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/model.safetensors").symlink_to(blob)
    before = weights_stamp(tmp_path / "snapshot")
    blob.write_bytes(b"cannot be: the name is a hash of the content")
    assert weights_stamp(tmp_path / "snapshot") == before


def test_weights_are_read_once_where_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(hashing, "sha256", lambda path: read.append(path.name) or sha256(path))
    file, hashes = tmp_path / "model.safetensors", Hashes(tmp_path / "kept/hashes.json")
    file.write_bytes(b"one")
    first = hashes.sha256(file)
    assert hashes.sha256(file) == first and len(read) == 2  # it changed a moment ago, and may change again
    past = time.time_ns() - 10 * hashing.SETTLED
    os.utime(file, ns=(past, past))
    assert hashes.sha256(file) == hashes.sha256(file) == first == sha256(file) and len(read) == 3
    for content, changed in ((b"two", past + 1), (b"longer", past)):  # of another time, of another size
        file.write_bytes(content)
        os.utime(file, ns=(changed, changed))
        assert hashes.sha256(file) == sha256(file)
    other = tmp_path / "other"
    other.write_bytes(b"LONGER")
    os.utime(other, ns=(past, past))
    other.replace(file)  # of another inode
    assert hashes.sha256(file) == sha256(file) and len(read) == 6
    hashes.path.write_text("{")
    assert hashes.sha256(file) == hashes.sha256(file) == sha256(file) and len(read) == 7


def test_a_repeated_command_does_not_read_the_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights_of_fold(place)
    past = time.time() - 3600
    for path in (place / "weights").iterdir():
        os.utime(path, (past, past))
    words = ["score", "input=x.fasta", "report=false", *FOLDED, "out=out"]
    assert main(words) == 0
    monkeypatch.setattr(hashing, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert main(words) == 0


def test_a_command_is_its_words_and_the_files_that_it_names(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    first = program_stamp([str(script), "--num", "{num}"])
    assert program_stamp([str(script), "--num", "{num}"]) == first != program_stamp([str(script), "--num", "3"])
    script.write_text("#!/bin/sh\nexit\n")
    assert program_stamp([str(script), "--num", "{num}"]) != first
    assert stamp("a", "b") != stamp("ab") != stamp("b", "a")
