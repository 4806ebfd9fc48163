"""What the command makes of its settings, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from didi_core.commands.common import make_domain
from didi_core.commands.distill import Settings, make_reward
from didi_core.compose import compose_jobs
from didi_core.config import build
from didi_core.device import Machine
from didi_core.rewards import BothRewards
from didi_core.run_dir import RunDirectory


def head_of(seed: int, tmp_path: Path) -> torch.Tensor:
    """First weights of the scorer's head in a run of that seed."""
    words = ["domain=toy", "objective.reference=data", f"seed={seed}"]
    settings = build(Settings, compose_jobs("distill", words)[0].config)
    domain = make_domain(settings.domain, settings.data)
    teacher = domain.teacher(settings.teacher)
    with RunDirectory.open(tmp_path / str(seed), {}, ()) as opened:
        reward = make_reward(settings, domain, teacher, Machine.of("cpu", "fp32"), opened)
    assert isinstance(reward, BothRewards)
    return reward.scorer_reward.scorer.main[0].parametrizations.weight.original


def test_the_seed_of_the_run_decides_the_first_weights_of_the_scorer(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first, other = head_of(0, tmp_path), head_of(1, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, head_of(0, tmp_path / "again"))
    assert not torch.equal(first, other)
