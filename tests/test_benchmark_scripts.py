"""Each benchmark runs, and its two ways compute the same thing. Times are for a quiet machine and not tested."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import tarfile
import time
import warnings
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

import didi_core
from didi_core.commands.compose import compose_jobs
from didi_core.models.attention import Layout
from didi_core.plugins import registry
from didi_protein.domain import asset
from didi_protein.vocabulary import VOCABULARY

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PLAIN = ("sampling", "first_call", "pieces", "log_probabilities", "packing")
SCRIPTS = (*PLAIN, "large_vocabulary", "proteins", "reading", "updating")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a benchmark as its own command line would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_ways_agree_and_are_recorded(name: str, load, tmp_path: Path) -> None:
    # Raises where the two ways differ.
    script, out = load(name), tmp_path / "out.json"
    load("measure").main(script.__file__, name, script.CASES, ["--quick", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == list(script.CASES)
    assert all(row["time_ratio"] > 0 for row in rows)


def test_ways_that_differ_are_not_timed(load) -> None:
    measure: ModuleType = load("measure")
    case = measure.Case(lambda: torch.zeros(2), lambda: torch.ones(2), measure.close)
    with pytest.raises(RuntimeError, match="different results"):
        measure.compare("zero and one", case, 1)


def test_same_law_notices_another_distribution(load) -> None:
    script = load("sampling")
    even = torch.randint(4, 24, (16, 64), generator=torch.Generator().manual_seed(0))
    assert script.same_law(even, even.flip(0), script.PROTEIN)
    assert not script.same_law(even, even.clamp(max=12), script.PROTEIN)
    assert not script.same_law(even, torch.full_like(even, script.PROTEIN.mask), script.PROTEIN)


def test_peak_sees_what_was_freed(load) -> None:
    peak = load("measure").peak_bytes(lambda: torch.ones(25_000_000).sum())
    assert peak > 80e6


def test_living_tensors_are_counted_until_they_are_freed(load) -> None:
    weights = torch.zeros(1000)
    with load("memory").Live() as live:
        weights.add_(1.0)  # in place: there before
        made = torch.ones(500)
        assert live.now == live.most == 2000
        view, more = made.view(5, 100), made * 2
        assert live.now == 4000
        del made, view, more
        torch.ones(250)
    assert (live.now, live.most) == (0, 4000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "processes", "settings"),
    [("full", 1, []), ("lora", 1, []), ("full", 2, ["parallel=replicate"]), ("full", 2, ["parallel=shard"])],
)
def test_memory_is_measured_beside_its_plan(
    load, way: str, processes: int, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The peak of a process as planned, within 15 %, at a size at which a copy of the network takes 40 MB."""
    if way == "lora":
        pytest.importorskip("peft")
    size = ["--hidden", "384", "--layers", "5", "--objectives", "cross_entropy", "--ways", way]
    words = ["--out", str(tmp_path / "memory.json"), *size, "--processes", str(processes), "--", *settings]
    assert load("memory").main(words) == 0
    (row,) = json.loads((tmp_path / "memory.json").read_text())["rows"]
    for part in ("weights", "gradients", "moments", "averages"):
        assert row["planned"][part] == pytest.approx(row["measured"][part], rel=0.02) and row["measured"][part] > 0
    assert row["planned"]["peak"] == pytest.approx(row["measured"]["peak"], rel=0.15)
    assert f"| cross_entropy | {way} | {processes} |" in capsys.readouterr().out


