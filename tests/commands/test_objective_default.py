"""A domain names the objective that it is distilled with unless somebody chooses one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import didi_core
from didi_core.cli import main
from didi_core.commands.compose import compose_jobs, compose_mapping
from didi_core.commands.explain import explained
from didi_core.errors import InputError

TOY = "objective=didi: the default of domain=toy"
TINY = [
    "domain=toy",
    "training.steps=2",
    "training.batch_size=8",
    "objective.reference_samples=8",
    "objective.reference_steps=2",
    "objective.critic.warmup=1",
    "evaluate.enabled=false",
]


@pytest.mark.parametrize(
    ("words", "name", "note"),
    [
        ([], "few_calls", "objective=few_calls: the default of domain=protein"),
        (["domain=toy"], "didi", TOY),
        (["domain=toy", "objective.anchor.kl=0.7"], "didi", TOY),
        (["domain=toy", "objective=few_calls"], "few_calls", ""),
        (["domain=toy", "objective=didi"], "didi", ""),
        (["experiment=owt_small_paper"], "didi_paper", ""),
        (["experiment=owt_small_paper", "domain=toy"], "didi_paper", ""),
    ],
)
def test_the_domain_decides_where_neither_user_nor_experiment_does(words: list[str], name: str, note: str) -> None:
    (job,) = compose_jobs("distill", words)
    assert (job.config["objective"]["name"], job.note) == (name, note)
    assert "default_objective" not in job.config
    assert job.words == (*words, *([f"objective={name}"] if note else []))


def test_settings_of_the_chosen_objective_follow() -> None:
    (job,) = compose_jobs("distill", ["domain=toy"])
    (same,) = compose_jobs("distill", ["domain=toy", "objective=didi"])
    (other,) = compose_jobs("distill", ["domain=toy", "objective=few_calls"])
    assert job.config == same.config
    assert job.config["objective"]["anchor"]["kl"] == 0.2  # tuning/didi_toy.yaml
    assert other.config["training"]["steps"] > job.config["training"]["steps"]


def test_other_commands_do_not_see_the_key() -> None:
    (job,) = compose_jobs("pretrain", ["domain=toy"])
    assert (job.config["objective"]["name"], job.note) == ("nelbo", "")
    assert "default_objective" not in job.config
    with pytest.raises(InputError, match="unknown key 'default_objective'. Did you mean 'objective'"):
        compose_jobs("distill", ["default_objective=didi"])


def test_each_job_of_a_sweep_has_the_default_of_its_domain() -> None:
    jobs = compose_jobs("distill", ["domain=toy,protein"], sweep=True)
    assert [job.config["objective"]["name"] for job in jobs] == ["didi", "few_calls"]
    jobs = compose_jobs("distill", ["domain=toy", "experiment=objectives"], sweep=True)
    assert all(job.note == "" for job in jobs)


def test_help_and_python_show_the_same_default() -> None:
    for words in (["domain=toy"], ["domain=toy", "seed=1"]):  # from files alone, and composed with plugins
        told = explained("distill", words)
        assert re.search(r"^  objective\.name=didi\b", told, re.M) and f"  {TOY}\n" in told
    job = compose_mapping("distill", {"domain": "toy", "objective": {"anchor": {"kl": 0.7}}})
    assert (job.config["objective"]["name"], job.config["objective"]["anchor"]["kl"]) == ("didi", 0.7)
    assert job.note == TOY


def test_the_default_is_printed_recorded_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *TINY, "--cfg", "job"]) == 0
    assert capsys.readouterr().out.startswith(f"# {TOY}\n")
    words = ["distill", *TINY, f"run_dir={tmp_path / 'run'}"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"{TOY}\n")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert "objective=didi" in record["command_line"]
    assert main([*words, "objective=didi"]) == main(words) == 0  # both are the same run
    assert main([*words, "objective=idlm"]) == 2
    planned = didi_core.distill(**{word.partition("=")[0]: word.partition("=")[2] for word in TINY[:1]}, dry_run=True,
                                training={"steps": 1, "batch_size": 8}, evaluate={"enabled": False})  # fmt: skip
    assert TOY in capsys.readouterr().out and "scorer" in str(planned)
