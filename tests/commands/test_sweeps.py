"""Sweeps: where each job writes, Hydra's launchers and sweepers, a user's own folder of configurations."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from didi_core.cli import INTERRUPTED, main
from didi_core.commands import find, sweeping
from didi_core.commands.compose import compose_jobs
from didi_core.commands.sweeping import Engines, _packed, _unpacked, check_places, engines, number_of, place_of
from didi_core.errors import DidiError, InputError
from didi_core.training import stopping as stops
from didi_core.training.stopping import stopping

TOY = [
    "pretrain", "domain=toy", "model.hidden=16", "model.layers=1", "model.heads=2", "model.conditioning=8",
    "training.batch_size=4", "validation_batches=1", "device=cpu",
]  # fmt: skip
SHORT = ["training.steps=2", "validate_every=2"]


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command line that is refused."""
    assert main(words) == 2
    return capsys.readouterr().err


# --- what is refused


@pytest.mark.parametrize("word", ["hydra/launcher=joblib", "hydra/sweeper=optuna", "hydra.launcher.n_jobs=2"])
def test_an_engine_is_for_a_sweep(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{word} is for a sweep: add --multirun" in told([*TOY, word], capsys)


@pytest.mark.parametrize("word", ["hydra/launcher=joblib", "hydra/launcher=submitit_slurm", "hydra/sweeper=optuna"])
def test_an_engine_that_is_not_installed_names_the_extra(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeping, "_installed", lambda kind: ["basic"])
    message = told([*TOY, "seed=1,2", "--multirun", word], capsys)
    assert f"{word} is not installed here: pip install 'didi-core[sweep]'" in message


def test_an_unknown_engine_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    message = told([*TOY, "seed=1,2", "--multirun", "hydra/launcher=jobli"], capsys)
    assert "unknown launcher 'jobli' (hydra/launcher). Did you mean 'joblib'?" in message
    assert "submitit_slurm" in message


@pytest.mark.parametrize("word", ["hydra.run.dir=x", "hydra.job.chdir=true", "hydra/output=x"])
def test_other_settings_of_hydra_have_no_effect_and_say_so(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no effect here" in told([*TOY, "seed=1,2", "--multirun", word], capsys)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra.launcher.n_jobs=2", r"has no effect here: add hydra/launcher=joblib\|submitit_local"),
        ("hydra.sweeper.n_trials=2", "has no effect here: add hydra/sweeper=optuna"),
        ("hydra/sweeper/sampler=random", "has no effect here: add hydra/sweeper=optuna"),
    ],
)
def test_a_key_of_an_engine_that_is_not_chosen_is_refused(
    word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, told([*TOY, "seed=1,2", "--multirun", word], capsys))


