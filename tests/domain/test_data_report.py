"""What became of the data: counted by reason, on screen and in the records, and refused where most of it is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from didi_core.cli import WRONG, main
from didi_core.commands.common import note_data
from didi_core.domain.data_report import DataReport, describe, kind_of
from didi_core.errors import InputError
from didi_core.sequences import AlphabetDomain
from didi_core.storage.run_dir import RunDirectory
from didi_protein import ProteinDomain
from didi_toy import ToyDomain

PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGA"
SMALL = ["model=micro", "training.steps=2", "training.batch_size=4", "validation_batches=1"]


def fasta(folder: Path, sequences: list[str], name: str = "x.fasta") -> Path:
    path = folder / name
    path.write_text("".join(f">p{i}\n{text}\n" for i, text in enumerate(sequences)))
    return path


def rotated(n: int) -> list[str]:
    """n different proteins of one length."""
    return [PROTEIN[i % 50 :] + PROTEIN[: i % 50] + "ACDEFGHIKL"[i // 50] for i in range(n)]


def test_every_record_is_used_or_counted_under_a_reason(tmp_path: Path) -> None:
    natural = rotated(60)
    wrong = ["MKX" + PROTEIN, PROTEIN + "X", PROTEIN + "*" + PROTEIN, "", "MKV", PROTEIN * 9, natural[0], natural[1]]
    report = describe(ProteinDomain(fasta(tmp_path, natural + wrong)))
    assert report is not None and report.read == 68
    assert report.left_out == {
        "letter 'X' (an unknown residue) is not one of the 20 amino acids ACDEFGHIKLMNPQRSTVWY": 2,
        "letter '*' (a stop codon inside the sequence) is not one of the 20 amino acids ACDEFGHIKLMNPQRSTVWY": 1,
        "the record has no sequence": 1,
        "shorter than data.min_length=30": 1,
        "longer than data.max_length=300": 1,
    }
    assert report.set_aside["repeated"] == 2
    assert report.kept == sum(report.splits.values()) == 60 - report.set_aside.get("relatives of held-out ones", 0)
    assert "68 sequences read from" in str(report) and "6 left out: " in str(report) and "line 121 'p60'" in str(report)


def test_a_closing_star_is_cut_and_costs_no_record(tmp_path: Path) -> None:
    domain = ProteinDomain(fasta(tmp_path, [text + "*" for text in rotated(40)]))
    assert {sample.text for sample in domain.samples} == {*rotated(40)}
    report = domain.data_report()
    assert report is not None and not report.left_out


def test_losing_most_of_the_data_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    path = fasta(tmp_path, rotated(9) + [PROTEIN * 7 + text for text in rotated(30)])
    with pytest.raises(InputError, match=r"30 of 39 sequences cannot be used: longer than data.max_length=300 \(30\)"):
        ProteinDomain(path).splits  # noqa: B018
    with pytest.raises(InputError, match=r"set data.allow_loss=true"):
        ProteinDomain(path).batches("train", 2, 0)
    assert len(ProteinDomain(path, allow_loss=True).samples) == 9


def test_repeated_sequences_are_no_loss(tmp_path: Path) -> None:
    report = describe(ProteinDomain(fasta(tmp_path, rotated(20) * 5)))
    assert report is not None and (report.read, report.set_aside["repeated"], report.left_out) == (100, 80, {})


def test_data_that_are_not_the_users_have_no_report() -> None:
    class Made(AlphabetDomain):
        name, alphabet = "made", "abcd"

    assert describe(ToyDomain()) is None and describe(ProteinDomain()) is None and describe(Made()) is None


def test_reasons_are_counted_without_place_and_value() -> None:
    assert kind_of("letter 'X' at position 31 is wrong") == kind_of("letter 'X' at position 7 is wrong")
    assert kind_of("column 'text' holds a number, not text: 5") == "column 'text' holds a number, not text"


def test_a_long_list_is_cut_and_its_rest_counted() -> None:
    report = DataReport(("x",), 50, {"train": 10}, {f"reason {i}": i for i in range(1, 9)})
    assert "reason 8 (8); " in str(report) and "and 3 more reasons" in str(report)


def test_commands_say_it_and_keep_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fasta(tmp_path, [*rotated(60), "MKV", "MKX"])
    run = tmp_path / "run"
    assert main(["pretrain", "domain=protein", f"data.path={path}", f"run_dir={run}", *SMALL]) == 0
    assert "data: 62 sequences read from" in capsys.readouterr().out
    records = [json.loads((run / name).read_text())["data_report"] for name in ("run.json", "model/card.json")]
    assert records[0] == records[1]
    assert records[0]["read"] == 62 and records[0]["left_out"]["shorter than data.min_length=30"] == 1
    assert PROTEIN[:20] not in json.dumps(records)


def test_a_loss_is_said_before_a_folder_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fasta(tmp_path, [PROTEIN * 7, *rotated(1)] * 2 + [PROTEIN * 8])
    run = tmp_path / "run"
    assert main(["pretrain", "domain=protein", f"data.path={path}", f"run_dir={run}", *SMALL]) == WRONG
    assert "data.allow_loss=true" in capsys.readouterr().err and not run.exists()


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: [*rows, "zz"]], ids=["fewer", "more"])
def test_a_run_does_not_go_on_with_other_data(
    change: Callable[[list[str]], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Quads(AlphabetDomain):
        name, alphabet = "quads", "abcd"

    run, path = tmp_path / "run", tmp_path / "x.txt"
    rows = [f"{a}{b}" for a in "abcd" for b in "abcd"]

    def begin(texts: list[str]) -> None:
        path.write_text("\n".join(texts) + "\n")
        with RunDirectory.open(run, {}) as opened:
            note_data(opened, Quads(path, on_bad="skip"))

    begin(rows)
    begin(rows)
    with pytest.raises(InputError, match=r"x.txt: the data are not those with which .*run was begun \(read: 16, now"):
        begin(change(rows))
    assert json.loads((run / "run.json").read_text())["data_report"]["read"] == 16
