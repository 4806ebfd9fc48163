"""Mixtures of experts: against a loop over positions and experts in plain Python, gradients, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tolerance import close
from torch import Tensor

from didi_core.errors import InputError
from didi_core.models.adapter import AdapterSettings, adapt
from didi_core.models.compiled import Compilation, compiling, try_on
from didi_core.models.experts import ExpertsConfig, Mixture
from didi_core.models.llama import Llama, LlamaConfig, rotation, turn
from didi_core.types import Vocabulary

WIDTH, POSITIONS = 6, 23
SMALL = ExpertsConfig(count=8, chosen=3, width=5, shared=1, groups=4, chosen_groups=2, dense=1, scale=2.5)
SIZES = [
    SMALL,
    replace(SMALL, groups=1, chosen_groups=1),
    replace(SMALL, chosen=1, shared=0),
    replace(SMALL, chosen=8, chosen_groups=4, shared=2),
    replace(SMALL, count=12, groups=2, chosen_groups=1, chosen=6, scale=1.0),
]
EVERY = pytest.mark.parametrize("sizes", SIZES, ids=lambda c: f"{c.chosen} of {c.count} in {c.groups}")


def mixture(sizes: ExpertsConfig = SMALL) -> tuple[Mixture, Tensor]:
    """A mixture with a bias that changes choices, and what it is given."""
    torch.manual_seed(3)
    made = Mixture(WIDTH, sizes)
    made.gate.expert_bias.copy_(torch.randn(sizes.count) * 0.3)
    return made, torch.randn(POSITIONS, WIDTH, requires_grad=True)


def chosen_of(row: list[float], bias: list[float], sizes: ExpertsConfig) -> dict[int, float]:
    """The experts of one position with their weights, by their scores: no tensor in it."""
    order = [score + more for score, more in zip(row, bias, strict=True)]
    size = sizes.count // sizes.groups
    members = [range(group * size, (group + 1) * size) for group in range(sizes.groups)]
    ranks = [sum(sorted((order[e] for e in group), reverse=True)[:2]) for group in members]
    best = sorted(range(sizes.groups), key=lambda group: -ranks[group])[: sizes.chosen_groups]
    open_to = [expert for group in best for expert in members[group]]
    taken = sorted(open_to, key=lambda expert: -order[expert])[: sizes.chosen]
    total = sum(row[expert] for expert in taken) if sizes.chosen > 1 else 1.0
    return {expert: sizes.scale * row[expert] / total for expert in taken}


def by_loop(made: Mixture, x: Tensor, sizes: ExpertsConfig) -> Tensor:
    """The mixture, one position and one expert at a time. Weights are a constant here."""
    scores, bias = torch.sigmoid(x.detach() @ made.gate.weight.detach().T).tolist(), made.gate.expert_bias.tolist()
    rows = []
    for position, row in zip(x, scores, strict=True):
        total = made.shared_experts(position[None])[0] if sizes.shared else torch.zeros(WIDTH)
        for expert, weight in chosen_of(row, bias, sizes).items():
            own = made.experts[expert]
            gate, up = (part.weight @ position for part in (own.gate_proj, own.up_proj))  # type: ignore[union-attr, operator]
            total = total + weight * (own.down_proj.weight @ (gate * torch.sigmoid(gate) * up))  # type: ignore[union-attr, operator]
        rows.append(total)
    return torch.stack(rows)


@EVERY
def test_the_router_chooses_as_a_loop_does(sizes: ExpertsConfig) -> None:
    made, x = mixture(sizes)
    chosen, weights = made.gate(x)
    scores, bias = torch.sigmoid(x @ made.gate.weight.T).tolist(), made.gate.expert_bias.tolist()
    for experts, own, row in zip(chosen.tolist(), weights.tolist(), scores, strict=True):
        wanted = chosen_of(row, bias, sizes)
        assert set(experts) == wanted.keys() and len(experts) == sizes.chosen
        assert dict(zip(experts, own, strict=True)) == pytest.approx(wanted, rel=1e-5)


@EVERY
def test_the_mixture_is_that_of_a_loop_with_its_gradients(sizes: ExpertsConfig) -> None:
    made, x = mixture(sizes)
    made.gate.requires_grad_(False)
    found, wanted = made(x), by_loop(made, x, sizes)
    close(found, wanted)
    slope = torch.randn_like(found)
    learnt = {name: p for name, p in made.named_parameters() if p.requires_grad}
    ours, theirs = (
        torch.autograd.grad(out, list(learnt.values()), slope, allow_unused=True) for out in (found, wanted)
    )
    for name, one, other in zip(learnt, ours, theirs, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            close(one, other)


def test_the_gradient_of_the_input_and_the_router_is_that_of_finite_differences() -> None:
    made, x = mixture()
    made.double()
    given = x.detach().double()[:5].requires_grad_(True)
    assert torch.autograd.gradcheck(made, given, eps=1e-7, atol=1e-5)

    def by_weight(weight: Tensor) -> Tensor:
        return torch.func.functional_call(made, {"gate.weight": weight}, (given.detach(),))  # type: ignore[no-any-return]

    weight = made.gate.weight.detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(by_weight, weight, eps=1e-7, atol=1e-5)


def test_the_bias_moves_the_choice_but_not_the_weights() -> None:
    made, x = mixture()
    made.gate.expert_bias.zero_()
    made.gate.expert_bias[[0, 1]] = 10.0  # the first of four groups
    chosen, weights = made.gate(x)
    assert all({0, 1} <= set(row) for row in chosen.tolist())
    scores = torch.sigmoid(x @ made.gate.weight.T).gather(1, chosen)
    close(weights, SMALL.scale * scores / scores.sum(1, keepdim=True))
    assert "gate.expert_bias" not in dict(made.named_parameters()) and "gate.expert_bias" in made.state_dict()


def test_near_scores_are_told_apart_under_autocast() -> None:
    made, x = mixture(replace(SMALL, count=64, groups=1, chosen_groups=1))
    torch.nn.init.normal_(made.gate.weight, std=0.01)
    made.gate.expert_bias.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        chosen, weights = made.gate(x)
        assert made(x).shape == x.shape
    expected, _ = made.gate(x)
    assert torch.equal(chosen, expected) and weights.dtype == torch.float32


def test_positions_do_not_depend_on_each_other() -> None:
    made, x = mixture()
    whole = made(x)
    for number in (0, 7, POSITIONS - 1):
        close(made(x[number : number + 1]), whole[number : number + 1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": 0}, "count=0"),
        ({"chosen": 0}, "chosen=0"),
        ({"width": 0}, "width=0"),
        ({"shared": -1}, "shared=-1"),
        ({"dense": -1}, "dense=-1"),
        ({"scale": 0.0}, "scale=0.0 is out of range"),
        ({"groups": 3}, "count=8 experts do not divide into groups=3"),
        ({"groups": 8}, "do not divide into groups=8 of the same size, at least 2"),
        ({"chosen_groups": 5}, "chosen_groups=5 is more than groups=4"),
        ({"chosen": 5}, "chosen=5 is more than the 4 experts of chosen_groups=2"),
    ],
)
def test_sizes_that_no_mixture_has_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        replace(SMALL, **change)


def network(layers: int = 2, **more: Any) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(16, layers, 2, 1, 8, 24, 12, 11, experts=SMALL, **more), Vocabulary(11)).eval()


def test_the_first_layers_are_dense() -> None:
    kinds = [isinstance(layer.mlp, Mixture) for layer in network(3).model.layers]
    assert kinds == [False, True, True]


def test_a_network_with_mixtures_compiles_around_them() -> None:
    compilation, model = Compilation("eager"), network()
    try_on(compilation, model)
    assert not compilation.problem
    tokens = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), compiling(compilation):
        close(model(tokens), network()(tokens))


@pytest.mark.parametrize("targets", [None, ("experts",), ("q_proj",)])
def test_an_adapter_leaves_experts_alone_unless_they_are_named(targets: tuple[str, ...] | None) -> None:
    pytest.importorskip("peft")
    teacher = network().requires_grad_(False)
    student = adapt(network(), teacher, AdapterSettings(rank=2, targets=targets), 0, "student")
    adapted = {name for name, p in student.named_parameters() if "lora_" in name}
    routed = {name for name in adapted if ".mlp.experts." in name}
    assert bool(routed) is (targets == ("experts",))
    assert any(".mlp.shared_experts." in name for name in adapted) is (targets is None)
    assert {name for name, p in student.named_parameters() if p.requires_grad} == adapted
    tokens = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(student(tokens), teacher(tokens))


def test_half_of_a_head_is_turned() -> None:
    x = torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = rotation(torch.arange(5), 4, 100.0)
    made = turn(x, cos, sin)
    assert torch.equal(made[..., 4:], x[..., 4:]) and torch.equal(made[0], x[0])
    pairs = torch.view_as_complex(torch.stack([x[..., :2], x[..., 2:4]], dim=-1))
    angles = torch.arange(5)[:, None] / 100.0 ** (torch.tensor([0, 2]) / 4)
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None])
    close(made[..., :4], torch.cat([turned[..., 0], turned[..., 1]], dim=-1))
