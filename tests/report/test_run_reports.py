"""Several runs: side by side, and over the seeds of an ablation whose answer is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from didi_core.cli import main
from didi_core.commands.report import Settings, run, spelled
from didi_core.errors import InputError
from didi_core.report.ablation import ablation, read_ablation
from didi_core.report.runs import read_run, side_by_side
from didi_core.report.to_json import SCHEMA

METHOD = {
    "sampler": "ancestral", "law": "iid", "grid": "uniform", "steps": 8, "top_p": 1.0
}  # fmt: skip


METRICS, BETTER = ("ppl", "entropy", "energy", "length"), ("lower", "neither", "lower", "neither")


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 1, "high": value + 1, "n": 50, "left_out": 0}


def write(folder: Path, objective: str = "", quality: float = 10.0, domain: str = "toy", seed: int = 0) -> Path:
    metrics = [{"name": n, "label": n, "better": b, "description": ""} for n, b in zip(METRICS, BETTER, strict=True)]
    row = {
        "model": "student", "kind": "model", "n": 50, "method": METHOD, "temperature": 1.0,
        "nfe": {"denoiser": 8.0, "scorer": 0.0},
        "values": {"ppl": interval(quality), "entropy": interval(2.0), "energy": interval(0.1), "length": interval(9)},
    }  # fmt: skip
    teacher = {**row, "model": "teacher", "values": {**row["values"], "ppl": interval(40.0)}}  # type: ignore[dict-item]
    found = {"model": "student", "method": METHOD, "status": "reached", "quality": interval(quality + 0.5)}
    report = {
        "schema": SCHEMA, "domain": domain, "metrics": metrics, "rows": [row, {**row, "temperature": 0.5}, teacher],
        "matched": [found, {**found, "model": "teacher", "quality": interval(42.0)}],
        "reference_entropy": 2.0, "provenance": {"git_commit": "abc"},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "run.json").write_text(json.dumps({"config": {"objective": {"name": objective}, "seed": seed}}))
    return folder


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [read_run(write(tmp_path / name, quality=quality)) for name, quality in (("a", 10.0), ("b", 8.0))]
    said, notes, (table,) = side_by_side(runs)
    assert table.cells[1][:2] == ("a", "teacher")
    assert said == "Best ppl of a student at matched entropy: 8.50, b at 8 steps."
    assert notes == [] and [line[0] for line in table.cells[::2]] == ["a", "b"]
    assert table.cells[0][3:] == ("8", "8", "10.0 [9.00, 11.0]", "2.00 [1.00, 3.00]", "10.5 [9.50, 11.5]")


def test_runs_that_do_not_compare_are_told(tmp_path: Path) -> None:
    runs = [read_run(write(tmp_path / name, domain=name)) for name in ("toy", "protein")]
    with pytest.raises(InputError, match="different domains do not compare"):
        side_by_side(runs)
    with pytest.raises(InputError, match="at least two"):
        side_by_side(runs[:1])
    with pytest.raises(InputError, match="has no report.json"):
        read_run(tmp_path / "absent")
    (tmp_path / "toy" / "report.json").write_text('{"schema": "didi_core.report/1"}')
    with pytest.raises(InputError, match="'didi_core.report/1', not 'didi_core.report/3'"):
        read_run(tmp_path / "toy")


def test_ablation_takes_means_over_seeds_and_compares_the_order(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / f"{seed}", "ablation_plain", 20.0 + seed, seed=seed)
        write(tmp_path / f"{3 + seed}", "ablation_decomposed", 30.0 + seed, seed=seed)
    guided = write(tmp_path / "6", "ablation_full", 5.0) / "report.json"
    report = json.loads(guided.read_text())
    kept = {key: [row for row in report[key] if row["model"] != "teacher"] for key in ("rows", "matched")}
    guided.write_text(json.dumps({**report, **kept}))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "run.json").write_text("{}")
    runs, told = read_ablation([tmp_path])
    assert told == ["Without a report, left out: runs 7."]
    said, notes, tables = ablation(runs)
    sampled = tables[0]
    assert sampled.headers == ("", "seeds", "8 steps", "published, 8")
    assert [line[0] for line in sampled.cells] == ["teacher", "none of it", "+ score decomposition", "full (RGAS)"]
    assert sampled.cells[0][1:] == ("", "40.0 [39.0, 41.0]", "")
    assert sampled.cells[1][1:] == ("3", "21.0 [18.6, 23.6]", "804")  # 1 * 4.303 / sqrt(3), of logarithms
    titles = ["Ppl, as sampled", "Ppl at matched entropy", "Ppl at matched entropy, over the teacher's"]
    assert [table.title for table in tables] == [*titles, "Entropy", "Energy"]  # no side of length is better
    assert tables[2].cells[2] == ("full (RGAS)", "1", "0.131")  # 5.5 over the 42 of another run: it has no teacher
    assert tables[2].cells[0][1:] == ("3", "0.512 [0.456, 0.574]")  # 21.5 / 42, and no row of the teacher
    assert tables[4].cells[1][1:] == ("3", "0.100 [0.100, 0.100]")
    assert said == "At 8 steps the best ppl, as sampled, is that of 'full (RGAS)' (5.00); other than published: " + (
        "+ score decomposition after none of it."
    )
    assert notes[0] == "Fewer than three seeds: full (RGAS)." and "coupled time" in notes[1]


def test_a_seed_whose_sweep_did_not_reach_the_entropy_is_counted_out(tmp_path: Path) -> None:
    for seed in range(3):
        folder = write(tmp_path / f"{seed}", "didi", 20.0, seed=seed)
        report = json.loads((folder / "report.json").read_text())
        report["matched"][0]["status"] = "reached" if seed else "not reached"
        (folder / "report.json").write_text(json.dumps(report))
    tables = ablation(read_ablation([tmp_path])[0])[2]
    assert tables[1].cells[1] == ("didi", "3", "20.5 [20.5, 20.5] (2 of 3)")


def test_seeds_of_one_objective_are_a_claim_without_published_rows(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / f"{seed}", "didi", 20.0 + seed, seed=seed)
    said, notes, tables = ablation(read_ablation([tmp_path])[0])
    assert said == "At 8 steps the best ppl, as sampled, is that of 'didi' (21.0)." and notes == []
    assert tables[0].headers == ("", "seeds", "8 steps")


def changed(folder: Path, steps: int = 8, **metric: str) -> Path:
    """The report of a run with another number of steps, or another quality."""
    report = json.loads((folder / "report.json").read_text())
    report["metrics"][0] |= metric
    for row in (*report["rows"], *report["matched"]):
        row["method"] = {**METHOD, "steps": steps}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_an_order_is_compared_only_with_what_was_published(tmp_path: Path) -> None:
    """At four steps nothing was, and two of the rows at sixteen were published with one value."""
    for name, quality in (("ablation_plain", 20.0), ("ablation_decomposed", 30.0)):
        changed(write(tmp_path / "4" / name, name, quality), 4)
    said, _, tables = ablation(read_ablation([tmp_path / "4"])[0])
    assert said == "At 4 steps the best ppl, as sampled, is that of 'none of it' (20.0)."
    assert tables[0].headers == ("", "seeds", "4 steps") and "Published" not in tables[0].about
    for name, quality in (("ablation_density", 20.0), ("ablation_regularised", 19.0), ("mine", 1.0)):
        changed(write(tmp_path / "16" / name, name, quality), 16)
    said, _, _ = ablation(read_ablation([tmp_path / "16"])[0])
    assert said.endswith("is that of 'mine' (1.00); the rows published are in the published order.")


def test_the_best_of_a_quality_is_on_its_better_side(tmp_path: Path) -> None:
    for name, quality in (("a", 10.0), ("b", 8.0)):
        changed(write(tmp_path / name, name, quality), better="higher")
    runs = [read_run(tmp_path / name) for name in ("a", "b")]
    assert side_by_side(runs)[0] == "Best ppl of a student as sampled: 10.0, a at 8 steps."
    assert ablation(runs)[0] == "At 8 steps the best ppl, as sampled, is that of 'a' (10.0)."


def test_models_without_a_student_are_called_models(tmp_path: Path) -> None:
    runs = []
    for name, quality in (("a", 10.0), ("b", 8.0)):
        path = write(tmp_path / name, quality=quality) / "report.json"
        path.write_text(path.read_text().replace('"student"', '"model"').replace('"teacher"', '"other"'))
        runs.append(read_run(path.parent))
    assert side_by_side(runs)[0] == "Best ppl of a model at matched entropy: 8.50, b at 8 steps."


def test_runs_that_do_not_compare_have_no_best(tmp_path: Path) -> None:
    runs = [write(tmp_path / name) for name in ("a", "b")]
    changed(runs[1], description="another judge")
    said, notes, _ = side_by_side([read_run(path) for path in runs])
    assert said.startswith("No best student: the runs have different judges") and "do not compare" in notes[0]
    changed(runs[1], description="")
    report = json.loads((runs[1] / "report.json").read_text())
    for at, best in ((2.01, True), (2.5, False)):
        (runs[1] / "report.json").write_text(json.dumps({**report, "reference_entropy": at}))
        said, notes, _ = side_by_side([read_run(path) for path in runs])
        assert said.startswith("Best ppl" if best else "No best student: the runs are matched at different entropies")
        assert notes == [f"The runs are compared at different entropies (2.0, {at})."]


def test_runs_that_do_not_compare_are_no_ablation(tmp_path: Path) -> None:
    runs = [write(tmp_path / str(seed), "didi", seed=seed) for seed in range(3)]
    changed(runs[1], description="another judge")
    with pytest.raises(InputError, match="the judges of runs 0 and 1 differ, and qualities of two judges have no mean"):
        ablation([read_run(path) for path in runs])
    runs[1] = write(tmp_path / "protein", "didi", domain="protein")
    with pytest.raises(InputError, match="different domains do not compare"):
        ablation([read_run(path) for path in runs])
    report = json.loads((runs[2] / "report.json").read_text())
    (runs[2] / "report.json").write_text(json.dumps({**report, "reference_entropy": 2.5}))
    notes = ablation([read_run(path) for path in (runs[0], runs[2])])[1]
    assert "The runs are compared at different entropies (2.0, 2.5)." in notes


def test_a_run_is_not_beside_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    with pytest.raises(InputError, match="a more than once"):
        side_by_side([read_run(one) for one in (path, path / ".." / "a")])


def test_the_command_writes_all_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = tuple(write(tmp_path / name) for name in ("a", "b"))
    run(Settings(compare=paths, out=tmp_path / "out"), {}, ("report",))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["runs.html", "runs.json", "runs.md"]
    assert json.loads((tmp_path / "out" / "runs.json").read_text())["schema"] == "didi_core.runs/1"
    assert "| a | student |" in capsys.readouterr().out
    with pytest.raises(InputError, match="either compare"):
        Settings()
    with pytest.raises(InputError, match="no run with a report"):
        read_ablation([tmp_path / "out"])


def test_runs_of_several_objectives_are_named_with_them(tmp_path: Path) -> None:
    runs = [read_run(write(tmp_path / str(i), name)) for i, name in enumerate(("mine", "didi", ""))]
    _, _, (table,) = side_by_side(runs)
    assert [line[0] for line in table.cells[::2]] == ["0 (mine)", "1 (didi)", "2"]


def configured(folder: Path, seed: int, quality: float, **config: object) -> Path:
    """A run of didi with further settings."""
    path = write(folder, "didi", quality, seed=seed) / "run.json"
    objective = {"name": "didi", **config.pop("objective", {})}  # type: ignore[dict-item]
    path.write_text(json.dumps({"config": {"seed": seed, "objective": objective, **config}}))
    return folder


SCORER, PAIRS = {"kind": "scorer", "weight": 1.0}, {"kind": "pairs", "weight": 1.0, "clip": 4.0}


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        ({"training": {"lr": 0.1}}, {"training": {"lr": 0.2}}, ["didi training.lr=0.1", "didi training.lr=0.2"]),
        (
            {"objective": {"reward": [SCORER]}}, {"objective": {"reward": [SCORER, PAIRS]}},
            ["didi objective.reward=[scorer,pairs]", "didi objective.reward=[scorer]"],
        ),
        (
            {"objective": {"reward": [SCORER]}}, {"objective": {"reward": [{**SCORER, "weight": 0.5}]}},
            ["didi objective.reward[0].weight=0.5", "didi objective.reward[0].weight=1.0"],
        ),
        ({"student": {"noise": 0}}, {"student": {"noise": 8}}, ["didi student.noise=0", "didi student.noise=8"]),
        (
            {"adapter": None}, {"adapter": {"kind": "lora", "rank": 4}},
            ["didi adapter.kind=lora adapter.rank=4", "didi adapter=null"],
        ),
        ({"training": {"log_every": 1}}, {"training": {"log_every": 2}}, ["didi"]),
        ({"device": "cpu", "run_dir": "a"}, {"device": "cuda", "run_dir": "b"}, ["didi"]),
    ],
)  # fmt: skip
def test_other_settings_of_one_objective_are_no_seeds_of_it(
    one: dict[str, object], other: dict[str, object], rows: list[str], tmp_path: Path
) -> None:
    for seed in (0, 1):
        configured(tmp_path / f"one_{seed}", seed, 10.0, **one)
        configured(tmp_path / f"other_{seed}", seed, 20.0, **other)
    _, notes, tables = ablation(read_ablation([tmp_path])[0])
    assert [row[0] for row in tables[0].cells if row[0] != "teacher"] == rows
    assert any("A seed is there more than once" in note for note in notes) == (len(rows) == 1)


def test_an_ablation_reads_several_multiruns(tmp_path: Path) -> None:
    for folder, name in (("a", "mine"), ("b", "didi")):
        for seed in range(2):
            write(tmp_path / folder / str(seed), name, seed=seed)
    (tmp_path / "b/1/report.json").unlink()
    runs, notes = read_ablation([tmp_path / "a", tmp_path / "b"])
    assert [run.objective for run in runs] == ["mine", "mine", "didi"]
    assert notes == ["Without a report, left out: runs 1."]
    assert [row[:2] for row in ablation(runs)[2][0].cells[1:]] == [("didi", "1"), ("mine", "2")]


def test_a_folder_that_is_no_multirun_is_told_what_to_give(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0")
    with pytest.raises(InputError, match=r"holds no run.*give the directories of the multiruns in it, .*/a\]"):
        read_ablation([tmp_path])
    with pytest.raises(InputError, match="it is a single run.*report compare"):
        read_ablation([tmp_path / "a" / "0"])
    with pytest.raises(InputError, match="names .*/a more than once"):
        read_ablation([tmp_path / "a", tmp_path / "x" / ".." / "a"])


def test_runs_may_follow_the_word_compare(tmp_path: Path) -> None:
    (tmp_path / "seed=1").mkdir()
    assert spelled(["compare", f"{tmp_path}/seed=1"]) == [f"compare=['{tmp_path}/seed=1']"]
    assert spelled(["compare", "a run", "it's", "out=x"]) == ["compare=['a run','it\\'s']", "out=x"]
    assert spelled(["ablation", "runs", "more"]) == ["ablation=[runs,more]"]
    assert spelled(["compare=[a,b]"]) == ["compare=[a,b]"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare"], r"compare=\[\] is empty: give the run directories"),
        (["ablation"], r"ablation=\[\] is empty: give the directory"),
        (["compare", "it's", "there"], "it's"),
        (["sideways"], "'sideways' is not a setting: write key=value"),
        (["compare=[a,b]", "reference=didi"], "reference=didi is an objective of ablation="),
    ],
)
def test_what_is_wrong_is_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words]) == 2
    assert re.search(told, capsys.readouterr().err)


def test_objectives_stand_beside_the_control_and_have_a_cost(tmp_path: Path) -> None:
    """Ratios are taken seed by seed; half the seconds of didi for as many updates is twice its rate."""
    for seed, base in enumerate((10.0, 20.0, 40.0)):
        for name, factor, seconds in (("cross_entropy", 1.0, 5.0), ("didi", 2.0, 40.0), ("mine", 0.5, 20.0)):
            run = write(tmp_path / f"{name}_{seed}", name, factor * base - 0.5, seed=seed)
            record = json.loads((run / "run.json").read_text())
            (run / "run.json").write_text(json.dumps(record | {"updates": 80}))
            (run / "metrics.jsonl").write_text(json.dumps({"step": 80, "seconds": seconds}) + "\n")
    runs, _ = read_ablation([tmp_path])
    _, _, tables = ablation(runs)
    (beside,) = [table for table in tables if table.title.startswith("Ppl at matched entropy, over the control")]
    rows = {row[0]: row[1:] for row in beside.cells}
    assert rows["cross_entropy"][:2] == ("3", "1.00 [1.00, 1.00]")
    assert rows["mine"][1] == "0.500 [0.500, 0.500]" and rows["didi"][1] == "2.00 [2.00, 2.00]"
    (cost,) = [table for table in tables if table.title == "Cost"]
    costs = {row[0]: row for row in cost.cells}
    assert costs["mine"][2:] == ("80", "20", "4.00 [4.00, 4.00]", "2.00")
    assert costs["cross_entropy"][5] == "8.00" and costs["didi"][5] == "1.00"
    bare = [write(tmp_path / "bare" / name, name) for name in ("didi", "mine")]
    _, _, few = ablation([read_run(path) for path in bare])
    assert not [table for table in few if table.title == "Cost" or "control" in table.title]


def test_objectives_stand_beside_any_of_them(tmp_path: Path) -> None:
    for seed, base in enumerate((10.0, 20.0, 40.0)):
        for name, factor in (("cross_entropy", 1.0), ("didi", 2.0), ("mine", 0.5)):
            write(tmp_path / f"{name}_{seed}", name, factor * base - 0.5, seed=seed)
    run(Settings(ablation=(tmp_path,), reference="didi", out=tmp_path / "out"), {}, ("report",))
    tables = json.loads((tmp_path / "out" / "runs.json").read_text())["tables"]
    assert not [table for table in tables if "the control" in table["title"]]
    (beside,) = [table for table in tables if table["title"] == "Ppl at matched entropy, over didi's"]
    assert ["mine", "3", "0.250 [0.250, 0.250]"] in beside["cells"] and "didi of the same seed" in beside["about"]
    with pytest.raises(InputError, match="unknown objective 'dido'.*Did you mean 'didi'"):
        run(Settings(ablation=(tmp_path,), reference="dido", out=tmp_path / "out"), {}, ("report",))


@pytest.mark.parametrize(
    ("ours", "told"),
    [((1.0, 2.0, 3.0), "0.500"), ((2.5, 3.0, 4.0), "0.420"), ((5.0, 6.0, 7.0), "–")],
    ids=["at that of the data", "the nearest that both reach", "none in common"],
)
def test_objectives_are_compared_at_one_variety(tmp_path: Path, ours: tuple[float, ...], told: str) -> None:
    """The quality is 2^variety for the one and the root of it for the other; held-out data have a variety of 2."""
    for name, sweep, power in (("didi", (1.0, 2.0, 3.0), 1.0), ("mine", ours, 0.5)):
        path = write(tmp_path / name, name) / "report.json"
        report = json.loads(path.read_text())
        row = report["rows"][0]
        report["rows"] = [
            {**row, "values": {**row["values"], "ppl": interval(2 ** (power * v)), "mix": interval(v)}} for v in sweep
        ] + [{"model": "held-out", "kind": "data", "values": {"mix": interval(2.0)}}]
        path.write_text(json.dumps({**report, "variety": {"name": "mix", "label": "mix"}}))
    _, _, tables = ablation(read_ablation([tmp_path])[0], "didi")
    (beside,) = [table for table in tables if table.title == "Ppl at matched mix, over didi's"]
    assert beside.cells[-1] == ("mine", "1", told)
