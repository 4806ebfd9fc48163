"""Calls as CUDA graphs, on a CPU: a call is traced, and its operations run again on the same tensors.

Like a graph, what is traced has one shape, reads weights and inputs where they lay, and cannot look at a number.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tolerance import close
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import law
from didi_core.models import dit
from didi_core.models import graphs as module
from didi_core.models.attention import Layout
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.graphs import Graphs, replaying
from didi_core.models.noise import with_noise
from didi_core.models.scorer import scorer_from_trunk
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator
from didi_core.types import Vocabulary

PADDED, PLAIN = Vocabulary(8, pad=0, bos=1, eos=2), Vocabulary(8)


def traced(call: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    operations = make_fx(call)()
    out = operations()
    return lambda: out.copy_(operations()), out


@pytest.fixture
def graphs() -> Graphs:
    return Graphs(traced, "cpu")


def network(vocabulary: Vocabulary = PADDED, **more: int) -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8, **more), vocabulary).eval()


def rows(*lengths: int) -> Tensor:
    tokens = torch.full((len(lengths), max(lengths)), PADDED.mask)
    for row, length in zip(tokens, lengths, strict=True):
        row[::3], row[length:] = 4, 0
    return tokens


def moved(model: DiT) -> None:
    """What an optimiser does to weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


BATCHES = ((9, 5, 3), (9, 5, 3), (7, 6, 2), (30, 30, 1, 4), (64, 3, 3), (70, 3, 3), (65, 1, 9), (80, 80, 70))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_replayed_calls_are_plain_ones_for_all_lengths_within_a_shape_and_after_an_update(
    precision: torch.dtype, graphs: Graphs
) -> None:
    model = network(positions=80)
    for lengths in BATCHES:
        tokens = rows(*lengths)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            expected = model.trunk(tokens)
            with replaying(graphs):
                found = model.trunk(tokens)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5 if precision is torch.float32 else 0.05, atol=1e-2)
        moved(model)
    assert not graphs.problem
    assert graphs.counts == {"plain": 4, "made": 2, "replayed": 4}, "rows to 4, widths to 64 and to the widest"


@torch.no_grad()
def test_calls_with_noise_are_replayed_and_noise_is_read(graphs: Graphs) -> None:
    model, tokens = network(noise=3), rows(6, 6, 4)
    for seed in range(4):
        noise = torch.randn(3, 3, generator=generator(seed))
        expected = model.trunk(tokens, noise)
        with replaying(graphs):
            close(model.trunk(tokens, noise), expected)
    assert graphs.counts["replayed"] == 2 and not graphs.problem


@torch.no_grad()
def test_rows_of_different_blocks_are_not_one_graph(graphs: Graphs) -> None:
    """Which rows are in their first call, only the values say, and a graph does not look at them."""
    model, tokens = with_noise(network(), 2, 0, once=True, first_blocks=True), rows(6, 6, 4)
    with replaying(graphs):
        for _ in range(3):
            model.trunk(tokens)
    assert graphs.counts["made"] == graphs.counts["replayed"] == 0 and not graphs.problem


@torch.no_grad()
def test_a_sampler_draws_the_same_by_graphs(graphs: Graphs) -> None:
    model = network()
    template = rows(9, 8, 7, 6, 5).masked_fill(rows(9, 8, 7, 6, 5) == 4, PADDED.mask)

    def drawn() -> Tensor:
        request = SampleRequest(model, template, Uniform().shares(6), law("iid"), generator(0))
        return Ancestral().sample(request).tokens

    expected = drawn()
    with replaying(graphs):
        assert torch.equal(drawn(), expected) and torch.equal(drawn(), expected)
    assert graphs.counts["replayed"] > 4 and not graphs.problem


def test_what_learns_drops_out_or_is_large_runs_as_it_is(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = network(), rows(5, 3)
    dropping = DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8, dropout=0.5), PADDED).train()
    with replaying(graphs):
        for _ in range(4):
            assert model.trunk(tokens).requires_grad
            with torch.no_grad():
                dropping.trunk(tokens)
        monkeypatch.setattr(module, "SMALL", 1.0)
        with torch.no_grad():
            assert [model.trunk(tokens) for _ in range(4)]
    assert not graphs.counts


@torch.no_grad()
def test_weights_that_moved_are_recorded_again(graphs: Graphs) -> None:
    model, tokens = network(), rows(5, 3)
    with replaying(graphs):
        for _ in range(3):
            model.trunk(tokens)
        assert graphs.counts["replayed"] == 1
        model.output_layer.linear.weight.data = model.output_layer.linear.weight.data * 2
        model.blocks[0].attn_out.weight.data = model.blocks[0].attn_out.weight.data * 2
        found = model.trunk(tokens)
        for _ in range(2):
            again = model.trunk(tokens)
    close(found, model.trunk(tokens))
    close(again, found)
    assert graphs.counts == {"plain": 4, "made": 2, "replayed": 2}


@torch.no_grad()
def test_networks_do_not_share_recordings(graphs: Graphs) -> None:
    one, tokens = network(PLAIN), torch.full((3, 6), PLAIN.mask)
    scorer = scorer_from_trunk(network(PLAIN), 1).eval()
    moved(one)
    with replaying(graphs):
        for _ in range(3):
            hidden, scores = one.trunk(tokens), scorer(tokens)
    close(hidden, one.trunk(tokens))
    close(scores, scorer(tokens))
    assert graphs.counts["made"] == graphs.counts["replayed"] == 2


def fails(call: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


def doubles(call: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    replay, out = traced(lambda: 2 * call())
    return replay, out


def ignores(call: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    out = call()
    return lambda: None, out


@pytest.mark.parametrize(
    ("record", "reason"), [(fails, "operation not permitted"), (doubles, "values differ"), (ignores, "values differ")]
)
@torch.no_grad()
def test_a_recording_that_fails_or_is_wrong_is_told_once_and_calls_go_on(
    record: module.Record, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokens, broken = network(), rows(9, 5, 3), Graphs(record, "cpu")
    expected = model.trunk(tokens)
    with replaying(broken):
        assert all(torch.equal(model.trunk(tokens), expected) for _ in range(5))
    told = capsys.readouterr().err
    assert told.count("CUDA graphs failed") == 1 and reason in told and "when stream is capturing" not in told
    assert reason in broken.problem and not broken.counts["replayed"]


@torch.no_grad()
def test_a_look_at_the_device_cannot_be_recorded(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = network(), rows(9, 5, 3)
    monkeypatch.setattr(dit, "Padded", Layout)  # which reads lengths
    with replaying(graphs):
        for _ in range(3):
            model.trunk(tokens)
    assert graphs.problem and not graphs.counts["replayed"]
