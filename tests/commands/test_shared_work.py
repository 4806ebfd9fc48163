"""Batches and designs shared by processes: the same bytes for any number of them, and nothing finished is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from process_group import alone, outcome, start

from didi_core.checkpoints.card import save_model
from didi_core.cli import main
from didi_core.commands.common import about_domain, make_domain
from didi_core.domain.scoring import Job
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.processes import Processes
from didi_core.sampling import generate as generation
from didi_core.sampling.sharing import Drawn, Sharing, name_of
from didi_core.storage.journal import Journal
from didi_core.types import NFE
from didi_protein.scoring import running

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def batch(number: int) -> Drawn:
    return Drawn([[number, 1], [number]], NFE(2.5, number), 0.25)


# --- which process does what


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_every_thing_belongs_to_one_process_however_many_there_are(size: int) -> None:
    dealt = [list(Processes(rank, size).mine(range(10))) for rank in range(size)]
    assert sorted(number for some in dealt for number in some) == list(range(10))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


# --- the journal of batches


def test_batches_come_back_in_order_and_are_kept_until_forgotten(tmp_path: Path) -> None:
    told: list[int] = []
    sharing = Sharing(folder=tmp_path / "parts")
    assert sharing.all_batches(3, batch, told.append) == [batch(n) for n in range(3)] and told == [1, 2, 3]
    again = Sharing(folder=tmp_path / "parts")
    assert again.all_batches(3, lambda number: pytest.fail(f"batch {number} is kept")) == [batch(n) for n in range(3)]
    again.forget()
    assert not (tmp_path / "parts").exists()


def test_a_stop_loses_only_the_open_batch(tmp_path: Path) -> None:
    def stops(number: int) -> Drawn:
        if number == 2:
            raise KeyboardInterrupt
        return batch(number)

    with pytest.raises(KeyboardInterrupt):
        Sharing(folder=tmp_path).all_batches(5, stops)
    (journal,) = tmp_path.glob("*.jsonl")
    with journal.open("a") as file:
        file.write('{"id": "2", "tokens": [[2')  # killed while it wrote
    drawn: list[int] = []
    found = Sharing(folder=tmp_path).all_batches(5, lambda number: drawn.append(number) or batch(number))  # type: ignore[func-returns-value]
    assert drawn == [2, 3, 4] and found == [batch(n) for n in range(5)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "0"}\nnot json\n')
    with pytest.raises(InputError, match="a.jsonl, line 2: damaged"):
        Sharing(folder=tmp_path).all_batches(1, batch)


def test_another_generation_has_another_folder() -> None:
    names = {name_of(seed, templates) for seed in (0, 1) for templates in (None, [[1, 2]], [[2, 1]])}
    assert len(names) == 6 and name_of(0, None) in names


# --- sample


def sampled(place: Path, *more: str) -> list[str]:
    return [
        "sample", "run=bundled", "domain=toy", "num=10", "batch_size=3", "steps=2", "device=cpu",
        f"run_dir={place}", *more,
    ]  # fmt: skip


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_samples_of_two_processes_are_those_of_one_and_a_stopped_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    assert main(sampled(tmp_path / "one")) == 0
    expected = (tmp_path / "one" / "samples.jsonl").read_bytes()

    request, calls = generation.sample_request, iter(range(10))

    def stops(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return request(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(generation, "sample_request", stops)
        assert main(sampled(tmp_path / "stopped")) == 130
    assert f"run_dir={tmp_path / 'stopped'}" in capsys.readouterr().err
    assert not (tmp_path / "stopped" / "samples.jsonl").exists()
    (kept,) = (tmp_path / "stopped" / "parts").glob("*/*.jsonl")
    assert len(Journal(kept).rows()) == 2

    codes, out, err = outcome(["-m", "didi_core", *sampled(tmp_path / "stopped")])
    assert codes == [0, 0], err
    assert "10 samples" in out[0] and not out[1]
    assert (tmp_path / "stopped" / "samples.jsonl").read_bytes() == expected
    assert not (tmp_path / "stopped" / "parts").exists()
    assert json.loads((tmp_path / "stopped" / "run.json").read_text())["world_size"] == 2


def killed(command: Sequence[str], journals: Callable[[], list[int]]) -> int:
    """The command by two processes, of which the second is killed once each journal has rows.

    Returns:
        rows in the journals afterwards.
    """
    started, store = start(["-m", "didi_core", *command])
    until = time.monotonic() + 120
    while (len(journals()) < 2 or min(journals()) < 3) and time.monotonic() < until:
        time.sleep(0.02)
    started[1].kill()
    told = [process.communicate(timeout=120) for process in started]
    del store
    assert [process.returncode for process in started] == [1, -9], told
    assert "What was finished is kept: repeat the command" in told[0][1]
    return sum(journals())


def rows_of(folder: Path, pattern: str) -> Callable[[], list[int]]:
    return lambda: [len(Journal(path).rows(repair=False)) for path in folder.glob(pattern)]


@pytest.mark.slow
def test_a_killed_process_loses_only_its_open_batch(tmp_path: Path, one_thread: None) -> None:
    many = ["num=400", "batch_size=2", "steps=16"]
    kept = killed(sampled(tmp_path / "killed", *many), rows_of(tmp_path / "killed", "parts/*/*.jsonl"))
    assert 6 <= kept < 200 and not (tmp_path / "killed" / "samples.jsonl").exists()
    assert main(sampled(tmp_path / "killed", *many)) == 0
    assert main(sampled(tmp_path / "whole", *many)) == 0
    names = ("killed", "whole")
    assert len({(tmp_path / name / "samples.jsonl").read_bytes() for name in names}) == 1


# --- evaluate, and the comparison at the end of distill


def values_of(folder: Path) -> list[Any]:
    """The values of a report by model."""
    text = (folder / "report.json").read_text()
    report = json.loads(text, parse_float=lambda word: round(float(word), 9))  # sums of the same rows may round
    return [(row["model"], row["values"]) for row in report["rows"]]


@pytest.mark.slow
def test_an_evaluation_by_two_processes_finds_what_one_finds(tmp_path: Path) -> None:
    plan = ["steps=[2]", "teacher_steps=[1]", "temperatures=[1.0]"]
    small = ["num=12", "num_at={}", "batch_size=5", *plan, "device=cpu"]
    distilled = [
        "distill", "domain=toy", "training.steps=2", "training.batch_size=8", "objective.reference=data",
        "objective=didi", "objective.baseline.group=4", *(f"evaluate.{word}" for word in small[:-1]), "device=cpu",
    ]  # fmt: skip
    codes, _, err = outcome(["-m", "didi_core", *distilled, f"run_dir={tmp_path / 'run'}"])
    assert codes == [0, 0], err
    assert (tmp_path / "run" / "report.json").is_file()
    made, cache = ["evaluate", f"run={tmp_path / 'run'}", *small], tmp_path / "run" / "evaluation"
    for path in cache.glob("*.jsonl"):
        path.unlink()
    codes, _, err = outcome(["-m", "didi_core", *made, f"out={tmp_path / 'two'}"], 3)
    assert codes == [0, 0, 0], err
    first = sorted(cache.glob("*.jsonl"))
    assert len(first) == 2 and not list(cache.glob("*.parts"))
    kept = [path.read_bytes().splitlines()[1:] for path in first]
    for path in first:
        path.unlink()
    alone([*made, f"out={tmp_path / 'one'}"])
    assert [path.read_bytes().splitlines()[1:] for path in first] == kept

    assert values_of(tmp_path / "one") == values_of(tmp_path / "two")


@pytest.mark.slow
def test_an_evaluation_goes_on_after_one_of_its_processes_was_killed(tmp_path: Path, one_thread: None) -> None:
    domain = make_domain("toy", {})
    torch.manual_seed(0)
    network = DiT(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8), domain.vocabulary)
    save_model(tmp_path / "model", network, about_domain(domain, {}))
    words = [
        "evaluate", f"run={tmp_path / 'model'}", "num=300", "num_at={}", "batch_size=2", "steps=[16]",
        "temperatures=[1.0]", "device=cpu",
    ]  # fmt: skip
    command = [*words, f"out={tmp_path / 'killed'}"]
    kept = killed(command, rows_of(tmp_path, "killed/evaluation/*.parts/*.jsonl"))
    assert 6 <= kept < 150 and not (tmp_path / "killed" / "report.json").exists()
    assert main(command) == 0
    assert main([*words, f"out={tmp_path / 'whole'}"]) == 0
    samples = [next((tmp_path / name / "evaluation").glob("*.jsonl")) for name in ("killed", "whole")]
    assert len({tuple(path.read_bytes().splitlines()[1:]) for path in samples}) == 1
    values = [values_of(tmp_path / name) for name in ("killed", "whole")]
    assert values[0] and values[0] == values[1]


# --- score


def fasta(path: Path, count: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    lines = []
    for number in range(count):
        drawn = torch.randint(20, (40,), generator=generator).tolist()
        lines += [f">design_{number}", "".join(RESIDUES[i] for i in drawn)]
    path.write_text("\n".join(lines) + "\n")
    return path


def scored(folder: Path, place: str, *more: str) -> list[str]:
    return [
        "score", f"input={folder / 'designs.fasta'}", f"reference={folder / 'known.fasta'}", "fold=none",
        "novelty=kmers", "report=false", "device=cpu", f"out={folder / place}", *more,
    ]  # fmt: skip


def test_scores_of_several_processes_are_those_of_one_and_a_stopped_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fasta(tmp_path / "designs.fasta", 11), fasta(tmp_path / "known.fasta", 5)
    assert main(scored(tmp_path, "one")) == 0

    real, calls = running.sequence_scores, iter(range(20))

    def stops(*arguments: Any) -> Any:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(running, "sequence_scores", stops)
        patched.setattr(running, "STAGE_LINES", 2)
        assert main(scored(tmp_path, "stopped")) == 130
    codes, out, err = outcome(["-m", "didi_core", *scored(tmp_path, "stopped")], 3)
    assert codes == [0, 0, 0], err
    assert "11 designs scored" in out[0] and not any(out[1:])
    for name in ("scores.jsonl", "scores.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    journals = {path.name: len(Journal(path).rows()) for path in (tmp_path / "stopped" / "parts").iterdir()}
    assert journals == {"sequence.jsonl": 8, "sequence.1.jsonl": 2, "sequence.2.jsonl": 1}
    assert main(scored(tmp_path, "stopped")) == 0, "and one process goes on where three were"


@pytest.mark.slow
def test_scores_go_on_after_one_process_was_killed(tmp_path: Path) -> None:
    fasta(tmp_path / "designs.fasta", 8_000), fasta(tmp_path / "known.fasta", 200)
    kept = killed(scored(tmp_path, "killed"), rows_of(tmp_path / "killed" / "parts", "sequence*.jsonl"))
    assert 6 <= kept < 8_000
    assert main(scored(tmp_path, "killed")) == 0
    assert main(scored(tmp_path, "whole")) == 0
    for name in ("scores.jsonl", "scores.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_domain_that_scores_alone_refuses_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from didi_core.commands import score

    class Alone:
        name = "alone"

        def read_designs(self, files: Sequence[Path], labels: Sequence[str]) -> list[Any]:
            return []

        def score(self, designs: Sequence[Any], wishes: Any, job: Job) -> list[dict[str, Any]]:
            return []

        def shortlist(self, folder: Path, wishes: Any, job: Job) -> list[dict[str, Any]]:
            return []

    monkeypatch.setattr(score, "make_domain", lambda name, data: Alone())
    monkeypatch.setattr(score, "current", lambda: Processes(0, 2))
    with pytest.raises(InputError, match="domain=alone scores designs in one process: start score without torchrun"):
        score.score_designs(score.Settings(domain="alone"), {}, ())