@pytest.mark.parametrize(
    ("engine", "word", "message"),
    [
        ("joblib", "hydra.launcher.n_job=2", r"unknown key 'n_job' \(hydra.launcher.n_job\). Did you mean 'n_jobs'"),
        ("joblib", "+hydra.launcher.other=2", r"unknown key 'other'"),
        ("joblib", "hydra.launcher.n_jobs=many", "'many' of type 'str' could not be converted to Integer"),
        ("submitit_local", "hydra.launcher.hours=2", r"unknown key 'hours' .* Known: .*timeout_min"),
        ("optuna", "hydra.sweeper.n_trial=2", "unknown key 'n_trial'"),
        ("optuna", "hydra.sweeper.direction=up", "direction. .*No job was started"),
    ],
)
def test_a_wrong_key_or_value_of_an_engine_is_refused(
    engine: str, word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "sweeper" if engine == "optuna" else "launcher"
    pytest.importorskip(f"hydra_plugins.hydra_{engine.partition('_')[0]}_{kind}")
    words = [*TOY, "seed=1,2", "--multirun", f"run_dir={tmp_path / 'sweep'}", f"hydra/{kind}={engine}", word]
    said = told(words, capsys)
    assert re.search(message, said) and "To append to your config" not in said and "Traceback" not in said


def test_without_slurm_its_launcher_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    words = [*TOY, "seed=1,2", "--multirun", f"run_dir={tmp_path / 'sweep'}", "hydra/launcher=submitit_slurm"]
    assert re.search('Could not detect "srun".* No job was started', told(words, capsys))


@pytest.mark.parametrize("name", ["plain", "o'brien", "a=b,c", "[x]", "${HOME} \\"])
def test_a_sweep_may_lie_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    found = sweeping._with_hydra(Engines(), tmp_path / name, lambda _: 0, lambda launcher: launcher.config.hydra)
    assert found.sweep.dir == str(tmp_path / name) and (tmp_path / name).is_dir()


def test_a_search_needs_a_number_and_something_to_vary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeping, "_installed", lambda kind: ["basic", "optuna"])
    search = ["--multirun", "hydra/sweeper=optuna"]
    message = told(["sample", "run=x", "seed=1,2", *search], capsys)
    assert "needs a number to optimise, and sample reports none. It works with distill, evaluate, pretrain" in message
    assert "has nothing to vary: write key=a,b or key='interval(low,high)'" in told([*TOY, *search], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain", "domain=toy", "run_dir=a,b"], "run_dir=a,b says where results go"),
        (["distill", "domain=toy", "cache=a,b"], "cache=a,b says where results go"),
        (["evaluate", "run=x", "num=1,2", "out=a"], "out=a is one folder for all jobs of a search"),
    ],
)
def test_a_search_has_one_folder_and_a_place_in_it_for_each_job(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeping, "_installed", lambda kind: ["basic", "optuna"])
    assert message in told([*words, "--multirun", "hydra/sweeper=optuna"], capsys)


def test_a_sweep_in_several_processes_is_refused() -> None:
    from didi_core.cli import check_parallel

    with pytest.raises(InputError, match="pretrain --multirun runs in one process"):
        check_parallel(["pretrain", "seed=1,2", "--multirun"])


# --- which job writes where


def test_every_job_has_a_place_of_its_own() -> None:
    places = {
        name: place_of(find(name), Path("root"), 3, {}) for name in ("distill", "sample", "evaluate", "score", "report")
    }
    assert places["distill"] == {"run_dir": "root/3", "cache": "root/evaluation"}
    assert places["sample"] == {"run_dir": "root/3"}
    assert places["evaluate"] == places["score"] == {"out": "root/3"} and places["report"] == {}
    assert place_of(find("evaluate"), Path("root"), 3, {"out": "mine"}) == {}


@pytest.mark.parametrize("outs", [["a", "a"], ["a", "./a"], ["a", "b", "c/../a"]])
def test_two_jobs_in_one_place_are_refused(outs: list[str]) -> None:
    jobs = [compose_jobs("sample", ["run=x", f"out={out}"])[0] for out in outs]
    with pytest.raises(InputError, match="several jobs would write out=.*/a: leave it out, or give one for each"):
        check_places(jobs)
    check_places(compose_jobs("sample", ["run=x", "out=a,b"], sweep=True))


def test_a_sweep_has_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run_dir names the folder of the whole sweep" in told([*TOY, "run_dir=a,b", "--multirun"], capsys)


# --- the way of words through a launcher


