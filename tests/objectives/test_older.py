"""Runs that were begun before rewards were a list: they go on, or say exactly why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from didi_core.cli import main
from didi_core.commands.compose import compose_jobs
from didi_core.errors import InputError
from didi_core.objectives.older import upgraded
from didi_core.objectives.registry import read_objective
from didi_core.storage.files import sha256

OLD_REWARD: dict[str, Any] = {
    "kind": "both", "credit": "expected", "ratio_weight": 1.0, "coupled": True, "smoothing": 0.1, "clip": 8.0,
    "updates": 1, "warmup": 1, "trainable_blocks": 4, "lr": 0.001, "lr_warmup": 5, "lr_final": 0.0,
    "gradient_clip": 0.5, "options": {},
}  # fmt: skip
NEW = ("kind", "coupled", "reward", "each_reward", "critic")


def older(name: str, reward: dict[str, Any], words: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configuration of a distillation as an older version recorded it."""
    config = compose_jobs("distill", [f"objective={name}", *words])[0].config
    objective = {key: value for key, value in config["objective"].items() if key not in NEW}
    return {"command": "distill", **config, "objective": {**objective, "reward": reward}}


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("didi", {}, ["objective.critic.warmup=1"]),
        ("didi", {"kind": "scorer", "updates": 3}, ["objective.reward=[scorer]", "objective.critic.updates=3"]),
        ("didi", {"coupled": False, "clip": 4.0}, ["objective.coupled=false", "objective.reward.clip=4"]),
        ("didi", {"kind": "log_ratio", "credit": "token"}, ["objective.reward=[{kind: log_ratio, credit: token}]"]),
        ("didi", {"ratio_weight": 0.5}, ["objective.reward.log_ratio.weight=0.5"]),
    ],
)  # fmt: skip
def test_an_older_objective_is_todays(name: str, changed: dict[str, Any], words: list[str]) -> None:
    config = compose_jobs("distill", [f"objective={name}", "objective.critic.warmup=1", *words])[0].config
    now = read_objective(config["objective"], "distill").resolved()
    assert upgraded(older(name, {**OLD_REWARD, **changed}))["objective"] == now
    assert upgraded({"command": "distill", "objective": now})["objective"] == now


def test_an_older_pretraining_is_todays() -> None:
    before = {"command": "pretrain", "objective": "nelbo", "schedule": "cosine", "weight_clip": 5.0, "seed": 0}
    words = ["domain=toy", "objective.schedule=cosine", "objective.weight_clip=5"]
    now = read_objective(compose_jobs("pretrain", words)[0].config["objective"], "pretrain").resolved()
    assert upgraded(before) == {"command": "pretrain", "seed": 0, "objective": now}


def test_a_reward_that_is_gone_is_named() -> None:
    with pytest.raises(
        InputError, match="an older version began this run.*unknown reward 'squash'.*Finish it with that version"
    ):
        upgraded(older("didi", {**OLD_REWARD, "kind": "squash"}))


WORDS = [
    "distill", "domain=toy", "objective=didi",
    "training.steps=3", "training.checkpoint_every=2", "training.batch_size=8", "device=cpu",
    "objective.reward.warmup=1", "objective.reference=data", "objective.baseline.group=4", "evaluate.enabled=false",
]  # fmt: skip


def make_older(run: Path) -> None:
    """What a run of an older version left that was stopped after its first checkpoint."""
    record = json.loads((run / "run.json").read_text())
    words = ("objective.reference=data", "objective.baseline.group=4", "domain=toy")
    record["config"]["objective"] = older("didi", OLD_REWARD, words)["objective"]
    (run / "run.json").write_text(json.dumps(record))
    shutil.rmtree(run / "student")
    first, last = sorted((run / "checkpoints").iterdir())
    shutil.rmtree(last)
    (first / "ema.safetensors").rename(first / "average.safetensors")
    rewrite_manifest(first)


def rewrite_manifest(checkpoint: Path) -> None:
    """The manifest of an older version, for the files that are there."""
    step = json.loads((checkpoint / "manifest.json").read_text())["step"]
    files = {path.name: sha256(path) for path in checkpoint.iterdir() if path.name != "manifest.json"}
    (checkpoint / "manifest.json").write_text(json.dumps({"step": step, "files": files}))


def test_an_older_run_ends_like_an_uninterrupted_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, f"run_dir={tmp_path / 'whole'}"]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    make_older(tmp_path / "cut")
    assert main([*WORDS, f"run_dir={tmp_path / 'cut'}"]) == 0
    assert "continuing after step 2 of 4" in capsys.readouterr().err
    for name in ("model", "scorer"):
        made = [sha256(tmp_path / run / "student" / f"{name}.safetensors") for run in ("whole", "cut")]
        assert made[0] == made[1]
    record = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert [one["kind"] for one in record["config"]["objective"]["reward"]] == ["scorer", "log_ratio"]


def test_other_settings_are_still_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"run_dir={tmp_path / 'run'}"
    assert main([*WORDS, run]) == 0
    make_older(tmp_path / "run")
    assert main([*WORDS, run, "objective.anchor.kl=0.5"]) == 2
    assert "belongs to another configuration: objective.anchor.kl: " in capsys.readouterr().err
    assert main([*WORDS, run, "objective.reward=[scorer]"]) == 2
    assert "objective.reward" in capsys.readouterr().err


def test_a_checkpoint_of_another_objective_says_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*WORDS, f"run_dir={run}"]) == 0
    for folder in (run / "checkpoints").iterdir():
        (folder / "fake.safetensors").unlink()
        rewrite_manifest(folder)
    assert main([*WORDS, f"run_dir={run}"]) == 2
    said = capsys.readouterr().err
    assert "has no 'fake': it holds ema, fake_optimiser, optimiser, scorer" in said and "use another run_dir" in said


def test_an_older_rollout_of_few_calls_completed_the_sequence() -> None:
    now = compose_jobs("distill", ["domain=protein"])[0].config["objective"]
    before = {**now, "rollout": {key: value for key, value in now["rollout"].items() if key != "complete"}}
    told = upgraded({"command": "distill", "objective": before})["objective"]
    assert told == {**now, "rollout": {**now["rollout"], "complete": True}}
    assert upgraded({"command": "distill", "objective": now})["objective"] == now


@pytest.mark.parametrize("student", [None, {"noise": 0}, {"noise": 2}])
def test_noise_of_an_older_student_was_read_in_every_call(student: dict[str, int] | None) -> None:
    before = {"command": "distill", "objective": {"kind": "alpha"}} | ({"student": student} if student else {})
    made = upgraded(before)
    assert made["student"] == {"noise": student["noise"] if student else 0, "noise_once": False, "first_blocks": False}
    assert upgraded(made) == made


def test_an_older_student_of_coupled_noise_is_finished_by_the_version_that_began_it() -> None:
    """There one optimiser trained both halves, in one phase after the other."""
    now = compose_jobs("distill", ["objective=few_calls_coupled"])[0].config["objective"]
    read = read_objective(now, "distill").resolved()
    assert upgraded({"command": "distill", "objective": read})["objective"] == read
    before = {**read, "coupling": {"updates": 120, "weight": 1.0, "empty": 1.0, "group": 64}}
    with pytest.raises(InputError, match="an older version began this run.* name another run_dir"):
        upgraded({"command": "distill", "objective": before})
