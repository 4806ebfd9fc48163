"""Statistics with written-down gradients are those that autograd traces, to rounding."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tolerance import close
from torch import Tensor, nn

from didi_core.diffusion import blocks, divergences, heads
from didi_core.diffusion.closed_forms import Memory, RowLogP, RowStatistics
from didi_core.types import Vocabulary

OPEN, GUARDED = Vocabulary(7), Vocabulary(7, pad=0, eos=3, forbidden=(5,))
VOCABULARIES = pytest.mark.parametrize("vocabulary", [OPEN, GUARDED], ids=["open", "guarded"])
DIVERGENCES = pytest.mark.parametrize("name", divergences.DIVERGENCES)


class Net(nn.Module):
    """A head and nothing else; a rare token's logit may be -inf."""

    def __init__(self, vocabulary: Vocabulary, seed: int, impossible: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vocabulary, self.impossible = vocabulary, impossible
        self.linear = nn.Linear(4, vocabulary.size + 2)

    def head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = 3 * self.linear(hidden)
        if self.impossible is None:
            return logits
        return logits.index_fill(-1, torch.tensor([self.impossible]), -torch.inf)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_p(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """``log_p_x0`` in fp64."""
    return torch.log_softmax(logits[:, : vocabulary.size].masked_fill(~vocabulary.allowed(), -torch.inf), -1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 20)  # two rows at once


@VOCABULARIES
@DIVERGENCES
def test_values_are_those_of_the_definitions(name: str, vocabulary: Vocabulary) -> None:
    logits, reference, chosen = (
        random(5, 9),
        random(5, 8, seed=1),
        torch.tensor([[1, 2], [2, 2], [4, 6], [1, 1], [6, 2]]),
    )
    mixture = divergences.MIXTURES[divergences.divergence(name)]
    found = RowStatistics.apply(logits, chosen, reference, vocabulary, mixture, Memory())
    own, other = log_p(logits, vocabulary), log_p(reference, vocabulary)
    expected = own.gather(1, chosen), divergences.entropy(own), divergences.divergence(name)(other, own)
    for value, right in zip(found, (*expected, divergences.entropy(other)), strict=True):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-12)


@VOCABULARIES
@DIVERGENCES
def test_gradients_are_those_of_finite_differences(name: str, vocabulary: Vocabulary) -> None:
    logits, reference, chosen = random(3, 9), random(3, 8, seed=1), torch.tensor([[1, 2], [2, 2], [4, 6]])
    mixture = divergences.MIXTURES[divergences.divergence(name)]

    def all_three(z: Tensor) -> tuple[Tensor, ...]:
        return RowStatistics.apply(z, chosen, reference, vocabulary, mixture, Memory())[:3]

    def one(z: Tensor, which: int) -> Tensor:
        return all_three(z)[which]

    assert torch.autograd.gradcheck(all_three, logits.requires_grad_(True))
    for which in range(3):  # each alone: the others' gradients are absent
        assert torch.autograd.gradcheck(lambda z, which=which: one(z, which), logits)


def gradients(net: Net, hidden: Tensor, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *net.parameters()]))


@VOCABULARIES
@pytest.mark.parametrize("impossible", [None, 4])
@pytest.mark.parametrize("name", [*divergences.DIVERGENCES, None])
def test_chunks_change_nothing_but_rounding(name: str | None, impossible: int | None, vocabulary: Vocabulary) -> None:
    net, teacher = Net(vocabulary, 0, impossible), Net(vocabulary, 1, impossible)
    hidden, other = random(7, 4).float().requires_grad_(True), random(7, 4, seed=1).float()
    chosen, weight = torch.tensor([[1, 2], [2, 2], [6, 6], [1, 1], [6, 2], [2, 1], [1, 6]]), random(7, 2).float()
    against = (
        {"divergence": divergences.divergence(name), "reference": teacher, "reference_hidden": other} if name else {}
    )

    def measured(chunk: int | None) -> tuple[heads.TokenStatistics, list[Tensor]]:
        found = heads.token_statistics(net, hidden, chosen, chunk=chunk, **against)  # type: ignore[arg-type]
        loss = (found.log_p * weight).sum() + 0.3 * (found.divergence * weight[:, 0]).sum() - 0.2 * found.entropy.sum()
        return found, gradients(net, hidden, loss)

    (whole, traced), (pieces, closed) = measured(None), measured(3)
    for field in ("log_p", "entropy", "divergence", "reference_entropy"):
        close(getattr(pieces, field), getattr(whole, field))
    for ours, theirs in zip(closed, traced, strict=True):
        assert ours.isfinite().all()
        close(ours, theirs)
    with torch.no_grad():
        same = heads.token_statistics(net, hidden, chosen, chunk=3, **against)  # type: ignore[arg-type]
    assert torch.equal(same.log_p, pieces.log_p) and torch.equal(same.divergence, pieces.divergence)


