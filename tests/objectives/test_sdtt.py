"""SDTT and the control: their targets on cases that can be enumerated, rounds, and what they refuse."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from memory_keeper import Memory
from torch import Tensor

from didi_core.config import build
from didi_core.diffusion.masking import log_p_x0
from didi_core.errors import InputError
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import OBJECTIVES
from didi_core.objectives.sdtt import decided
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.objective import Slice
from didi_core.training.settings import TrainingSettings
from didi_toy.enumeration import TableDenoiser, every_sequence, few_step_law, iid_assignments

V, L, ROWS = 3, 2, 40_000
TRAINING = TrainingSettings(steps=6, batch_size=8, lr=1e-2, warmup=0, ema=0.5)


def prepared(name: str, training: TrainingSettings = TRAINING, **keys: Any) -> Any:
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)

    def samples(num: int, steps: int) -> Tensor:
        return domain.chain.sample(num, 32, generator(0, "test"))  # type: ignore[attr-defined]

    materials = Materials(Run(domain), training, student, teacher, samples)
    return build(OBJECTIVES.find(name), {"states": {"source": "teacher"}, **keys}, "objective").prepare(materials)


@pytest.mark.parametrize("start", [0.0, 0.8])
@pytest.mark.parametrize("shares", [[0.5, 1.0], [0.2, 0.5, 1.0], [1.0]])
def test_the_mean_target_is_the_law_of_the_teachers_tokens(shares: list[float], start: float) -> None:
    """So one call that fits the targets by forward KL writes each token as often as the teacher in m calls.

    Shares are those of what is masked at the start, whatever was visible there.
    """
    teacher = TableDenoiser(V, L, generator(1, "table"))
    xt = torch.full((ROWS, L), teacher.vocabulary.mask)
    alpha = (start + (1 - start) * torch.tensor([0.0, *shares])).expand(ROWS, -1)
    with torch.no_grad():
        hidden = decided(teacher, xt, xt == teacher.vocabulary.mask, alpha, generator(0, "way"))
        mean = log_p_x0(teacher.head(hidden), teacher.vocabulary).exp().view(ROWS, L, -1).mean(0)[:, :V]
        law = few_step_law(teacher, V, iid_assignments(L, torch.tensor(shares, dtype=torch.float64)))
    x = every_sequence(V, L)
    exact = torch.stack([torch.stack([law[x[:, i] == a].sum() for a in range(V)]) for i in range(L)])
    torch.testing.assert_close(mean.double(), exact, rtol=0, atol=4 * 0.5 / ROWS**0.5)
    if shares == [1.0]:
        return
    first = log_p_x0(teacher(xt[:1]), teacher.vocabulary)[0].exp()[:, :V].double()
    assert (first - exact).abs().max() > 0.02  # several calls are another law than one: the test can tell


def test_what_is_revealed_keeps_the_call_that_revealed_it_and_what_is_visible_stays() -> None:
    teacher = TableDenoiser(V, L, generator(1, "table"))
    mask = teacher.vocabulary.mask
    xt = torch.tensor([[mask, mask], [0, mask]])
    at_once = decided(teacher, xt, xt == mask, torch.tensor([[0.0, 1.0, 1.0]]).expand(2, -1), generator(0))
    assert torch.equal(at_once, teacher.trunk(xt)[xt == mask])
    never = decided(teacher, xt, xt == mask, torch.zeros(2, 3), generator(0))
    assert torch.equal(never, at_once)


def test_the_gradient_is_that_of_the_divergence_to_the_mean_target() -> None:
    """For forward KL: the student's probabilities minus the mean target, at every logit."""
    teacher, student = (TableDenoiser(V, L, generator(i, "table")) for i in (1, 2))
    rows = 4000
    xt = torch.full((rows, L), teacher.vocabulary.mask)
    with torch.no_grad():
        hidden = decided(
            teacher, xt, xt == teacher.vocabulary.mask, torch.tensor([0.0, 0.5, 1.0]).expand(rows, -1), generator(0)
        )
        target = log_p_x0(teacher.head(hidden), teacher.vocabulary).exp().view(rows, L, -1)
    log_p = log_p_x0(student(xt), student.vocabulary)
    (target * (target.clamp_min(1e-12).log() - log_p.clamp_min(-1e4))).sum((1, 2)).mean().backward()
    assert student.table.grad is not None
    found = student.table.grad[-1]
    wanted = (log_p[0].exp() - target.mean(0)).detach()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stop", [2, 3])
def test_a_round_ends_with_a_new_teacher_and_a_resume_knows_it(stop: int) -> None:
    keys = {"calls": 8, "rounds": 2, "round_updates": 2}
    training = replace(TRAINING, checkpoint_every=1, accumulate=2)

    def engine(keeper: Memory) -> Engine:
        run = Run(registry().domain("toy", {}))
        return Engine(prepared("sdtt", training, **keys), run, training, keeper, "test", partial(run.stream, "test"))

    whole = engine(Memory())
    objective = whole.objective
    assert objective.teacher(0) is objective.materials.frozen
    whole.train()
    assert objective.teacher(5) is objective.earlier and [objective.round(i) for i in range(6)] == [0, 0, 1, 1, 1, 1]
    keeper = Memory(stop)
    with pytest.raises(KeyboardInterrupt):
        engine(keeper).train()
    keeper.stop = 0
    rest = engine(keeper)
    rest.train()
    for name, value in rest.result.learner.network.state_dict().items():
        assert torch.equal(value, whole.result.learner.network.state_dict()[name]), name
    for name, value in rest.objective.earlier.state_dict().items():
        assert torch.equal(value, objective.earlier.state_dict()[name]), name


def test_the_control_is_the_nelbo_at_its_states() -> None:
    objective = prepared("cross_entropy")
    part = Slice(stream=generator(0, "slice"))
    state = objective.batch(part)
    student = objective.materials.student
    found = objective.loss("student", state, part).loss

    nll = -log_p_x0(student(state.xt), student.vocabulary).gather(2, state.x0[..., None]).squeeze(2)
    weight = (1 / state.time)[:, None]
    wanted = (nll * weight * state.masked).sum() / state.x0.numel()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("sdtt", {"jump": 1}, r"objective.jump=1.*at least 2"),
        ("sdtt", {"rounds": 0}, "objective.rounds=0 is out of range"),
        ("sdtt", {"calls": 7, "rounds": 3}, r"objective.calls=7 cannot be divided by 2 in 3 rounds.*at least 8"),
        ("sdtt", {"divergence": "total"}, r"objective.divergence"),
        ("cross_entropy", {"weight_clip": 0.0}, r"objective.weight_clip=0"),
    ],
)
def test_wrong_settings_are_refused_by_name(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(OBJECTIVES.find(name), keys, "objective")
