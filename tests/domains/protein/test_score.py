"""``score``: the table and files it leaves, resuming, what it refuses."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from designs_and_scores import write_designs
from dplm_files import random_model, write_folder
from fold_files import fold_folder
from tolerance import near

import didi_core
from didi_core.cli import main
from didi_core.errors import InputError
from didi_core.storage.journal import Journal
from didi_core.types import Sample
from didi_protein.alignment import identity
from didi_protein.design_report import read_designs
from didi_protein.design_report.designs import structure_name
from didi_protein.domain import ProteinDomain
from didi_protein.scoring import pseudo, running
from didi_protein.scoring.pseudo import load_pseudo, pseudo_perplexity
from didi_protein.scoring.reading import read_reference
from didi_protein.scoring.sequence import cluster_columns, sequence_scores
from didi_protein.scoring.settings import ProteinScoring
from didi_protein.scoring.table import best_first, merged, write_table
from didi_protein.vocabulary import RESIDUES

CPU = torch.device("cpu")


def protein(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(RESIDUES), length))


def changed(sequence: str, share: float, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    letters = list(sequence)
    for i in rng.choice(len(letters), round(share * len(letters)), replace=False):
        letters[i] = rng.choice([letter for letter in RESIDUES if letter != letters[i]])
    return "".join(letters)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fold_folder(tmp_path_factory.mktemp("esmfold"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Six designs, one of them in the reference, folded by the command."""
    folder = tmp_path_factory.mktemp("score")
    records = {f"d{i} model=student steps={2 + i}": protein(14 + 3 * i, i) for i in range(6)}
    relative = "MM" + records["d3 model=student steps=5"]
    known = write_designs(folder / "known.fasta", {"x": protein(40, 50), "copy": relative})
    out = folder / "out"
    words = [f"input={write_designs(folder / 'designs.fasta', records)}", f"reference={known}", f"fold_model={weights}"]
    assert main(["score", *words, f"out={out}", "fold=esmfold", "pae=true", "tokens=40"]) == 0
    return out


