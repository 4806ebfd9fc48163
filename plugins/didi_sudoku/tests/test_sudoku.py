"""The domain keeps didi_core's contract, and what is Sudoku about it holds."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from didi_sudoku import SudokuDomain
from didi_sudoku.grids import Rules
from didi_sudoku.notation import digits_of
from didi_sudoku.puzzles import Maker
from didi_sudoku.rewards import sudoku_solved

from didi_core.cli import WRONG, main
from didi_core.errors import InputError
from didi_core.evaluation.intervals import bootstrap
from didi_core.models.dit import DiT, DiTConfig
from didi_core.plugins import registry
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.streams import generator, seeded
from didi_core.testing import DomainContract, check_reward
from didi_core.types import Denoiser, Domain, Sample

SOLVED = "1234341221434321"


def network(domain: Domain) -> Denoiser:
    """A small one, untrained."""
    with seeded(0, "test"):
        return DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), domain.vocabulary).eval()


class TestSide4(DomainContract):
    def make(self) -> Domain:
        return SudokuDomain()


class TestSide6(DomainContract):
    def make(self) -> Domain:
        return SudokuDomain(side=6, min_clues=14, max_clues=20)


def test_it_is_found_by_its_entry_point() -> None:
    assert registry().domain("sudoku", {}).name == "sudoku"
    with pytest.raises(InputError, match="unknown key 'data.sides'. Did you mean 'data.side'"):
        registry().domain("sudoku", {"sides": 4})


def test_there_are_288_grids_of_side_4() -> None:
    grids = list(Rules(4).completions([0] * 16))
    assert len({*grids}) == len(grids) == 288 and all(map(Rules(4).solved, grids))


@pytest.mark.parametrize("side", [4, 6])
def test_every_puzzle_has_one_solution_which_its_split_alone_knows(side: int) -> None:
    rules = Rules(side)
    low, high = (4, 6) if side == 4 else (14, 20)
    maker, solutions = Maker(rules, (low, high)), {}
    for split in ("train", "validation"):
        made = [maker.puzzle(split, random.Random(i)) for i in range(40)]
        assert all(rules.solution(puzzle.clues) == puzzle.grid for puzzle in made)
        assert all(low <= sum(puzzle.given) <= high for puzzle in made)
        solutions[split] = {puzzle.grid for puzzle in made}
    assert not solutions["train"] & solutions["validation"]


@pytest.mark.parametrize(
    "puzzle, message",
    [
        ("1234 3412 2143 432", "a puzzle of side 4 has 16 cells; this one has 15"),
        (SOLVED, "has no empty cell"),
        ("11__ ____ ____ ____", "the clues contradict each other: row 1 holds 1 twice"),
        ("1___ _1__ ____ ____", "the clues contradict each other: box 1 holds 1 twice"),
        ("12__ 3_4_ ____ ____", "the clues leave no solution"),
        ("1___ ____ ____ ____", r"the clues leave more than one solution: row \d, column"),
        ("1x__ ____ ____ ____", "'x' is neither a digit nor an empty cell"),
        ("15__ ____ ____ ____", "5 is no digit of side 4"),
    ],
)
def test_puzzles_that_are_none_are_refused(puzzle: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SudokuDomain().read_template(puzzle)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"side": 9}, "data.side=9: there are grids of side 4 and 6"),
        ({"min_clues": 9}, "data.min_clues=9, data.max_clues=6: need 1 <= min <= max < 16"),
        ({"validation": 1.5}, "data.validation=1.5 is out of range"),
        ({"min_clues": 1, "max_clues": 2}, "no puzzle of 1 to 2 clues with one solution"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SudokuDomain(**keys).lengths(1, generator(0, "test"))


def test_a_puzzle_is_read_as_people_write_it() -> None:
    domain = SudokuDomain()
    written = domain.read_template("1... | ...3 | ..2. | 4...")
    assert written == domain.read_template("①______③00②04___")
    assert [written[0], written[1]] == [domain.vocabulary.given[0], domain.vocabulary.mask]


def test_solved_is_the_share_of_grids_that_keep_the_rules_with_an_interval() -> None:
    metric = SudokuDomain().metrics()[0]
    right, wrong = Sample(SOLVED), Sample(SOLVED[::-1].replace("1", "2"))
    half = bootstrap(metric, [right, wrong] * 50)
    assert half.value == 0.5 and 0.40 < half.low < 0.41 and 0.59 < half.high < 0.60
    whole = bootstrap(metric, [right] * 100)
    assert whole.value == whole.high == 1 and 0.96 < whole.low < 0.97


def test_the_checker_is_a_reward() -> None:
    texts = [sample.text for sample in SudokuDomain().held_out(3)] + [SOLVED[::-1].replace("1", "2")]
    assert sudoku_solved(texts) == [1, 1, 1, 0]
    larger = SudokuDomain(side=6, min_clues=14, max_clues=20)
    assert sudoku_solved([sample.text for sample in larger.held_out(2)]) == [1, 1]
    check_reward(sudoku_solved, larger, network(larger))


@pytest.mark.parametrize("sampler", ["ancestral", "dplm", "first_hitting", "joint_fp32", "p2", "rgas"])
def test_no_sampler_changes_a_clue(sampler: str) -> None:
    domain = SudokuDomain()
    teacher = network(domain)
    settings, scorer = SamplerSettings(sampler, 3), domain.scorer(teacher, 1).eval()
    made = generate(domain, teacher, scorer, settings=settings, num=12, seed=4).samples
    puzzles = domain.templates("validation", 12, generator(4, "lengths"))
    for sample, puzzle in zip(made, puzzles.tolist(), strict=True):
        given = [i for i, token in enumerate(puzzle) if token != domain.vocabulary.mask]
        assert [(sample.tokens or ())[i] for i in given] == [puzzle[i] for i in given]
        assert not {*domain.vocabulary.given} & {t for i, t in enumerate(sample.tokens or ()) if i not in given}


def test_clues_of_data_and_templates_are_those_of_the_puzzle() -> None:
    domain = SudokuDomain()
    batch = next(iter(domain.batches("train", 8, seed=0)))
    for row in batch.tolist():
        clues = [i - 3 if i in domain.vocabulary.given else 0 for i in row]
        assert domain.rules.solution(clues) == tuple(digits_of(domain.decode(row)))


def test_from_nothing_to_a_distilled_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    small = ["model.hidden=16", "model.layers=1", "model.heads=2", "validation_batches=1"]
    assert main(["pretrain", "domain=sudoku", "training.steps=3", *small, f"run_dir={teacher}"]) == 0
    words = ["objective.states.samples=16", "objective.states.steps=2", "training.steps=2"]
    rows = ["evaluate.num=20", "evaluate.steps=[1,2]", "evaluate.teacher_steps=[1,2]"]
    assert main(["distill", "domain=sudoku", f"teacher={teacher}", *words, *rows, f"run_dir={student}"]) == 0
    found = json.loads((student / "report.json").read_text())
    assert found["quality"] == "solved" and len(found["differences"]) == 4
    out = tmp_path / "solved.jsonl"
    clues = "1......3..2.4..."
    assert main(["sample", f"run={student}", "num=3", "steps=2", f"template={clues}", f"out={out}"]) == 0
    for line in out.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"]
        assert all(digit == "①②③④"[int(clue) - 1] for digit, clue in zip(text, clues, strict=True) if clue != ".")
    capsys.readouterr()
    assert main(["sample", f"run={student}", "template=11..............", f"out={out}"]) == WRONG
    assert "row 1 holds 1 twice" in capsys.readouterr().err


def test_help_explains_the_keys_of_the_domain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "domain=sudoku", "--help"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"data.min_clues=4 +# digits that are given", said)
    assert re.search(r"data.validation=0.1 +# share of the solved grids that only evaluations see", said)


def test_untrained_teacher_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDI_SUDOKU_TEACHER", str(tmp_path / "none"))
    with pytest.raises(InputError, match="run `python -m didi_sudoku` once"):
        SudokuDomain().teacher()