@pytest.mark.parametrize("words", [[], ["a=b"], ["prompt=Ein \"Wort\", {und} [noch] eins = π\n", "x=$(y) '${z}'"]])
def test_any_text_passes_through_hydra_unread(words: list[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(_packed(words))
    assert isinstance(override.value(), str) and _unpacked(f"+didi_words={override.value()}") == words


def test_words_for_engines_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_installed", lambda kind: ["basic", "joblib", "optuna"])
    own = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random"]
    found, rest = engines(["seed=1,2", *own, "steps=3"], sweep=True)
    assert rest == ["seed=1,2", "steps=3"] and found == Engines("joblib", "optuna", tuple(own)) and not found.ours
    assert engines(["seed=1"], sweep=False) == (Engines(), ["seed=1"])


def test_the_number_of_a_job(tmp_path: Path) -> None:
    with pytest.raises(DidiError, match="neither a validation loss nor a student's quality"):
        number_of(tmp_path)
    rows = [{"model": "teacher", "values": {"nll": {"value": 1.0}}}, {"model": "student", "values": {}}]
    rows += [{"model": "student", "values": {"other": {"value": 2.0}, "nll": {"value": 3.0}}}]
    (tmp_path / "report.json").write_text(json.dumps({"quality": "nll", "rows": rows}))
    assert number_of(tmp_path) == 3.0
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "card.json").write_text(json.dumps({"validation": {"1": 5.0, "2": 4.0}}))
    assert number_of(tmp_path) == 4.0


# --- a user's own configurations


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\ntraining:\n  steps: 77\n")
    (folder / "start.yaml").write_text("defaults:\n  - pretrain\n  - _self_\nseed: 9\n")
    return folder


@pytest.mark.parametrize("spelled", ["{0}={1}", "{0} {1}"])
def test_own_choices_and_an_own_beginning(
    spelled: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = spelled.format("--config-dir", own_folder).split(" ")
    assert main([*TOY, "experiment=mine", *flags, "--cfg", "job"]) == 0
    assert "steps: 77" in capsys.readouterr().out
    assert main([*TOY, *flags, *spelled.format("--config-name", "start").split(" "), "--cfg", "job"]) == 0
    assert "seed: 9" in capsys.readouterr().out
    assert "experiment" in told([*TOY, "experiment=mine"], capsys), "it does not stay for the next command"


def test_a_run_remembers_them(own_folder: Path, tmp_path: Path) -> None:
    words = [*TOY, "validate_every=77", f"run_dir={tmp_path / 'run'}", f"--config-dir={own_folder}"]
    assert main([*words, *SHORT, "--config-name", "start.yaml"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["seed"] == 9
    assert record["command_line"][-2:] == [f"--config-dir={own_folder}", "--config-name=start"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["--config-dir={}", "--config-name=other"], "there is no other.yaml in .*own. There: start"),
        (["--config-name", "other"], "there is no other.yaml without --config-dir. There: .*distill"),
        (["--config-dir"], "--config-dir is given nothing"),
        (["--config-file=x"], "unknown flag --config-file=x.*--config-dir FOLDER"),
    ],
)
def test_a_wrong_place_of_configurations_is_refused(
    flags: list[str], message: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, told([*TOY, *(flag.format(own_folder) for flag in flags)], capsys))


def test_a_job_of_a_search_is_placed_before_its_own_folder_is_known(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher starts it in a new process, which learns of ``--config-dir`` only from the words that it runs."""
    from hydra.core.hydra_config import HydraConfig

    ran: list[list[str]] = []
    about = SimpleNamespace(overrides=SimpleNamespace(task=["+training.lr=0.1"]), job=SimpleNamespace(num=3))
    monkeypatch.setattr(HydraConfig, "get", lambda: about)
    monkeypatch.setattr(sweeping, "number_of", lambda folder: float(folder.name))
    fixed = ("domain=toy", "experiment=mine", f"--config-dir={own_folder}")
    task = sweeping.Task(lambda words: bool(ran.append([*words])), "pretrain", str(tmp_path), fixed, measured=True)
    assert task(None) == 3.0
    assert ran == [["pretrain", *fixed, "training.lr=0.1", f"run_dir={tmp_path / '3'}"]]


# --- a job that is put back into the queue


def test_a_signal_of_the_scheduler_is_handed_on_after_the_checkpoint() -> None:
    seen: list[str] = []
    before = signal.signal(stops.HANDED_ON, lambda number, frame: seen.append("scheduler"))
    try:
        with stopping() as asked:
            os.kill(os.getpid(), stops.HANDED_ON)
            assert asked() and not seen
            seen.append("saved")
        assert seen == ["saved", "scheduler"]
    finally:
        signal.signal(stops.HANDED_ON, before)


def test_without_a_scheduler_the_signal_is_left_alone() -> None:
    before = signal.signal(stops.HANDED_ON, signal.SIG_IGN)
    try:
        with stopping() as asked:
            os.kill(os.getpid(), stops.HANDED_ON)
            assert not asked()
        assert signal.getsignal(stops.HANDED_ON) == signal.SIG_IGN
    finally:
        signal.signal(stops.HANDED_ON, before)


# --- whole sweeps


def weights(root: Path) -> list[bytes]:
    return [(root / str(n) / "model" / "model.safetensors").read_bytes() for n in range(6)]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "didi_core", *words], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.slow
def test_six_runs_by_launchers_are_those_of_a_plain_sweep(tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = [*TOY, *SHORT, "seed=0,1,2", "training.lr=1e-3,1e-4", "--multirun"]
    run(*sweep, f"run_dir={tmp_path / 'plain'}")
    run(*sweep, f"run_dir={tmp_path / 'joblib'}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    run(*sweep, f"run_dir={tmp_path / 'submitit'}", "hydra/launcher=submitit_local")
    assert len(set(weights(tmp_path / "plain"))) == 6
    assert weights(tmp_path / "joblib") == weights(tmp_path / "plain") == weights(tmp_path / "submitit")


@pytest.mark.slow
def test_a_search_finds_the_best_of_its_runs(tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    root = tmp_path / "search"
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    run(*TOY, *SHORT, "training.lr=interval(1e-4,1e-2)", "--multirun", f"run_dir={root}", *search)
    found = [number_of(root / str(n)) for n in range(3)]
    assert f"best_value: {min(found)}" in (root / "optimization_results.yaml").read_text()


@pytest.mark.slow
def test_a_job_that_is_stopped_and_queued_again_ends_with_the_same_weights(tmp_path: Path, one_thread: None) -> None:
    """The example of docs/scale.md, with submitit's local executor in the place of Slurm: SIGTERM stops the job, and
    the same command is submitted again; submitit's own signal makes it put the job back by itself."""
    submitit: Any = pytest.importorskip("submitit")
    words = [*TOY, "training.steps=1500", "validate_every=1500", "training.checkpoint_every=1500"]
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=60)  # a job that outlasts it gets the signal too

    class Again:
        """As a launcher's jobs: the same words after a stop. Here, in the test, so that it is pickled whole."""

        def __call__(self, words: list[str]) -> int:
            from didi_core.cli import main

            return main(words)

        def checkpoint(self, words: list[str]) -> Any:
            return submitit.helpers.DelayedSubmission(self, words)

    def interrupted(name: str, number: int) -> int:
        """Exit code of a job that gets a signal in the middle of its training."""
        job = executor.submit(Again(), [*words, f"run_dir={tmp_path / name}"])
        until = time.monotonic() + 120
        while "0 of 1500" not in (job.stderr() or "") and time.monotonic() < until:
            time.sleep(0.05)
        (task,) = subprocess.run(["pgrep", "-P", str(job._process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(task), number)
        code: int = job.result()
        return code

    def record(name: str) -> dict[str, Any]:
        return json.loads((tmp_path / name / "run.json").read_text())

    assert interrupted("term", signal.SIGTERM) == INTERRUPTED
    assert list((tmp_path / "term" / "checkpoints").iterdir()) and not (tmp_path / "term" / "model").exists()
    assert executor.submit(main, [*words, f"run_dir={tmp_path / 'term'}"]).result() == 0
    assert interrupted("requeued", stops.HANDED_ON) == 0
    run(*words, f"run_dir={tmp_path / 'whole'}")
    assert len(record("term")["continued"]) == len(record("requeued")["continued"]) == 1
    names = ("term", "requeued", "whole")
    assert len({(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in names}) == 1