def table(folder: Path, name: str = "scores.csv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_a_row_per_design_in_order_of_confidence(scored: Path) -> None:
    rows, lines = table(scored), [json.loads(line) for line in (scored / "scores.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == [f"d{i}" for i in range(6)] == sorted(line["id"] for line in lines)
    values = [float(row["plddt_ca"]) for row in rows]
    assert values == sorted(values, reverse=True) and min(values) > 0 and max(values) <= 100
    for row, line in zip(rows, lines, strict=True):
        assert row["status"] == "ok" and row["model"] == "student" and int(row["length"]) == len(row["sequence"])
        assert len(line["plddt_per_residue"]) == int(row["length"])
        assert np.mean(line["plddt_per_residue"]) == pytest.approx(float(row["plddt_ca"]), abs=0.01)
        assert {"ptm", "pae", "low_complexity", "pi", "nn_identity", "nn_coverage", "cluster_70"} <= set(row)


def test_structures_and_errors_are_written_and_read_by_the_report(scored: Path) -> None:
    designs = read_designs(scored)
    assert all(design.pdb is not None and len(design.atoms()) == len(design.sequence) for design in designs)
    for design in designs:
        with np.load(scored / "pae" / f"{design.id}.npz") as arrays:
            assert arrays["pae"].mean() == pytest.approx(design.number("pae"), abs=1e-3)
    page = (scored / "report.html").read_text()
    assert "pLDDT" in page and (scored / "plots" / "plddt_over_steps.png").is_file()


def test_a_copy_of_a_known_protein_is_told(scored: Path) -> None:
    copy = next(row for row in table(scored) if row["id"] == "d3")
    assert (copy["nn_id"], float(copy["nn_identity"]), float(copy["nn_coverage"])) == ("copy", 1.0, 1.0)


def again(scored: Path, *more: str) -> list[str]:
    """The command line of the fixture once more."""
    return [*json.loads((scored / "run.json").read_text())["command_line"], *more]


def test_a_repeated_command_scores_nothing_twice(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (scored / "scores.csv").read_bytes(), (scored / "parts" / "fold.jsonl").read_bytes()
    for name in ("sequence_scores", "choose"):
        monkeypatch.setattr(running, name, lambda *_: pytest.fail("scored twice"))
    assert main(again(scored)) == 0
    assert before == ((scored / "scores.csv").read_bytes(), (scored / "parts" / "fold.jsonl").read_bytes())


def test_other_settings_or_designs_do_not_go_into_the_folder(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (scored / "scores.csv").read_bytes()
    assert main(again(scored, "recycles=0")) == 2
    assert "would replace or hide them. Give these, or name another out." in capsys.readouterr().err
    designs = scored.parent / "designs.fasta"
    text = designs.read_text()
    try:
        designs.write_text(text.replace(">d0", ">other"))
        assert main(again(scored)) == 2
        assert "holds scores of other designs under the same names" in capsys.readouterr().err
    finally:
        designs.write_text(text)
    assert (scored / "scores.csv").read_bytes() == before


def test_an_interrupted_run_goes_on_and_keeps_what_it_had(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {f"d{i}": protein(12 + i, i) for i in range(5)}
    designs = write_designs(tmp_path / "x.fasta", records)
    words = ["score", f"input={designs}", f"out={tmp_path / 'out'}", "report=false"]
    words += ["fold=esmfold", f"fold_model={weights}", "tokens=1"]
    real, folded = running.fold_within_memory, []

    def interrupted(folder: Any, sequences: list[str], say: Any) -> Any:
        if len(folded) == 2:
            raise KeyboardInterrupt
        folded.extend(sequences)
        return real(folder, sequences, say)

    monkeypatch.setattr(running, "fold_within_memory", interrupted)
    assert main(words) == 130
    states = {row["id"]: row["status"] for row in table(tmp_path / "out")}
    assert sorted(states.values()) == ["not folded"] * 3 + ["ok"] * 2
    journal = tmp_path / "out" / "parts" / "fold.jsonl"
    with journal.open("a") as file:
        file.write('{"id": "d2", "plddt": 4')  # as the power went out

    def rest(folder: Any, sequences: list[str], say: Any) -> Any:
        folded.extend(sequences)
        return real(folder, sequences, say)

    monkeypatch.setattr(running, "fold_within_memory", rest)
    assert main(words) == 0
    assert sorted(folded) == sorted(records.values())  # each once
    assert {row["status"] for row in table(tmp_path / "out")} == {"ok"}
    assert len(journal.read_text().splitlines()) == 1 + 5


def test_what_does_not_fit_into_memory_is_recorded_and_tried_again(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["score", f"input={write_designs(tmp_path / 'x.fasta', {'a': 'MKTAYIAK', 'b': 'GGWA'})}", "report=false"]
    words += [f"out={tmp_path / 'out'}", f"fold_model={weights}", "fold=esmfold"]
    real = running.fold_within_memory
    monkeypatch.setattr(
        running,
        "fold_within_memory",
        lambda folder, sequences, say: [m if len(m.residues) < 6 else None for m in real(folder, sequences, say)],
    )
    assert main(words) == 0
    assert [(row["id"], row["status"]) for row in table(tmp_path / "out")] == [("b", "ok"), ("a", "oom")]
    tried: list[str] = []

    def with_room(folder: Any, sequences: list[str], say: Any) -> Any:
        tried.extend(sequences)
        return real(folder, sequences, say)

    monkeypatch.setattr(running, "fold_within_memory", with_room)
    assert main(words) == 0  # the same command: memory may be there now
    assert tried == ["MKTAYIAK"]
    assert {row["status"] for row in table(tmp_path / "out")} == {"ok"}


def test_journal_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl")
    assert journal.rows() == {}
    journal.append([("a", {"v": 1})])
    journal.append([("b", {"v": 2})])
    assert journal.rows() == {"a": {"v": 1}, "b": {"v": 2}}
    journal.path.write_text('{"v": 1}\n' + journal.path.read_text())
    with pytest.raises(InputError, match="line 1: damaged"):
        journal.rows()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["score", *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("didi_core: ") and "Traceback" not in "".join(told)
    return told[-1]


def test_bad_input_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, out = write_designs(tmp_path / "good.fasta", {"a": "MKTAYIAK", "b": "GGWA"}), f"out={tmp_path / 'out'}"
    twice = tmp_path / "twice.fasta"
    twice.write_text(">a\nMKT\n>b\nMK\n>a\nGG\n")
    assert "line 5: the id 'a' is there already, in line 1" in refused(capsys, f"input={twice}", out)
    assert "input is missing" in refused(capsys, out)
    assert "no such file" in refused(capsys, f"input={tmp_path / 'no.fasta'}", out)
    (tmp_path / "empty.fasta").touch()
    assert "the file is empty" in refused(capsys, f"input={tmp_path / 'empty.fasta'}", out)
    bad = write_designs(tmp_path / "bad.fasta", {"a": "MKX"})
    assert "all 1 records were skipped" in refused(capsys, f"input={bad}", out)
    assert "record 'a': letter 'X'" in refused(capsys, f"input={bad}", out, "data.on_bad=error")
    assert "holds the designs themselves" in refused(capsys, f"input={good}", out, f"reference={good}", "fold=none")
    assert "unknown fold 'esmfold3'. Did you mean 'esmfold'" in refused(capsys, f"input={good}", out, "fold=esmfold3")
    assert "unknown key 'fodl'. Did you mean 'fold'" in refused(capsys, f"input={good}", out, "fodl=none")
    assert "fold_model=facebook/esmfold_v1 is not here, and the hub" in refused(
        capsys, f"input={good}", f"out={tmp_path / 'hub'}", "fold=esmfold"
    )
    told = refused(capsys, f"input={good}", out, f"fold_model={tmp_path}")
    assert "there is no config.json in it" in told and not (tmp_path / "out" / "scores.csv").exists()
    assert "labels=['a', 'b'] are 2 for 1 files" in refused(capsys, f"input={good}", out, "labels=[a,b]")
    assert "domain=toy has no scores of single designs" in refused(capsys, f"input={good}", out, "domain=toy")
    assert main(["score", f"input={good}", out, "fold=none", "report=false"]) == 0  # a refusal leaves the place free
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    told = refused(capsys, f"input={good}", f"out={tmp_path / 'full'}")
    assert f"out={tmp_path / 'full'} is not empty and holds no run" in told


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"tokens": 0}, "tokens=0 is out of range"),
        ({"recycles": -1}, "recycles=-1 is out of range"),
        ({"hours": -1.0}, "hours=-1.0 is out of range"),
        ({"fold": "none", "fold_model": "x"}, "fold_model=x has no effect with fold=none"),
        ({"pppl_positions": 4}, "pppl_positions=4 has no effect without pppl"),
    ],
)
def test_settings_that_are_wrong(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ProteinScoring(**keys)


def test_several_files_are_told_apart(tmp_path: Path) -> None:
    for name in ("student", "teacher"):
        write_designs(tmp_path / f"{name}.fasta", {"s_1": protein(30, len(name)), "s_2": protein(31, 9 + len(name))})
    words = [f"input=[{tmp_path}/student.fasta,{tmp_path}/teacher.fasta]", "labels=[ours,theirs]", "fold=none"]
    assert main(["score", *words, f"out={tmp_path / 'out'}"]) == 0
    rows = {row["id"]: row["model"] for row in table(tmp_path / "out")}
    assert rows == {"student_s_1": "ours", "student_s_2": "ours", "teacher_s_1": "theirs", "teacher_s_2": "theirs"}


def test_a_reference_may_hold_some_of_the_designs(tmp_path: Path) -> None:
    designs = [Sample("MKTAYIAK", "a"), Sample("GGWA", "b")]
    path = write_designs(tmp_path / "r.fasta", {"k": "MKTAYIAK", "bad": "MXX"})
    told: list[str] = []
    assert read_reference([path], designs, told.append).names == ("k",)
    assert "1 skipped" in told[0]


def test_clusters_by_identity() -> None:
    base, other = protein(120, 1), protein(110, 2)
    sequences = [base, changed(base, 0.05), changed(base, 0.2, 1), changed(base, 0.4, 2), other, base[:100]]
    assert [round(identity(base, s), 2) for s in sequences[:4]] == pytest.approx([1, 0.95, 0.8, 0.6], abs=0.02)
    assert cluster_columns(sequences) == {
        "cluster_50": [1, 1, 1, 1, 2, 1],
        "cluster_70": [1, 1, 1, 2, 3, 1],
        "cluster_90": [1, 1, 2, 3, 4, 1],
    }
    assert cluster_columns(["MK"])["cluster_50"] == [1]
    assert identity("WWWW", "GGGG") == 0.0


def test_scores_of_a_sequence_are_defined_or_none() -> None:
    row = sequence_scores("MKTAYIAKQRQISFVKSHFSRQ" * 3)
    assert row["length"] == 66 and row["repeated_3mers"] > 0.5 and row["extinction"] == 3 * 1490
    tiny = sequence_scores("M")
    assert tiny["low_complexity"] is None and tiny["longest_run"] == 1
    assert all(v is None or isinstance(v, str) or math.isfinite(v) for v in tiny.values())


def test_scores_of_an_earlier_header_are_not_taken_for_new_ones() -> None:
    info = {"plddt": 99.0, "steps": 8, "id": "x", "loss": float("nan")}
    row = merged([Sample("MKT", "a", info=info)], [{"a": {"pi": 5.0}}])[0]
    assert row == {"id": "a", "status": "not folded", "steps": 8, "loss": None, "sequence": "MKT", "pi": 5.0}


def test_order_of_rows_without_confidence() -> None:
    rows = [{"id": "a", "pppl": 9.0}, {"id": "b", "pppl": None}, {"id": "c", "pppl": 4.0}]
    assert [r["id"] for r in best_first(rows)] == ["c", "a", "b"]
    assert [r["id"] for r in best_first([{"id": "z"}, {"id": "a"}])] == ["z", "a"]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "sp|P1|X", "x" * 300, "a:b*c?d"])
def test_structure_files_of_any_id(name: str, tmp_path: Path) -> None:
    path = tmp_path / structure_name(name)
    path.touch()
    assert path.parent == tmp_path and path.is_file() and not path.name.startswith(".")


def test_pseudo_perplexity_against_one_call_per_residue(tmp_path: Path) -> None:
    model = random_model()
    logits = load_pseudo("x", write_folder(tmp_path, model), CPU)
    sequence = "MKTAYIAKQRQ"
    ids, total = torch.tensor([ProteinDomain().encode(sequence)]), 0.0
    for i in range(1, len(sequence) + 1):
        masked = ids.clone()
        masked[0, i] = 32
        with torch.no_grad():
            logits_here = model(masked, attention_mask=torch.ones_like(masked)).logits[0, i]
        total -= float(logits_here.log_softmax(-1)[ids[0, i]])
    assert pseudo_perplexity(logits, sequence) == near(math.exp(total / len(sequence)))
    some = [pseudo_perplexity(logits, sequence, 4, seed=s) for s in (0, 0, 1)]
    assert some[0] == some[1] != some[2]


def test_judges_that_are_none(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is not a masked language model of proteins"):
        load_pseudo("x", weights, CPU)
    monkeypatch.setattr(pseudo, "why_not", lambda: "needs this.")
    with pytest.raises(InputError, match="pppl=esm:esmc_300m needs this. ESM C needs no package as"):
        load_pseudo("esm:esmc_300m", None, CPU)


@pytest.mark.parametrize(
    ("python", "there", "message"),
    [
        ((3, 12, 1), {"esm": "3.4.1.post1"}, "^$"),
        ((3, 12, 1), {}, r"needs EvolutionaryScale's package esm: pip install 'didi-core\[esm\]'"),
        ((3, 12, 1), {"esm": "3.2.1.post1"}, r"esm 3\.4 or newer, found 3\.2\.1\.post1"),
        ((3, 12, 1), {"fair-esm": "2.0.0"}, "pip uninstall fair-esm"),
        ((3, 11, 7), {}, r"needs Python 3\.12; this is 3\.11\.7, .* need an older transformers"),
        ((3, 11, 7), {"esm": "3.2.3"}, r"needs Python 3\.12"),
    ],
)
def test_what_to_do_about_the_package_esm(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, ...], there: dict[str, str], message: str
) -> None:
    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(pseudo, "version", version)
    assert re.search(message, pseudo.why_not(python))


def test_an_absent_package_is_one_message_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pseudo, "why_not", lambda: "needs this.")
    designs = write_designs(tmp_path / "x.fasta", {"a": "MKT"})
    assert main(["score", f"input={designs}", "fold=none", "pppl=esm:esmc_300m", f"out={tmp_path / 'out'}"]) == 2
    assert "needs this" in capsys.readouterr().err and not (tmp_path / "out" / "parts").exists()


def test_esm_c_of_the_package_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uniform(torch.nn.Module):
        @classmethod
        def from_pretrained(cls, name: str, *, device: torch.device, attn_implementation: str) -> Uniform:
            assert name == "biohub/ESMC-300M" and device == CPU and attn_implementation == "sdpa"
            return cls()

        def forward(self, input_ids: torch.Tensor) -> Any:
            return types.SimpleNamespace(logits=torch.zeros(*input_ids.shape, 64))

    monkeypatch.setattr(pseudo, "why_not", lambda: "")
    for name in ("esm", "esm.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    fake = types.ModuleType("esm.models.esmc")
    fake.EsmcForMaskedLM = Uniform  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "esm.models.esmc", fake)
    assert pseudo_perplexity(load_pseudo("esm:esmc_300m", None, CPU), "MKT") == near(64.0)


def test_from_python(tmp_path: Path) -> None:
    made = [Sample(protein(40, i), f"s{i}", info={"steps": 8}) for i in range(3)]
    scored = didi_core.score(made, fold="none", out=tmp_path / "out", report=False)
    assert scored.folder == tmp_path / "out" and [row["id"] for row in scored.rows] == ["s0", "s1", "s2"]
    pytest.importorskip("pandas")
    assert list(scored.to_frame().length) == [40, 40, 40]
    with pytest.raises(InputError, match="designs 1 and 2 have the same id 's'"):
        didi_core.score([Sample("MKT", "s"), Sample("MKK", "s")], fold="none", out=tmp_path / "other")


def test_cells_that_a_spreadsheet_would_compute_are_texts(tmp_path: Path) -> None:
    rows = [{"id": "=cmd()", "note": "@SUM(A1)", "gravy": -1.5, "sequence": "MKV"}, {"id": "-x", "note": "\t=1"}]
    write_table(tmp_path, rows)
    with (tmp_path / "scores.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["id"], first["note"], first["gravy"]) == ("'=cmd()", "'@SUM(A1)", "-1.5")
    assert (second["id"], second["note"], second["gravy"]) == ("'-x", "'\t=1", "")
    assert json.loads((tmp_path / "scores.jsonl").read_text().split("\n")[0])["id"] == "=cmd()"