def test_protein_costs_are_measured_in_every_part(load, tmp_path: Path) -> None:
    script, out = load("gpu_protein"), tmp_path / "out.json"
    assert script.main(["--quick", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert {row["part"] for row in record["rows"]} == {"forward and backward", "step of distill", "sampling"}
    assert all(row["milliseconds"] > 0 and not row["problem"] for row in record["rows"])
    assert {row["what"] for row in record["rows"] if row["part"] == "sampling"} == {
        "2 calls",
        "DPLM's decoder, 4 calls",
    }
    assert "xformers" in record["not_measured"]


def test_folding_costs_are_measured_alone_and_in_batches(load, tmp_path: Path) -> None:
    script, out = load("gpu_folding"), tmp_path / "out.json"
    assert script.main(["--quick", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["residues"], row["sequences"], row["chunk"]) for row in rows] == [
        (length, count, chunk) for length, most in ((6, 4), (12, 2)) for count in (1, most) for chunk in (None, 8, 4)
    ]
    assert all(row["seconds"] > 0 and not row["problem"] for row in rows)


def test_too_little_memory_is_a_row_and_growth_is_that_of_one_sequence(load, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("gpu_folding")
    folder = script.network(script.configuration(quick=True), torch.device("cpu"))

    def full(sequences: list[str]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(folder, "fold", full)
    row = script.measured(folder, script.Row(5, 2, 4), 1)
    assert row == script.Row(5, 2, 4, problem="out of memory")
    timed = [script.Row(100, 1, 128, 1.0), script.Row(200, 5, 128, 9.0), script.Row(200, 1, 128, 8.0), row]
    assert script.growth(timed, 128) == pytest.approx(3.0)
    assert script.growth(timed, 64) is None


MDLM = """
import lightning as L
import torch
import torchmetrics
import transformers


class Metric(torchmetrics.aggregation.MeanMetric):
    pass


class Diffusion(L.LightningModule):
    @torch.no_grad()
    def _sample(self, num_steps=None, eps=1e-5):
        assert self.sampler == "ddpm_cache" and self.noise.ready and num_steps
        x = torch.full((self.config.loader.eval_batch_size, self.config.model.length), self.mask_index)
        return self.backbone(x, None)[..., : self.mask_index].softmax(-1)[0].multinomial(1).T
"""


def test_a_released_sampler_runs_beside_ours_without_the_rest_of_its_code(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diffusion.py").write_text(MDLM)
    (tmp_path / "noise_schedule.py").write_text("class LogLinearNoise:\n    ready = True\n")
    script, out, before = load("peers"), tmp_path / "out.json", {*sys.modules}
    words = ["--mdlm", str(tmp_path), "--quick", "--length", "32", "--steps", "2,3", "--repeats", "1"]
    script.main([*words, "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["MDLM, 2 steps", "MDLM, 3 steps"]
    assert all(row["time_ratio"] > 0 for row in rows) and rows[0]["plain_megabytes"] is not None
    for name in ("diffusion", "noise_schedule"):
        monkeypatch.delitem(sys.modules, name)
    assert not {name for name in {*sys.modules} - before if name.split(".")[0] in ("lightning", "hydra", "dataloader")}
    with pytest.raises(SystemExit):
        script.main(["--quick"])


def test_a_million_proteins_are_taken_to_the_first_batch(load, tmp_path: Path) -> None:
    script, path = load("million"), tmp_path / "x.fasta"
    script.write(path, 60)
    assert path.read_text().count("UniRef50") == 60
    told = script.to_first_batch(path, 0.0)
    assert (told["rows"], told["proteins"]) == (32, 60) and told["peak_gb"] > 0 and told["seconds"] > 0


def test_the_released_recipe_runs_beside_ours(load, tmp_path: Path) -> None:
    script, out = load("gpu_language"), tmp_path / "out.json"
    assert script.main(["--quick", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["part"], row["way"]) for row in rows] == [
        (part, way) for part in ("distillation step", "2 calls") for way in ("plain", "ours")
    ]
    assert all(row["seconds"] > 0 and row["tokens_per_second"] > 0 and not row["problem"] for row in rows)


def test_plain_and_our_samples_are_whole_and_of_one_law(load) -> None:
    script = load("gpu_language")
    setting = script.Setting(script.DiTConfig(16, 1, 2, 8), 6, 64, 32, (4,), 1, torch.device("cpu"))
    student = script.Networks(setting).student.eval()
    with torch.no_grad():
        student.output_layer.linear.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0, 0.5, 0.0]))
    made = [draw(student, setting, 4) for draw in (script.plain_samples, script.our_samples)]
    shares = [torch.bincount(tokens.flatten(), minlength=7)[:6] / tokens.numel() for tokens in made]
    assert all(int(tokens.max()) < 6 for tokens in made)
    assert (shares[0] - shares[1]).abs().max() < 0.06


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run directories of two students that have learnt next to nothing."""
    few = {"objective": "didi", "training.steps": 1, "training.batch_size": 16, "objective.reference_samples": 16}
    cheap = {"objective.reference_steps": 2, "objective.reward.warmup": 1, "evaluate.enabled": False}
    folder = tmp_path_factory.mktemp("seeds")
    return [
        str(didi_core.distill(domain="toy", seed=seed, run_dir=str(folder / str(seed)), **few, **cheap))
        for seed in (0, 1)
    ]


def test_a_claim_is_told_for_each_seed_and_for_all(
    load, two_seeds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, out = load("training_claim"), tmp_path / "claim.json"
    how = ["--num", "64", "--steps", "4", "--temperatures", "0.2", "1.1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["training_claim", *two_seeds, *how])
    script.main()
    row = json.loads(out.read_text())["by_steps"]["4"]
    assert list(row) == ["seed 0", "seed 1", "pooled", "t over seeds"]
    low, high = sorted(float(row[f"seed {seed}"].split(" %")[0].replace("−", "-")) for seed in (0, 1))
    assert low - 0.5 <= float(row["pooled"].split(" %")[0]) <= high + 0.5


def times(folder: Path) -> dict[str, int]:
    """When each set of samples was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}


def test_what_a_student_is_worth_is_drawn_in_turns_and_gone_on_with(load, two_seeds: list[str], tmp_path: Path) -> None:
    script = load("acceleration")
    how = [*two_seeds, "--out", str(tmp_path), "--calls", "2", "4", "--plain", "2", "16", "--temperatures", "1", "0.3"]
    sets = ["--sets", "2", "--student-sets", "1", "--sets-at", "16=1"]
    assert script.main([*how, *sets, "--limit", "-1"]) == 0  # no time: nothing is drawn, and the page says so
    assert all(row["samples"] == 0 for row in json.loads((tmp_path / "worth.json").read_text())["rows"])
    assert script.main([*how, *sets]) == 0
    found = json.loads((tmp_path / "worth.json").read_text())
    assert [row["samples"] for row in found["rows"]] == [64] * 4 + [128] * 2 + [128, 64]
    told, drawn = (tmp_path / "worth.md").read_text(), times(tmp_path / "samples")
    few, many = (found["student over plain teacher"]["2"][plain]["mean"] for plain in ("2", "16"))
    assert few[0] < 0.05 < many[0], "two calls of an untrained student are two of its teacher, and not worth sixteen"
    assert few[1] < few[0] < few[2] and found["student over plain teacher"]["4"]["16"]["sets"] == 1
    assert script.main([*how, *sets, "--limit", "-1"]) == 0
    assert (tmp_path / "worth.md").read_text() == told
    assert "student, 2 calls, against plain calls" in told and "law and grid alone, 4 calls" in told
    assert times(tmp_path / "samples") == drawn


# --- the comparison of two trees


def test_a_part_under_another_name_has_not_moved(load) -> None:
    moved = load("baseline").moved
    assert moved({"a": "1", "b": "2"}, {"a": "1", "c": "2"}) == []
    assert moved({"a": "1", "b": "2"}, {"a": "3", "b": "2"}) == ["a"]
    assert moved({"a": "1", "b": "2", "c": "2"}, {"a": "1", "d": "2", "e": "5"}) == ["c (gone)", "e (new)"]


def test_weights_are_compared_by_content(load, tmp_path: Path) -> None:
    script, one, other = load("baseline"), tmp_path / "one", tmp_path / "other"
    state = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    for run, step, final in ((one, "average", state), (other, "ema", {**state, "w": state["w"].view(3, 2)})):
        for folder, name, content in (("checkpoints/step_1", step, state), ("student", "model", final)):
            (run / folder).mkdir(parents=True)
            save_file(content, run / folder / f"{name}.safetensors", {"written by": name})
    assert set(script.weights(one)) == {"checkpoints/step_1/ema", "student/model"}
    assert script.moved(script.weights(one), script.weights(other)) == ["student/model"]


def test_samples_have_texts_and_a_record(load, tmp_path: Path) -> None:
    script, path = load("baseline"), tmp_path / "a.fasta"
    digests = []
    for content in (">1 steps=4\nMKV\n", ">1 steps=8\nMKV\n", ">1 steps=4\nMKA\n"):
        path.write_text(content)
        digests.append(script.samples(path))
    assert script.moved(digests[0], digests[1]) == ["record"]
    assert script.moved(digests[0], digests[2]) == ["texts", "record"]


def test_the_main_job_is_the_difference_of_a_long_and_a_short_command(load, tmp_path: Path, monkeypatch) -> None:
    script, spent, seen = load("main_job"), iter([0.0, 3.0, 10.0, 22.0]), []
    sides = load("baseline_sides")

    def run(self: object, name: str, case: object, more: tuple[str, ...], fill: object) -> str:
        seen.append((name, case.words[-1], *more))
        return ""

    monkeypatch.setattr(sides.Side, "run", run)
    monkeypatch.setattr(script, "cpu", lambda: next(spent))
    side, (drawn, update) = sides.Side("before", tmp_path, tmp_path / "runs"), script.parts(tmp_path, quick=False)
    assert script.seconds(side, update, 1) == (12 - 3) / 3
    place = tmp_path / "runs" / "update_1_short" / "run"
    assert seen[0] == ("update 1 short", "training.steps=2", f"run_dir={place}") and seen[1][1] == "training.steps=5"
    assert "=" not in str(side.path("update 1 short").name), "a path in a word of the command line"
    assert drawn.words[0] == "sample" and drawn.per == 2

    monkeypatch.setattr(sides.Side, "run", lambda *given: "exit code 1: no")
    monkeypatch.setattr(script, "cpu", lambda: 0.0)
    with pytest.raises(RuntimeError, match="before, batch of samples 1 short: exit code 1: no"):
        script.seconds(side, drawn, 1)
    assert script.apart(Counter("AAB"), Counter("AAB")) == 0 and script.apart(Counter("A"), Counter("B")) == 1


TREE = """
import json, pathlib, sys
import torch
from safetensors.torch import save_file

given = dict(word.split("=", 1) for word in sys.argv[2:])
if "{refused}" in given:
    sys.exit(2)
if sys.argv[1] == "sample":
    pathlib.Path(given["out"]).write_text(json.dumps({{"text": "as ever"}}))
else:
    folder = pathlib.Path(given["run_dir"]) / "student"
    folder.mkdir(parents=True)
    save_file({{"w": torch.full((2,), {value})}}, folder / "model.safetensors")
"""


@pytest.mark.slow
def test_each_tree_runs_its_own_code_in_its_own_words(tmp_path: Path) -> None:
    """Trees that are not installed, beside a didi_core that is; the old one does not know a newer word."""
    for name, value, refused in (("old", 1, "sampler"), ("same", 1, ""), ("new", 2, ""), ("deaf", 1, "device")):
        package = tmp_path / name / "didi_core"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(TREE.format(value=float(value), refused=refused))
        (tmp_path / name / "pyproject.toml").write_text('[project]\nname = "didi-core"\nversion = "1"\n')

    def against(name: str) -> subprocess.CompletedProcess[str]:
        cases = ["--only", "distill/toy/didi/1", "--only", "sample/toy/joint draw"]
        words = ["--before", str(tmp_path / "old"), "--after", str(tmp_path / name), *cases]
        return subprocess.run([sys.executable, BENCHMARKS / "baseline.py", *words], capture_output=True, text=True)

    same, new, deaf = (against(name) for name in ("same", "new", "deaf"))
    assert same.returncode == 0, same.stdout + same.stderr
    assert "equal (1 parts)" in same.stdout and "equal (2 parts)" in same.stdout
    assert f"didi_core of {tmp_path / 'same'}" in same.stdout
    assert new.returncode == 1 and "MOVED student/model" in new.stdout, new.stdout + new.stderr
    assert deaf.returncode == 1 and "FAILED after: exit code 2: nothing was said" in deaf.stdout, deaf.stdout


@pytest.mark.parametrize(
    "name", ["card", "language", "update", "protein", "folding"] + [
        pytest.param(name, marks=pytest.mark.slow) for name in ("hosts", "graphs", "compile")
    ],
)
def test_every_cost_is_measured(name: str, load, tmp_path: Path) -> None:
    script, out = load("gpu_measure"), tmp_path / "out.json"
    assert script.main([name, "--out", str(out), "--device", "cpu", "--quick"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert rows and not [row for row in rows if "failed" in str(row["value"])]


def test_a_large_teacher_goes_through_every_stage(load, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    script, out = load("gpu_large"), tmp_path / "out.json"
    words = ["--out", str(out), "--device", "cpu", "--quick", "--folder", str(tmp_path)]
    assert script.main(words) == 0
    found = {row["what"]: row["value"] for row in json.loads(out.read_text())["rows"]}
    assert not [what for what, value in found.items() if "failed" in str(value) or "left out" in str(value)]
    stages = load("gpu_large_watch").STAGES
    assert {*stages, "step 1", "step 3", "planned: peak", "objective=dmmd: peak in use"} <= {*found}
    assert found["adapters whose B is not zero"] == "14 of 14"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_what_a_large_teacher_measures_outlives_a_failure(load, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("peft")
    script, out = load("gpu_large"), tmp_path / "out.json"

    def full(self: object, step: int) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("didi_core.training.engine.Engine.step", full)
    words = ["--out", str(out), "--device", "cpu", "--quick", "--folder", str(tmp_path), "--seconds", "0"]
    assert script.main(words) == 1
    found = {row["what"]: str(row["value"]) for row in json.loads(out.read_text())["rows"]}
    assert found["distill"].startswith("failed: out of memory") and "make_student" in found
    assert found["sample"] == "failed: the run did not reach merged"
    assert float(found["forward without head, 2 x 48"]) > 0 and found["objective=dmmd"].startswith("left out")


def test_waits_for_the_device_are_counted_by_line(load) -> None:
    script, found = load("gpu_hosts"), Counter[str]()
    for _ in range(2):
        found += script.waits_of(lambda: Layout(torch.tensor([3, 2]), 3).count, cuda=False)
    ((line, count),) = found.items()
    assert count == 2 and "didi_core/models/attention.py" in line and "self.lengths.sum()" in line
    with script.noting(found := Counter()):
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert found == {"outside of the project (a backward pass, or this script)": 1}


def test_a_look_finds_the_line_at_which_the_host_is(load) -> None:
    script = load("gpu_hosts")
    with script.Sampler() as sampler:
        while sampler.looks < 5:
            Layout.of(torch.ones(4, 4000, dtype=torch.long), VOCABULARY)
    assert sum(sampler.here.values()) == sampler.looks >= 5
    assert any("didi_core/models/attention.py Layout.of" in line for line in sampler.lines())


def test_an_outcome_is_that_of_the_first_exception_and_our_line(load) -> None:
    script = load("gpu_graphs")

    def ends_badly() -> None:
        try:
            Layout.of(torch.tensor([[1, 4]]), VOCABULARY)
        finally:
            raise RuntimeError("the end of the capture fails too")

    assert script.outcome(lambda: None) == "works"
    told = script.outcome(ends_badly)
    assert told.startswith("no: InputError: row 0") and "didi_core/models/attention.py" in told


def test_a_sampler_by_graphs_is_timed_beside_what_came_of_them(load, tmp_path: Path) -> None:
    script, measure = load("gpu_graphs"), load("gpu_table")
    table = measure.Table(tmp_path / "out.json", torch.device("cpu"), True)
    case = script.Case.of("protein", table, tmp_path / "turn")
    script._sampler(case, case.batches[-1], "sdpa", script.Compilation("eager"))
    found = {row["what"]: row["value"] for row in table.rows}
    assert len(case.mixed) == 1 and sum("mixed lengths" in what for what in found) == 5
    assert {value for what, value in found.items() if what.endswith("what failed")} == {"nothing"}
    assert all("replayed" in value for what, value in found.items() if what.endswith(": calls"))


def test_texts_of_a_table_stay_within_their_size(load, tmp_path: Path) -> None:
    script = load("gpu_table")
    table = script.Table(tmp_path / "out.json", torch.device("cpu"), True)
    for name in ("one", "two"):
        table.text(name, ["x" * 40] * 1200)
    texts = json.loads((tmp_path / "out.json").read_text())["texts"]
    assert sum(map(len, texts.values())) == script.LETTERS and texts["one"].count("\n") == 1199


@pytest.mark.parametrize(
    "name", ["attention", "draw"] + [pytest.param(n, marks=pytest.mark.slow) for n in ("sampling", "shard", "adapters")]
)
def test_checks_pass_where_they_run(name: str, load, tmp_path: Path) -> None:
    assert load("gpu_checks").main([name, "--out", str(tmp_path / "out.json"), "--device", "cpu", "--quick"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["ok"]


def test_a_part_that_hangs_or_fails_is_recorded_and_the_rest_runs(load, tmp_path: Path) -> None:
    script = load("gpu")
    session = script.Session(tmp_path, tmp_path, time.monotonic() + 60, False, "cpu")
    session.start("hangs", 0.3, "-c", "import time; print('begun', flush=True); time.sleep(60)")
    session.start("fails", 20, "-c", "raise SystemExit('why')")
    session.start("writes", 20, "-c", "import sys; open(sys.argv[2], 'w').write('{\"rows\": []}')")
    session.wait("hangs", "fails", "writes")
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "hangs": "stopped after 0 s",
        "fails": "exit code 1",
        "writes": "ok",
    }
    assert "why" in parts["fails"]["log"] and parts["writes"]["result"] == {"rows": []}


def test_a_part_that_is_started_ahead_waits_for_its_turn(load, tmp_path: Path) -> None:
    script = load("gpu")
    session = script.Session(tmp_path, tmp_path, time.monotonic() + 60, False, "cpu")
    waits = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from gpu_table import wait_for_turn; "
    waits += "wait_for_turn(); open(sys.argv[2], 'w').write('{}')"
    session.start("next", 20, "-c", waits, ahead=True)
    session.start("first", 20, "-c", "import sys; open(sys.argv[2], 'w').write('{}')")
    session.wait("first")
    assert session.parts["next"].child.poll() is None and not session.parts["next"].result.exists()
    session.parts["next"].go(20)
    session.wait("next")
    assert session.parts["next"].status == "ok" and session.parts["next"].result.exists()


def test_measurements_without_time_are_left_out(load, tmp_path: Path, monkeypatch, capsys) -> None:
    script = load("gpu")
    monkeypatch.setattr(script, "MEASURES", {"update": 60.0, "large": 60.0})
    session = script.Session(tmp_path, tmp_path, time.monotonic() + 60, True, "cpu")
    session.start("measure_update", 20, "-c", "import time; time.sleep(60)", ahead=True)
    script.measure(session, ("update", "large"), time.monotonic() + 5, 1, ())
    assert session.parts == {} and capsys.readouterr().out.count("left out, no time") == 2


def test_schedules_end_within_the_time(load, tmp_path: Path) -> None:
    script = load("gpu_train")
    session = script.Session(tmp_path, tmp_path, tmp_path, time.monotonic() + 100, False, "auto")
    model = script.MODELS[0]
    words = script.command(session, model, 4000, model.name)
    assert words[1:4] == ["-m", "didi_core", "pretrain"] and words[-1] == f"run_dir={model.name}"
    assert {"training.steps=4000", "training.warmup=100", "training.checkpoint_every=800"} <= {*words}


def test_a_teachers_curves_go_into_its_card_and_are_not_drawn_twice(load, tmp_path: Path, monkeypatch) -> None:
    script, domain = load("bundle"), registry().domain("protein", {})
    for name in ("teacher", "judge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text((asset(name) / "card.json").read_text())
    script.curves(domain, tmp_path, tmp_path, {1: 2, 2: 2}, {2: 2})
    plain, best, *others = json.loads((tmp_path / "teacher" / "card.json").read_text())["steps_matter"]
    assert (plain["law"], best["law"], best["power"]) == ("iid", "stratified", 3.0)
    assert {*plain["by_steps"]} == {*best["by_steps"]} == {"1", "2"}
    assert [[*curve["by_steps"]] for curve in others] == [["2"], ["2"]]
    assert plain["by_steps"]["1"]["samples"] == 2 and len(plain["by_steps"]["1"]["entropy"]) == 3
    monkeypatch.setattr("didi_core.evaluation.step_curve.generate", None)  # a second time, it would be called
    script.curves(domain, tmp_path, tmp_path, {1: 2, 2: 2}, {2: 2})


@pytest.mark.slow
def test_objectives_are_run_in_parts_and_gathered(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without time for a second run it stops; the same command goes on and writes the report."""
    small = ["evaluate.num=40", "evaluate.steps=[1]", "evaluate.teacher_steps=[1]", "evaluate.temperatures=[1.0]"]
    states = ["objective.states.samples=16", "objective.states.steps=2", "training.batch_size=16", "device=cpu"]
    asked = ["--objectives", "cross_entropy", "alpha", "--seeds", "0", "--seconds", "1"]
    words = ["toy", str(tmp_path), *asked, *small, *states]
    script = load("objectives")
    for limit in ("0.001", "600"):
        monkeypatch.setattr(sys, "argv", ["objectives.py", *words, "--limit", limit])
        script.main()
        assert (tmp_path / "report" / "runs.json").is_file() == (limit == "600")
    runs = json.loads((tmp_path / "report" / "runs.json").read_text())
    titles = [table["title"] for table in runs["tables"]]
    assert "Cost" in titles and any("over the control's" in title for title in titles)
    for name in ("cross_entropy_0", "alpha_0"):
        assert json.loads((tmp_path / name / "run.json").read_text())["updates"] > 0


def test_the_cards_of_the_bundled_models_are_current(load) -> None:
    script = load("cards")
    folders = script.bundled()
    assert {folder.name for folder in folders} >= {"teacher", "student", "judge"}
    assert [folder for folder in folders if script.outdated(folder)] == [], "run python benchmarks/cards.py"
    for folder in folders:
        assert "Apache-2.0" in script.readme(folder) and "Not described" not in script.readme(folder)


def test_a_card_that_was_changed_by_hand_is_outdated(load, tmp_path: Path) -> None:
    script = load("cards")
    folder = tmp_path / "didi_toy" / "assets" / "teacher"
    shutil.copytree(Path(didi_core.__file__).parent.parent / "domains" / "didi_toy" / "assets" / "teacher", folder)
    assert script.bundled(tmp_path) == [folder] and not script.outdated(folder)
    (folder / "README.md").write_text("by hand")
    assert script.outdated(folder)


def test_a_lab_runs_what_its_plan_has_and_packs_it(load, tmp_path: Path, monkeypatch) -> None:
    """Entries wait for those they name; what failed leaves the end of its log."""
    script = load("gpu_lab")
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'run.json').write_text(sys.argv[2])"

    def start(self, name: str, command: str, words) -> subprocess.Popen:
        ends = "; sys.exit('no luck')" if command == "evaluate" else ""
        with (self.work / f"{name}.log").open("wb") as log:
            full = [sys.executable, "-c", code + ends, str(self.work / name), " ".join(words)]
            return subprocess.Popen(full, stderr=log)

    monkeypatch.setattr(script.Lab, "start", start)
    plan = {
        "common": ["common"],
        "stages": [
            [
                {"name": "second", "command": "evaluate", "words": ["run=first"], "after": ["first"]},
                {"name": "first", "words": ["own"]},
            ]
        ],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    words = [str(tmp_path / "plan.json"), "--out", str(tmp_path / "out"), "--seconds", "60"]
    assert script.main(words) == 1
    with tarfile.open(tmp_path / "out" / "runs.tar.gz") as tar:
        found = {name: tar.extractfile(name).read().decode() for name in tar.getnames()}
    assert found["first/run.json"] == "common own" and found["second/run.json"] == "run=first"
    assert "no luck" in found["second/log.txt"] and "first/log.txt" not in found
    told = json.loads((tmp_path / "out" / "lab.json").read_text())
    assert told["codes"] == {"first": 0, "second": 1} and list(told["codes"]) == ["first", "second"]


def test_the_lab_of_the_repository_names_runs_that_are_in_it() -> None:
    """Every command of the plan composes, and waits for runs of the plan."""
    plan = json.loads((BENCHMARKS / "gpu_lab.json").read_text())
    entries = [entry for stage in plan["stages"] for entry in stage]
    names = {entry["name"] for entry in entries}
    assert len(names) == len(entries) and all(set(entry.get("after", ())) <= names for entry in entries)
    for entry in entries:
        command = entry.get("command", "distill")
        if command in ("distill", "evaluate"):
            common = plan["common"] if command == "distill" else []
            assert compose_jobs(command, [*common, *entry["words"]])
        else:
            assert (BENCHMARKS / command).is_file()


def test_families_of_one_length_are_counted_and_kept(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out, data = load("families"), tmp_path / "families.json", tmp_path / "data.fasta"
    assert script.effective_number([1, 1, 2, 2]) == 2 and script.effective_number([1, 1, 1, 1]) == 1
    data.write_text(f">a\n{'MKV' * 12}\n>b\n{'ACDW' * 9}\n>c\n{'MKV' * 13}\n")
    words = [f"teacher={asset('teacher')}", "--calls", "1", "--lengths", "36", "--num", "2"]
    monkeypatch.setattr("sys.argv", ["families", *words, "--data", str(data), "--out", str(out)])
    script.main()
    made = json.loads(out.read_text())
    assert list(made) == ["36|data|", "36|teacher|1"]
    assert made["36|data|"]["samples"] == 2 and made["36|data|"]["effective"] == 2
    monkeypatch.setattr(script, "sample", None)  # what is there is not drawn again
    script.main()
    assert json.loads(out.read_text()) == made
