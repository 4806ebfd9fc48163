"""Dropout is for pretraining: a network that is distilled computes in training what it computes in sampling."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from didi_core.cli import main
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.dropout import without_dropout
from didi_core.models.noise import with_noise
from didi_core.training.engine import Engine
from didi_core.types import Vocabulary


def network() -> DiT:
    torch.manual_seed(0)
    made = DiT(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8, dropout=0.5), Vocabulary(4))
    nn.init.normal_(made.output_layer.linear.weight)
    for block in made.blocks:
        nn.init.normal_(block.adaLN_modulation.weight)
    return made.train()


@pytest.mark.parametrize("noise", [0, 2])
def test_calls_in_training_agree_without_dropout_and_differ_with_it(noise: int) -> None:
    tokens = torch.tensor([[0, 1, 4, 4], [4, 4, 2, 3]])
    plain = network()
    assert not torch.equal(plain(tokens), plain(tokens))
    made = without_dropout(with_noise(plain, noise, 0)).train()
    given = (tokens, torch.ones(2, noise)) if noise else (tokens,)
    assert torch.equal(made(*given), made(*given))
    other = copy.deepcopy(made)
    assert torch.equal(made(*given), other(*given)), "copies have none either"


def test_layers_of_torch_and_their_names() -> None:
    made = without_dropout(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.9))).train()
    x = torch.randn(3, 8)
    assert torch.equal(made(x), made[0](x))


def test_a_teacher_with_dropout_gives_students_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["training.steps=2", "training.batch_size=16", "training.warmup=0"]
    teacher, seen = tmp_path / "teacher", set[float]()
    words = ["pretrain", "domain=toy", "model=micro", "model.dropout=0.4", "validation_batches=1", *sizes]
    assert main([*words, f"run_dir={teacher}"]) == 0
    own = Engine.step

    def step(engine: Engine, number: int) -> dict[str, float]:
        for trainee in engine.trainees:
            seen.update(part.dropout for part in trainee.learner.network.modules() if hasattr(part, "dropout"))
        return own(engine, number)

    monkeypatch.setattr(Engine, "step", step)
    words = ["distill", "domain=toy", "evaluate.enabled=false", *sizes]
    small = ["objective.reference_samples=32", "objective.reference_steps=4"]
    assert main([*words, *small, f"teacher={teacher}", f"run_dir={tmp_path / 'run'}"]) == 0
    assert seen == {0.0}
