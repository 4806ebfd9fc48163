"""The command line: exit codes, messages, run directories, and small runs of every command."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from didi_core import cli
from didi_core.checkpoints.card import write_card
from didi_core.cli import INTERRUPTED, WRONG, disk_trouble, guarded, main
from didi_core.commands import COMMANDS
from didi_core.commands.completion import candidates
from didi_core.commands.compose import compose_jobs
from didi_core.commands.explain import explained
from didi_core.commands.groups import OF_PRETRAIN, groups_of
from didi_core.errors import DidiError, InputError
from didi_core.objectives.registry import BUILT_IN
from didi_core.storage.run_dir import RunDirectory, differing_keys

TINY = ["domain=toy", "model=micro", "training.batch_size=8", "validation_batches=1"]
PRETRAIN = ["pretrain", *TINY, "training.steps=4", "training.checkpoint_every=2"]
DISTILL = [
    "distill",
    "domain=toy",
    "objective=didi",
    "training.steps=3",
    "training.batch_size=8",
    "objective.reward.warmup=1",
    "objective.reference_samples=8",
    "objective.reference_steps=2",
    "evaluate.num=8",
    "evaluate.steps=2",
    "evaluate.teacher_steps=2",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    assert main([*PRETRAIN, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "run"
    assert main([*DISTILL, f"teacher={teacher}", f"run_dir={folder}"]) == 0
    return folder


def test_help_of_a_command_explains_its_keys_and_those_of_domains() -> None:
    told = explained("score")
    assert re.search("  input=null +# FASTA file of designs", told) and "defaults" not in told
    assert "settings of domain protein" in told and re.search(r"  fold=auto +# auto \| esmfold", told)
    assert "  seed=0" in told


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.configured])
def test_help_has_one_value_of_every_key(command: str) -> None:
    keys = re.findall(r"^  ([\w.]+)=", explained(command).partition("groups, key=choice")[0], re.MULTILINE)
    assert keys and len(keys) == len(set(keys))


def test_help_shows_the_values_that_the_words_make() -> None:
    assert "  training.steps=100" in explained("distill", ["domain=toy"])
    assert "  training.steps=7" in explained("distill", ["domain=toy", "training.steps=7"])


def test_help_explains_a_key_as_the_chosen_objective_does() -> None:
    """Two objectives may have keys of one name that mean different things."""
    for objective, comment in (("few_calls", "largest weight of a time"), ("cross_entropy", "small times have large")):
        words = ["domain=protein", f"objective={objective}"]
        (line,) = [line for line in explained("distill", words).splitlines() if "objective.weight_clip=" in line]
        assert comment in line


def test_help_version_and_completion_do_not_wait_for_torch() -> None:
    program = "import sys; from didi_core.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    asked = ["distill --help", "--version", "--complete distill training.s", "--completion zsh"]
    for words in map(str.split, asked):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False", words
        assert done.stdout.count("\n") > 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["dist"], ["distill"]),
        (["distill", "training.st"], ["training.steps="]),
        (["distill", "objective=didi_"], ["objective=didi_paper"]),
        (["plugins", ""], []),
    ],
)
def test_completion(words: list[str], found: list[str]) -> None:
    assert candidates(words) == found


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    for command in COMMANDS.values():
        assert command.name in out and command.about in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pretrian"], "unknown command 'pretrian'. Did you mean 'pretrain'?"),
        (["domian=toy", "distill"], "stands where the command goes: didi <command> domian=toy"),
        (["distill", "domain=protien"], "unknown domain 'protien'. Did you mean 'protein'?"),
        (["distill", "--fast"], "unknown flag --fast"),
        (["plugins", "all"], "plugins takes no argument but --json"),
        (["sample", "run=nowhere"], "nowhere does not exist"),
        (["evaluate", "run=nowhere"], "nowhere does not exist"),
        (["evaluate", "samples=nowhere.jsonl", "domain=toy"], "nowhere.jsonl"),
        (["distill", "domain=toy", "teacher=nowhere"], "unknown teacher 'nowhere'"),
        (["distill", "domain=toy", "data.symbols=1"], "data.symbols=1"),
        (["distill", "domain=toy", "training.lr=-1"], "training.lr=-1.0 is out of range"),
        (["distill", "domain=toy", "training.lr=nan"], "training.lr=nan does not fit: training.lr is a finite"),
        (["distill", "domain=toy", "training.ema=1.5"], "training.ema=1.5 is out of range"),
        (
            ["distill", "domain=toy", "objective=didi", "objective.reward.lr=-1"],
            "objective.critic.lr=-1.0 is out of range",
        ),
        (
            ["distill", "domain=toy", "objective=didi", "objective.anchor.kl=nan"],
            "objective.anchor.kl=nan does not fit",
        ),
        (["pretrain", "domain=protein"], "set data.path"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == WRONG
    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err


def test_cfg_shows_the_configuration_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "domain=toy", "--cfg", "job"]) == 0
    assert "domain: toy" in capsys.readouterr().out
    assert not list(Path().iterdir())


def test_doctor_and_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "sdpa" in out and "torch" in out and "protein" in out
    assert main(["plugins"]) == 0
    assert "didi-core" in capsys.readouterr().out


def test_pretrain_writes_the_run_directory(teacher: Path) -> None:
    record = json.loads((teacher / "run.json").read_text())
    assert record["config"]["training"]["steps"] == 4
    assert record["stages"]["training"]["done"] and record["finished"]
    assert {"versions", "device", "attention", "hashes", "command_line"} <= record.keys()
    assert (teacher / "metrics.jsonl").read_text().count("\n") >= 2
    card = json.loads((teacher / "model/card.json").read_text())
    assert card["domain"] == "toy" and card["validation"] and "path" not in card["data"]
    assert "Validation loss" in (teacher / "report.html").read_text() and (teacher / "plots/training.png").is_file()


def test_default_run_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PRETRAIN, "training.steps=1"]) == 0
    assert [p.parts[:3] for p in Path().glob("*/*/*")] == [("outputs", "pretrain", "toy")]


def test_other_configuration_is_refused_with_the_keys(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (teacher / "run.json").read_bytes()
    assert main([*PRETRAIN, "training.lr=0.5", f"run_dir={teacher}"]) == WRONG
    err = capsys.readouterr().err
    assert "belongs to another configuration" in err and "training.lr: 0.002 -> 0.5" in err
    assert (teacher / "run.json").read_bytes() == before


def test_harmless_keys_do_not_differ() -> None:
    before, after = {"run_dir": "a", "resume": "latest", "x": 1}, {"run_dir": "b", "resume": "previous", "x": 1}
    assert differing_keys(before, after) == []
    assert differing_keys({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}) == ["a.b: 1 -> 2", "c: absent -> 3"]


def test_groups_in_a_list_differ_key_by_key() -> None:
    before = {"reward": [{"kind": "scorer", "clip": 8.0}, {"kind": "log_ratio"}], "steps": [1, 2]}
    after = {"reward": [{"kind": "scorer", "clip": 4.0}], "steps": [1, 4]}
    assert differing_keys(before, after) == [
        "reward.0.clip: 8.0 -> 4.0", "reward.1.kind: log_ratio -> absent", "steps: [1, 2] -> [1, 4]"
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["pretrain", "distill"])
def test_help_offers_the_choices_that_are_for_the_command(command: str) -> None:
    """It imports no objective, so it knows by name which ones are for pretrain."""
    offered = groups_of(command)
    assert {*OF_PRETRAIN} == {kind for kind, known in BUILT_IN.items() if "pretrain" in known.commands}
    for name in offered["objective"]:
        (job,) = compose_jobs(command, [f"objective={name}"])
        assert command in BUILT_IN[job.config["objective"]["kind"]].commands
    assert {name.partition("_")[0] for name in offered["sizes"]} == {command}
    assert {"pretrain" in name for name in offered["experiment"]} == {command == "pretrain"}


def test_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    assert main([*PRETRAIN, f"run_dir={tmp_path / 'mine'}"]) == WRONG
    assert "thesis.tex" in capsys.readouterr().err
    assert main([*PRETRAIN, f"run_dir={tmp_path / 'mine/thesis.tex'}"]) == WRONG


def test_two_processes_do_not_share_a_run_directory(tmp_path: Path) -> None:
    with (
        RunDirectory.open(tmp_path / "run", {"a": 1}),
        pytest.raises(InputError, match="another process works in"),
        RunDirectory.open(tmp_path / "run", {"a": 1}),
    ):
        pass
    with RunDirectory.open(tmp_path / "run", {"a": 1}):
        pass  # the lock is gone with its holder


def test_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text('{"config": ')
    with pytest.raises(InputError, match="run.json is damaged"), RunDirectory.open(tmp_path / "run", {}):
        pass


def test_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(teacher: Path, tmp_path: Path) -> None:
    """After kill -9 and the loss of everything after the first checkpoint, the run continues from that checkpoint."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(teacher, folder)
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints/step_0000004")
    assert main([*PRETRAIN, f"run_dir={folder}"]) == 0
    for name in ("model/model.safetensors", "model/card.json"):
        assert (folder / name).read_bytes() == (teacher / name).read_bytes()
    assert len(json.loads((folder / "run.json").read_text())["continued"]) == 1


