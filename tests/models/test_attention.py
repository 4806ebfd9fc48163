"""Attention over ragged batches: the backends agree, sequences do not see each other, and the choice is explained."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from tolerance import close
from torch import Tensor

from didi_core.errors import InputError
from didi_core.models.attention import BACKENDS, LOGGERS, Layout, attention, available_backends, probe, resolve_backend
from didi_core.types import Vocabulary

CPU = torch.device("cpu")
RAGGED = [3, 7, 1, 5]


def layout_of(lengths: list[int], width: int, known: bool = False) -> Layout:
    return Layout(torch.tensor(lengths), width, tuple(lengths) if known else None)


def packed(lengths: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """q, k and v as one leaf [3, N, H, E]."""
    generator = torch.Generator().manual_seed(0)
    leaf = torch.randn(3, sum(lengths), 2, 8, generator=generator, dtype=torch.float64).to(dtype)
    return leaf.requires_grad_(True)


def alone(leaf: Tensor, lengths: list[int]) -> Tensor:
    """Explicit softmax, one sequence and one head at a time."""
    rows = []
    for q, k, v in zip(*(part.split(lengths) for part in leaf), strict=True):
        heads = [torch.softmax(q[:, h] @ k[:, h].T / 8**0.5, -1) @ v[:, h] for h in range(q.shape[1])]
        rows.append(torch.stack(heads, 1))
    return torch.cat(rows)


BOTH = [("sdpa", False), ("sdpa", True), ("eager", False)]  # known lengths: a CPU computes sequences one by one


@pytest.mark.parametrize(("backend", "known"), BOTH)
@pytest.mark.parametrize(("lengths", "width"), [(RAGGED, 7), (RAGGED, 12), ([4, 4], 4), ([4], 6)])
def test_values_and_gradients_are_those_of_each_sequence_alone(
    backend: str, known: bool, lengths: list[int], width: int
) -> None:
    layout = layout_of(lengths, width, known)
    assert layout.ragged == (known and lengths != [4, 4])
    ours, theirs = packed(lengths), packed(lengths)
    out, expected = attention(*ours, layout, backend), alone(theirs, lengths)
    close(out, expected)
    out.sin().sum().backward()
    expected.sin().sum().backward()
    close(ours.grad, theirs.grad)


@pytest.mark.parametrize(("backend", "known"), BOTH)
def test_a_row_of_nothing_but_padding_harms_no_other(backend: str, known: bool) -> None:
    ours, theirs = packed([3, 5]), packed([3, 5])
    attention(*ours, layout_of([3, 0, 5], 5, known), backend).square().sum().backward()
    alone(theirs, [3, 5]).square().sum().backward()
    close(ours.grad, theirs.grad)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_half_precision_stays_close(backend: str) -> None:
    expected = alone(packed(RAGGED, torch.float64), RAGGED)
    out = attention(*packed(RAGGED, torch.bfloat16), layout_of(RAGGED, 7), backend)
    assert out.dtype == torch.bfloat16
    assert ((out - expected).norm() / expected.norm()).item() < 0.02


def test_layout_packs_and_unpacks() -> None:
    tokens = torch.tensor([[5, 6, 7, 0], [8, 9, 5, 6], [0, 0, 0, 0], [7, 0, 0, 0]])
    layout = Layout.of(tokens, Vocabulary(10, pad=0))
    assert layout.pack(tokens).tolist() == [5, 6, 7, 8, 9, 5, 6, 7]
    assert layout.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    assert layout.boundaries.tolist() == [0, 3, 7, 7, 8] and layout.boundaries.dtype == torch.int32
    assert torch.equal(layout.unpack(layout.pack(tokens)), tokens)


def test_an_unpadded_batch_is_packed_without_a_copy() -> None:
    tokens = torch.ones(3, 4, dtype=torch.long)
    layout, x = Layout.of(tokens, Vocabulary(10, pad=0)), torch.randn(3, 4, 2)
    assert layout.full and layout.pack(x).data_ptr() == x.data_ptr() == layout.unpack(layout.pack(x)).data_ptr()


@pytest.mark.parametrize("rows", [[[5, 0, 6]], [[0, 5, 6]], [[5, 0, 0]]])
def test_only_padding_on_the_right_is_taken(rows: list[list[int]]) -> None:
    tokens = torch.tensor([[5, 6, 7], *rows])
    if rows == [[5, 0, 0]]:
        assert Layout.of(tokens, Vocabulary(10, pad=0)).lengths.tolist() == [3, 1]
        return
    with pytest.raises(InputError, match=r"row 1 of the batch has padding \(id 0\) before a token"):
        Layout.of(tokens, Vocabulary(10, pad=0))


def test_auto_says_why() -> None:
    backend = resolve_backend("auto", CPU, torch.float32)
    assert backend.name == "sdpa" and "CUDA" in backend.reason


@pytest.mark.parametrize("name", ["xformers", "varlen"])
def test_a_kernel_that_cannot_run_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(InputError, match=f"attention={name} cannot run here.*CUDA.*attention=auto"):
        resolve_backend(name, CPU, torch.bfloat16)


def test_varlen_in_full_precision_is_refused_by_dtype() -> None:
    with pytest.raises(InputError, match="half precision, not torch.float32"):
        resolve_backend("varlen", torch.device("cuda"), torch.float32)


@pytest.fixture
def without_operators(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An xformers that can be imported and has no operator, as a wheel made for another torch; counts its calls."""
    calls: list[int] = []

    def refuse(*_: object, **__: object) -> None:
        calls.append(1)
        raise NotImplementedError("No operator found for `memory_efficient_attention_forward` with inputs:\n     query")

    names = ("xformers", "xformers.ops", "xformers.ops.fmha", "xformers.ops.fmha.attn_bias")
    modules = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        monkeypatch.setitem(sys.modules, name, module)
    modules["xformers.ops"].memory_efficient_attention = refuse  # type: ignore[attr-defined]
    mask = type("BlockDiagonalMask", (), {"from_seqlens": classmethod(lambda cls, lengths, device: cls())})
    modules["xformers.ops.fmha.attn_bias"].BlockDiagonalMask = mask  # type: ignore[attr-defined]
    probe.cache_clear()
    return calls


