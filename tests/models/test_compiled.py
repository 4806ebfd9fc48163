"""Compiled blocks: the same values and gradients, the same names of weights, and a failure that is told once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tolerance import close
from torch import Tensor, nn

from didi_core.models.compiled import Compilation, compiling, is_compiling, try_on
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.esm import Esm, EsmConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_core.types import Vocabulary

LETTERS = Vocabulary(8, pad=0, bos=1, eos=2)


def dit() -> nn.Module:
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8), LETTERS).eval()


def esm() -> nn.Module:
    torch.manual_seed(0)
    return Esm(EsmConfig(hidden=16, layers=2, heads=2, intermediate=24, attention="sdpa"), LETTERS).eval()


NETWORKS: list[Any] = [dit, esm]
SLOW = pytest.param(esm, marks=pytest.mark.slow)


@pytest.fixture
def traced() -> Compilation:
    """Graphs as torch.compile makes them, run without a compiler; every graph is made anew."""
    torch._dynamo.reset()
    return Compilation("aot_eager")


def rows(*lengths: int) -> Tensor:
    tokens = torch.full((len(lengths), max(lengths)), LETTERS.mask)
    for row, length in zip(tokens, lengths, strict=True):
        row[::3], row[length:] = 4, 0
    return tokens


def computed(network: Any, tokens: Tensor) -> list[Tensor]:
    """Hidden states, and the gradients of all weights."""
    hidden = network.trunk(tokens)
    weights = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(hidden.square().sum(), weights, allow_unused=True)
    return [hidden, *(gradient for gradient in found if gradient is not None)]


@pytest.mark.parametrize("make", NETWORKS)
def test_compiled_blocks_compute_the_same_at_every_length_with_few_graphs(
    make: Callable[[], nn.Module], traced: Compilation
) -> None:
    network, batches = make(), [rows(9, 5), rows(7, 7, 3), rows(4)]
    expected = [computed(network, tokens) for tokens in batches]
    torch._dynamo.utils.counters.clear()
    with compiling(traced):
        assert is_compiling()
        found = [computed(network, tokens) for tokens in batches]
        made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        computed(copy.deepcopy(network), rows(11, 2))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made, "a copy has the same graphs"
    assert not traced.problem and not is_compiling()
    assert 2 <= made <= 4, "two parts; none for another length, another block"
    for one, other in zip(sum(found, []), sum(expected, []), strict=True):
        close(one, other)


@pytest.mark.parametrize("make", [dit, SLOW])
def test_a_scorer_with_frozen_blocks_learns_as_without(make: Callable[[], nn.Module], traced: Compilation) -> None:
    scorer, tokens = scorer_from_trunk(make(), 1).eval(), rows(6, 4)
    weights = [p for p in scorer.parameters() if p.requires_grad]
    expected = torch.autograd.grad(scorer(tokens).square().sum(), weights, allow_unused=True)
    with compiling(traced):
        found = torch.autograd.grad(scorer(tokens).square().sum(), weights, allow_unused=True)
    assert not traced.problem
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            close(one, other)


def test_names_of_weights_know_nothing_of_it(traced: Compilation) -> None:
    network = dit()
    before = list(network.state_dict())
    with compiling(traced), torch.no_grad():
        network.trunk(rows(5, 3))  # type: ignore[operator]
        assert list(copy.deepcopy(network).state_dict()) == before == list(network.state_dict())


def refuses(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler here\nsecond line")


def test_a_failed_compilation_falls_back_once_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    network, broken = dit(), Compilation(refuses)  # type: ignore[arg-type]
    expected = computed(network, rows(5, 3))
    with compiling(broken):
        found = [computed(network, rows(5, 3)) for _ in range(2)][-1]
        assert not is_compiling()
    told = capsys.readouterr().err
    assert told.count("torch.compile failed") == 1 and "no compiler here" in told and "second line" not in told
    assert "no compiler here" in broken.problem
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_an_error_of_the_network_itself_is_no_failure_of_the_compiler(traced: Compilation) -> None:
    network = DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8, positions=4), LETTERS)
    with compiling(traced), pytest.raises(Exception, match="exceeds the 4 positions"):
        network.trunk(rows(6))
    assert not traced.problem


@pytest.mark.parametrize("make", [dit, SLOW])
@pytest.mark.parametrize("learns", [True, False])
def test_a_trial_accepts_what_is_right(make: Callable[[], nn.Module], learns: bool, traced: Compilation) -> None:
    network = make().requires_grad_(learns)
    try_on(traced, network)
    assert not traced.problem and not is_compiling()
    assert all(parameter.grad is None for parameter in network.parameters())


def doubles(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    return lambda *arguments: [2 * made if isinstance(made, Tensor) else made for made in graph(*arguments)]


@pytest.mark.parametrize(("backend", "reason"), [(refuses, "no compiler here"), (doubles, "values differ")])
def test_a_trial_refuses_what_fails_or_computes_something_else(
    backend: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch._dynamo.reset()
    tried = Compilation(backend)
    try_on(tried, dit().requires_grad_(False))
    assert reason in tried.problem and reason in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_inductor_computes_the_same(make: Callable[[], nn.Module]) -> None:
    torch._dynamo.reset()
    network, real = make(), Compilation()
    expected = computed(network, rows(9, 5))
    try_on(real, network)
    with compiling(real):
        found = computed(network, rows(9, 5))
    assert not real.problem
    for one, other in zip(found, expected, strict=True):
        close(one, other)