def test_damaged_checkpoint_is_named_and_stepped_over_only_if_asked(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(teacher, folder)
    shutil.rmtree(folder / "model")
    (folder / "checkpoints/step_0000004/model.safetensors").write_bytes(b"torn")
    assert main([*PRETRAIN, f"run_dir={folder}"]) == WRONG
    err = capsys.readouterr().err
    assert "step_0000004 is damaged" in err and "resume=previous" in err
    assert main([*PRETRAIN, "resume=previous", f"run_dir={folder}"]) == 0
    assert (folder / "model/model.safetensors").read_bytes() == (teacher / "model/model.safetensors").read_bytes()


def test_distill_writes_student_and_report(student: Path) -> None:
    weights = ("student/model.safetensors", "student/scorer.safetensors")
    for name in (*weights, "report.json", "report.html", "samples.jsonl"):
        assert (student / name).is_file(), name
    assert list((student / "plots").glob("*.png"))
    stages = json.loads((student / "run.json").read_text())["stages"]
    assert all(stages[name]["done"] for name in ("reference", "training", "evaluation"))


def test_distilled_student_differs_from_its_teacher(student: Path, teacher: Path) -> None:
    from didi_core.checkpoints.card import load_denoiser

    a, b = load_denoiser(student).state_dict(), load_denoiser(teacher).state_dict()
    assert a.keys() == b.keys() and any(not torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "how",
    [
        [],
        ["sampler=rgas"],
        ["sampler=first_hitting"],
        ["grid=optimised", "law=dilated"],
        ["sampler=joint_fp32"],
        ["law={kind: threshold, probability: 0.5}"],
        ["sampler={kind: p2, eta: 0.5}", "grid={kind: power, power: 2}"],
    ],
)
def test_sample_twice_writes_identical_bytes(student: Path, tmp_path: Path, how: list[str]) -> None:
    outs = [tmp_path / f"{name}.jsonl" for name in "ab"]
    for out in outs:
        assert main(["sample", f"run={student}", "num=3", "steps=2", "batch_size=2", f"out={out}", *how]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    first = json.loads(outs[0].read_text().splitlines()[0])
    assert {"sampler", "nfe", "seed", "model"} <= {*first, *first.get("info", {})}
    assert not list(Path().iterdir())


def test_a_bare_sample_and_evaluate_go_by_what_the_model_was_trained_with(
    student: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, law in ((student, "stratified"), (teacher, "iid")):
        outs = [tmp_path / f"{law}_{name}.jsonl" for name in ("bare", "said")]
        assert main(["sample", f"run={run}", "num=3", "steps=2", f"out={outs[0]}"]) == 0
        assert ("law=stratified grid=uniform: as the model was trained" in capsys.readouterr().out) == (run == student)
        assert main(["sample", f"run={run}", "num=3", "steps=2", f"law={law}", "grid=uniform", f"out={outs[1]}"]) == 0
        assert "as the model was trained" not in capsys.readouterr().out
        assert outs[0].read_bytes() == outs[1].read_bytes()
    plan = ["num=4", "steps=[2]", "teacher_steps=[2]", f"out={tmp_path / 'e'}"]
    assert main(["evaluate", f"run={student}", *plan]) == 0
    assert "laws=[stratified] grids=[uniform]: as the student was trained" in capsys.readouterr().out


def test_a_bare_evaluate_gives_the_numbers_of_the_runs_own_report(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "e"
    plan = ["evaluate.enabled=true", "evaluate.num=6", "evaluate.steps=[2]", "evaluate.teacher_steps=[2,4]"]
    assert main([*DISTILL, f"teacher={teacher}", f"run_dir={run}", *plan, "evaluate.temperatures=[0.5,1]"]) == 0
    card = json.loads((run / "student/card.json").read_text())
    assert card["compared"]["num"] == 6 and card["compared"]["teacher_steps"] == [2, 4]
    capsys.readouterr()
    assert main(["evaluate", f"run={run}", f"out={out}"]) == 0
    told = capsys.readouterr().out
    assert "num=6 " in told and "temperatures=[0.5,1.0]" in told and "as in the run's own comparison" in told
    keys = ("sentence", "rows", "matched", "comparisons", "frontiers")
    texts = [(folder / "report.json").read_text() for folder in (run, out)]
    own, bare = (json.loads(text, parse_float=lambda word: round(float(word), 9)) for text in texts)  # sums may round
    assert [own[key] for key in keys] == [bare[key] for key in keys]
    del card["compared"]  # as in the cards of older runs, beside which run.json has it
    write_card(run / "student", card)
    assert main(["evaluate", f"run={run}", "steps=[1]", f"out={out}2"]) == 0
    rows = json.loads(Path(f"{out}2/report.json").read_text())["rows"]
    assert {r["method"]["steps"] for r in rows if r["model"] == "student"} == {1}
    assert {r["method"]["steps"] for r in rows if r["model"] == "teacher"} == {2, 4} and rows[-1]["n"] == 6


def test_a_model_without_a_teacher_is_not_called_a_student(teacher: Path, tmp_path: Path) -> None:
    assert main(["evaluate", f"run={teacher}", "num=4", "steps=[1]", f"out={tmp_path / 'e'}"]) == 0
    report = json.loads((tmp_path / "e/report.json").read_text())
    assert {row["model"] for row in report["rows"] if row["kind"] == "model"} == {"model"}
    assert re.match(r"model: NLL / symbol [\d.]+ at 1 step; nothing to compare with\.", report["sentence"])


def test_sample_fills_a_template_and_keeps_the_rest(student: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    assert main(["sample", f"run={student}", "num=4", "steps=2", "template=ab__c_", f"out={out}"]) == 0
    for line in out.read_text().splitlines():
        text = json.loads(line)["text"]
        assert len(text) == 6 and text[:2] == "ab" and text[4] == "c" and "_" not in text


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("template=abc", "has no position to fill"),
        ("template=a1_", "letter '1'"),
        ("length=0", "length='0' is out of range"),
        ("length=long", "neither a number nor a range"),
        ("length=99999", "length=99999 is out of range: the model was trained on sequences of at most"),
        ("num=0", "num=0 is out of range"),
    ],
)
def test_sample_refuses(student: Path, setting: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", f"run={student}", setting, "out=x.jsonl"]) == WRONG
    assert told in capsys.readouterr().err
    assert not Path("x.jsonl").exists()


def test_sample_from_a_teacher_has_no_scorer(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", f"run={teacher}", "sampler=rgas", "out=x.jsonl"]) == WRONG
    assert "needs the scorer" in capsys.readouterr().err


def test_evaluate_run_and_files(student: Path, tmp_path: Path) -> None:
    plan = ["num=8", "steps=2", "teacher_steps=2", "laws=[iid,dilated]"]
    assert main(["evaluate", f"run={student}", *plan, f"out={tmp_path / 'e'}"]) == 0
    report = json.loads((tmp_path / "e/report.json").read_text())
    assert report
    assert main(["sample", f"run={student}", "num=8", "steps=2", f"out={tmp_path / 's.jsonl'}"]) == 0
    files = ["evaluate", f"samples={tmp_path / 's.jsonl'}", "domain=toy", "num=8", f"out={tmp_path / 'f'}"]
    assert main(files) == 0
    assert (tmp_path / "f/report.json").is_file()


def test_multirun_gives_each_job_a_directory_and_keeps_the_worst_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "many"
    assert main([*PRETRAIN, "training.steps=1", "seed=1,2", f"run_dir={root}", "--multirun"]) == 0
    assert [json.loads((root / n / "run.json").read_text())["config"]["seed"] for n in "01"] == [1, 2]
    capsys.readouterr()
    words = [*PRETRAIN, "training.steps=1", "data.length=4,wrong", f"run_dir={tmp_path / 'half'}", "--multirun"]
    assert main(words) == WRONG
    assert "1 of 2 jobs failed" in capsys.readouterr().err
    assert (tmp_path / "half/0/model/card.json").is_file()


def test_runs_of_a_multirun_share_what_was_drawn(tmp_path: Path) -> None:
    root, words = tmp_path / "many", [*DISTILL, "evaluate.temperatures=[1.0]", "seed=1,2"]
    assert main([*words, f"run_dir={root}", "--multirun"]) == 0
    assert not (root / "0/evaluation").exists() and not (root / "0/reference").exists()
    kept = sorted((root / "evaluation").glob("*.jsonl"))
    made = Counter(json.loads(path.read_text().splitlines()[0])["making"]["model"] for path in kept)
    assert sorted(made.values()) == [1, 1, 2]  # two students; the teacher's reference and its row
    own = ["num=8", "steps=[2]", "teacher_steps=[2]", "laws=[stratified]", "batch_size=300", f"out={tmp_path / 'e'}"]
    assert main(["evaluate", f"run={root / '1'}", *own]) == 0
    assert sorted((root / "evaluation").glob("*.jsonl")) == kept and not (root / "1/evaluation").exists()
    assert main([*words, f"run_dir={tmp_path / 'b'}", f"cache={tmp_path / 'own'}", "--multirun"]) == 0
    assert len(list((tmp_path / "own").glob("*.jsonl"))) == 4 and not (tmp_path / "b/evaluation").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        with RunDirectory.open(tmp_path / "my run", {}):
            raise KeyboardInterrupt

    assert guarded(stop, ["distill", "domain=toy"]) == INTERRUPTED
    assert f"To go on: {cli.PROGRAM} distill domain=toy 'run_dir={tmp_path / 'my run'}'" in capsys.readouterr().err


def test_unexpected_failure_keeps_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with RunDirectory.open(tmp_path / "run", {}):
            raise ZeroDivisionError("by zero")

    assert guarded(fail, ["distill"]) == 1
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in (tmp_path / "run/error.log").read_text()


def test_run_that_failed_for_a_reason_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DidiError("step 3: loss is nan.")

    assert guarded(fail, ["distill"]) == 1
    assert capsys.readouterr().err == "didi_core: step 3: loss is nan.\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_unwritable_place_is_one_message_and_exit_code_2(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        try:
            raise OSError(number, os.strerror(number), "/data/run/x")
        except OSError as error:
            raise RuntimeError("while saving") from error

    assert guarded(fail, ["distill"]) == WRONG
    err = capsys.readouterr().err
    assert "/data/run/x" in err and cli.UNUSABLE[number] in err and "Traceback" not in err


def test_disk_trouble_told_in_words() -> None:
    assert "full" in (disk_trouble(RuntimeError("I/O error: No space left on device (os error 28)")) or "")
    assert disk_trouble(ValueError("other")) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_locked_folder(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["sample", f"run={student}", "num=1", f"out={tmp_path / 'locked/x.jsonl'}"]) == WRONG
    assert "permission is denied" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_9_and_the_same_command_end_with_the_same_weights(tmp_path: Path) -> None:
    words = [*PRETRAIN, "training.steps=60", "training.checkpoint_every=5"]
    program = [sys.executable, "-m", "didi_core", *words]
    whole, command = ([*program, f"run_dir={tmp_path / name}"] for name in ("whole", "killed"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # of both: only then are sums added in one order
    assert subprocess.run(whole, env=environment).returncode == 0
    for wanted in (1, 2):
        with subprocess.Popen(command, env=environment) as process:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if len(list((tmp_path / "killed/checkpoints").glob("step_*"))) >= wanted:
                    process.send_signal(signal.SIGKILL)
                time.sleep(0.002)
    assert subprocess.run(command, env=environment).returncode == 0
    for name in ("whole", "killed"):
        assert (tmp_path / name / "model/model.safetensors").exists()
    first, second = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert first == second


@pytest.mark.slow
def test_module_runs_from_any_folder() -> None:
    done = subprocess.run([sys.executable, "-m", "didi_core", "pretrian"], capture_output=True, text=True)
    assert done.returncode == 2 and "Did you mean 'pretrain'" in done.stderr and "Traceback" not in done.stderr