@VOCABULARIES
def test_expected_ratio_in_chunks_changes_nothing_but_rounding(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, target, proposal = (Net(vocabulary, seed) for seed in range(3))
    hidden = random(7, 4).float().requires_grad_(True)
    others = [random(7, 4, seed=seed).float() for seed in (1, 2)]

    def measured() -> tuple[Tensor, Tensor, list[Tensor]]:
        value, spread = heads.expected_log_ratio(net, hidden, target, others[0], proposal, others[1], clip=1.5)
        assert not spread.requires_grad
        return value, spread, gradients(net, hidden, (value * random(7).float()).sum())

    whole = measured()
    monkeypatch.setattr(heads, "CLOSED_ELEMENTS", 3 * vocabulary.size)
    pieces = measured()
    for ours, theirs in zip(pieces[:2], whole[:2], strict=True):
        close(ours, theirs, size=1.5)  # ratios up to the clip, whose mean is nearly nothing
    for ours, theirs in zip(pieces[2], whole[2], strict=True):
        close(ours, theirs)
    assert pieces[2][0].abs().max() > 1e-3


@VOCABULARIES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_log_probabilities_alone_are_those_of_all_statistics(dtype: torch.dtype, vocabulary: Vocabulary) -> None:
    """Bit by bit, gradients included, and for a token without mass."""
    chosen, weight = torch.tensor([[1, 2], [2, 2], [4, 6], [1, 1], [6, 2]]), random(5, 2)
    logits = (3 * random(5, 9)).index_fill(1, torch.tensor([1]), -torch.inf).to(dtype)
    mixture = divergences.MIXTURES[divergences.reverse_kl]

    def measured(alone: bool) -> tuple[Tensor, Tensor]:
        given = logits.clone().requires_grad_(True)
        if alone:
            own = RowLogP.apply(given, chosen, vocabulary, Memory())
        else:
            own, *_ = RowStatistics.apply(given, chosen, None, vocabulary, mixture, Memory())
        (own * weight).sum().backward()
        assert given.grad is not None and given.grad.isfinite().all()
        return own, given.grad

    for ours, theirs in zip(measured(True), measured(False), strict=True):
        assert torch.equal(ours, theirs)


def test_token_log_p_in_chunks_changes_nothing_but_rounding() -> None:
    net, hidden = Net(GUARDED, 0), random(7, 4).float().requires_grad_(True)
    tokens = torch.tensor([1, 2, 4, 6, 4, 1, 2])

    def measured(chunk: int | None) -> list[Tensor]:
        found = heads.token_log_p(net, hidden, tokens, chunk=chunk)  # type: ignore[arg-type]
        return [found, *gradients(net, hidden, (found * random(7).float()).sum())]

    for ours, theirs in zip(measured(3), measured(None), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("memory", [4, 24, 80, 180])
def test_a_gpus_memory_bounds_its_chunks_and_small_ones_stay_as_on_a_cpu(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, gpu = 50_258, torch.device("cuda", memory)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory * 10**9))
    rows, cpu = heads.closed_rows(size, gpu), heads.closed_rows(size, torch.device("cpu"))
    assert cpu == heads.traced_rows(size) <= rows
    assert rows == cpu or rows * size * 4 <= memory * 10**9 / heads.DEVICE_SHARE < (rows + 1) * size * 4
    assert (rows > 9 * cpu) == (memory >= 80)


def test_a_large_chunk_is_one_with_closed_forms_and_changes_nothing_but_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, teacher, hidden = Net(OPEN, 0), Net(OPEN, 1), random(7, 4).float().requires_grad_(True)
    chosen, calls = torch.ones(7, 1, dtype=torch.long), list[int]()

    def measured() -> list[Tensor]:
        calls.clear()
        found = heads.token_statistics(net, hidden, chosen, reference=teacher, reference_hidden=hidden.detach())
        return gradients(net, hidden, found.divergence.sum() + found.log_p.sum())

    whole = measured()
    monkeypatch.setattr(heads, "CLOSED_ELEMENTS", 3 * OPEN.size)
    monkeypatch.setattr(heads, "device_elements", lambda _: 5 * OPEN.size)
    forward = RowStatistics.forward
    monkeypatch.setattr(RowStatistics, "forward", lambda ctx, *of: calls.append(len(of[0])) or forward(ctx, *of))
    for ours, theirs in zip(measured(), whole, strict=True):
        close(ours, theirs)
    assert calls == [5, 2, 2, 5]  # forward, and again in the backward pass, from the last


def test_a_divergence_of_ones_own_is_traced_chunk_by_chunk() -> None:
    net, teacher = Net(OPEN, 0), Net(OPEN, 1)
    hidden, chosen = random(5, 4).float().requires_grad_(True), torch.ones(5, 1, dtype=torch.long)

    def squared(log_q: Tensor, log_p: Tensor) -> Tensor:
        return (log_p.exp() - log_q.exp()).square().sum(-1)

    def measured(chunk: int | None) -> list[Tensor]:
        found = heads.token_statistics(
            net, hidden, chosen, reference=teacher, reference_hidden=hidden.detach(), divergence=squared, chunk=chunk
        )
        return gradients(net, hidden, found.divergence.sum())

    for ours, theirs in zip(measured(2), measured(None), strict=True):
        close(ours, theirs)


def test_half_precision_logits_give_half_precision_gradients() -> None:
    logits, chosen = random(4, 8).bfloat16().requires_grad_(True), torch.zeros(4, 1, dtype=torch.long)
    own = RowStatistics.apply(logits, chosen, None, OPEN, divergences.MIXTURES[divergences.reverse_kl], Memory())[0]
    (found,) = torch.autograd.grad(own.sum(), logits)
    right = torch.zeros(4, 7).index_fill(1, torch.tensor([0]), 1.0) - logits[:, :7].float().softmax(-1)
    assert own.dtype == torch.float32 and found.dtype == torch.bfloat16
    torch.testing.assert_close(found[:, :7].float(), right, rtol=0, atol=4e-3)
    assert not found[:, 7:].any()
