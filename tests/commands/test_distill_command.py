"""What the command makes of its settings, before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from didi_core.checkpoints.card import save_model
from didi_core.cli import main
from didi_core.commands.common import make_domain
from didi_core.commands.compose import compose_jobs
from didi_core.commands.distill import Settings, materials
from didi_core.config import build
from didi_core.device import Machine
from didi_core.models.dit import DiT, DiTConfig
from didi_core.run import Run
from didi_core.types import Vocabulary


def head_of(seed: int) -> torch.Tensor:
    """First weights of the scorer's head in a run of that seed."""
    words = ["domain=toy", "objective=didi", "objective.reference=data", f"seed={seed}"]
    settings = build(Settings, compose_jobs("distill", words)[0].config)
    run = Run(make_domain(settings.domain, settings.data), Machine.of("cpu", "fp32"), seed)
    teacher, student = (run.domain.teacher(settings.teacher) for _ in range(2))
    objective = settings.rules.prepare(materials(settings, run, teacher, student))
    networks = {learner.name: learner.network for learner in objective.learners()}
    assert list(networks) == ["scorer", "fake", "student"]
    return networks["scorer"].main[0].parametrizations.weight.original  # type: ignore[index, union-attr]


def test_the_seed_of_the_run_decides_the_first_weights_of_the_scorer() -> None:
    before = torch.get_rng_state()
    first, other = head_of(0), head_of(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, head_of(0))
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("made_for", "told"),
    [
        (Vocabulary(20), r"teacher=folder was made for a vocabulary of 20 tokens \(pinned \(\)\), this domain has 21"),
        (
            Vocabulary(21, forbidden=(20,), pad=20, tokens=(*"ABCDEFGHIJKLMNOPQRST", "<pad>")),
            "teacher=folder was made for other tokens than this domain's: its token 0 is 'A', here it is 'a'",
        ),
    ],
)
def test_teacher_of_other_tokens_is_refused(
    made_for: Vocabulary, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = DiTConfig(hidden=16, layers=1, heads=2, conditioning=8)
    save_model(tmp_path / "folder", DiT(sizes, made_for), {"domain": "other"})
    assert main(["distill", "domain=toy", "teacher=folder", "run_dir=run"]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["domain=toy", "objective=mmd", "objective.layers=[9]"], "the teacher has 2 blocks"),
        (["domain=protein", "objective=dmmd", "objective.states.source=data"], "there is no data"),
    ],
)
def test_a_run_that_is_refused_before_it_made_anything_leaves_its_directory_free(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So the value can be mended and the command repeated; it is not said to be of another configuration."""
    for lr in ("1e-3", "2e-3"):
        assert main(["distill", *words, f"run_dir={tmp_path}", f"training.lr={lr}", "training.batch_size=8"]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()