def test_a_kernel_is_tried_once_and_its_refusal_is_kept(without_operators: list[int]) -> None:
    for _ in range(3):
        assert "No operator found for `memory_efficient" in probe("xformers", CPU, torch.float32)
    assert without_operators == [1]
    assert probe("sdpa", CPU, torch.float32) == probe("eager", CPU, torch.bfloat16) == ""
    probe.cache_clear()


def test_auto_passes_over_an_xformers_without_operators(
    without_operators: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_the_cpu(name: str, device: torch.device, dtype: torch.dtype) -> str:
        return "" if name == "varlen" else probe(name, CPU, dtype)  # the second has no CUDA kernel to try here

    monkeypatch.setattr("didi_core.models.attention.probe", on_the_cpu)
    cuda = torch.device("cuda")
    half, single = (resolve_backend("auto", cuda, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert half.name == "varlen" and "xformers: NotImplementedError: No operator found" in half.reason
    assert single.name == "sdpa" and "No operator found" in single.reason and "half precision" in single.reason
    with pytest.raises(InputError, match="attention=xformers cannot run here: .*No operator found.*attention=auto"):
        resolve_backend("xformers", cuda, torch.bfloat16)
    assert without_operators


WHY = "WARNING[XFORMERS]: it can't load. It was built for:\n    PyTorch 2.10 (you have 2.11)\n  Please reinstall"


@pytest.mark.parametrize("logger", LOGGERS)
def test_what_a_package_says_of_its_failure_is_in_the_reason_and_not_on_the_terminal(
    logger: str, without_operators: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        logging.getLogger(logger).warning(WHY)
        logging.getLogger(logger).error("a fault")
        raise NotImplementedError("No operator found")

    sys.modules["xformers.ops"].memory_efficient_attention = refuse  # type: ignore[attr-defined]
    reason = probe("xformers", CPU, torch.float32)
    assert "No operator found; WARNING[XFORMERS]: it" in reason and reason.endswith("2.10 (you have 2.11)")
    assert caplog.messages == ["a fault"]
    logging.getLogger(logger).warning("later")
    assert caplog.messages == ["a fault", "later"]
    probe.cache_clear()


def test_what_a_package_that_runs_says_is_heard(
    without_operators: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def run(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
        logging.getLogger("xformers").warning("slower than it could be")
        return v

    sys.modules["xformers.ops"].memory_efficient_attention = run  # type: ignore[attr-defined]
    assert probe("xformers", CPU, torch.float32) == ""
    assert caplog.messages == ["slower than it could be"]
    probe.cache_clear()


def test_an_unknown_backend_names_the_near_miss() -> None:
    with pytest.raises(InputError, match="Did you mean 'xformers'"):
        resolve_backend("xformer", CPU, torch.float32)


def test_available_backends_tries_each() -> None:
    found = available_backends(CPU, torch.float32)
    assert set(found) == set(BACKENDS) - {"auto"}
    assert found["sdpa"] == found["eager"] == "ok" and "CUDA" in found["varlen"]


def test_the_mask_for_xformers_joins_the_same_pairs() -> None:
    if importlib.util.find_spec("xformers") is None:
        pytest.skip("xformers is not installed; its kernels need CUDA, but its mask could be checked here")
    layout = layout_of([3, 0, 2, 4], 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a CPU it warns that its kernels are not there
        bias = layout.block_diagonal.materialize((9, 9))  # type: ignore[attr-defined]
    owner = torch.arange(4).repeat_interleave(layout.lengths)
    assert torch.equal(bias == 0, owner[:, None] == owner)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the packed kernels need a CUDA device")
@pytest.mark.parametrize("name", ["xformers", "varlen"])
def test_packed_kernels_agree_with_explicit_softmax(name: str) -> None:
    cuda = torch.device("cuda")
    found = available_backends(cuda, torch.bfloat16)
    if found[name] != "ok":
        pytest.skip(f"{name}: {found[name]}")
    lengths = [130, 7, 64]
    layout = Layout(torch.tensor(lengths, device=cuda), 130)
    ours = torch.randn(3, sum(lengths), 4, 64, device=cuda).bfloat16().requires_grad_(True)
    exact = ours.detach().double().requires_grad_(True)
    out, expected = attention(*ours, layout, name), attention(*exact, layout, "eager")
    out.double().square().sum().backward()
    expected.square().sum().backward()
    assert (out - expected).norm() / expected.norm() < 0.02
    assert ours.grad is not None and exact.grad is not None
    assert (ours.grad - exact.grad).norm() / exact.grad.norm() < 0.04
