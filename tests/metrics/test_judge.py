"""The judge: its NLL is transformers' own, padding changes nothing, perplexity is token-weighted, files are strict."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import close, near
from torch import Tensor

from didi_core.checkpoints.judge import load_judge, save_judge
from didi_core.errors import InputError
from didi_core.evaluation.intervals import bootstrap
from didi_core.metrics.judge import JudgePerplexity
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.objectives.autoregressive import autoregressive_loss
from didi_core.streams import generator
from didi_core.types import Sample, Vocabulary

BOS, EOS, PAD = 4, 5, 6
VOCABULARY = Vocabulary(size=7, bos=BOS, eos=EOS, pad=PAD)
LETTERS = "ABCD"


def encode(text: str) -> list[int]:
    return [BOS, *(LETTERS.index(letter) for letter in text), EOS]


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeConfig(hidden=16, layers=2, heads=2, context=20), VOCABULARY).eval()


def padded(*texts: str, extra: int = 0) -> torch.Tensor:
    rows = [encode(text) for text in texts]
    width = max(map(len, rows)) + extra
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def test_nll_is_transformers_own_loss(judge: Judge) -> None:
    tokens = padded("ABCDDA")
    total, count = judge.nll(tokens)
    own = judge.network(input_ids=tokens, labels=tokens).loss
    assert count.item() == 7  # six letters and EOS; BOS is given
    assert (total / count).item() == near(own.item())


def test_nll_is_that_of_a_distribution(judge: Judge) -> None:
    """Probabilities of all continuations of two tokens after BOS sum to one."""
    rows = torch.tensor([[BOS, a, b] for a in range(7) for b in range(7) if b != PAD])
    given = torch.tensor([[BOS, a, PAD] for a in range(7) if a != PAD])
    nll, real = judge.token_nll(rows)
    total = (-nll[:, 0] - nll[:, 1]).exp().sum()
    missing, _ = judge.token_nll(torch.tensor([[BOS, a, PAD] for a in range(7)]))
    total += (-missing.sum(1)).exp().sum()
    assert total.item() == near(1)
    assert judge.nll(given)[1].tolist() == [1.0] * len(given)


def test_padding_and_company_change_nothing(judge: Judge) -> None:
    alone = [judge.nll(padded(text))[0].item() for text in ("AB", "ABCDABCD")]
    together, counts = judge.nll(padded("AB", "ABCDABCD", extra=5))
    close(together, alone)
    assert counts.tolist() == [3, 9]


def test_loss_is_the_mean_over_scored_tokens(judge: Judge) -> None:
    total, count = judge.nll(padded("AB", "ABCDABCD"))
    loss = autoregressive_loss(judge, padded("AB", "ABCDABCD"), generator(0, "test"))
    assert loss.item() == near((total.sum() / count.sum()).item())


def test_loss_is_learnt() -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(hidden=16, layers=1, heads=2, context=20), VOCABULARY)
    optimiser = torch.optim.Adam(judge.parameters(), 1e-2)
    tokens = padded(*["ABCDABCD"] * 4)
    for _ in range(60):
        optimiser.zero_grad()
        autoregressive_loss(judge, tokens, generator(0, "test")).backward()
        optimiser.step()
    assert autoregressive_loss(judge, tokens, generator(0, "test")).item() < 0.1


def test_perplexity_is_exp_of_token_weighted_nll(judge: Judge) -> None:
    texts = ["AB", "DDDDDDDD", "ABC", "AB"]
    metric = JudgePerplexity(judge, encode)
    rows = metric.statistics([Sample(text) for text in texts])
    singles = [judge.nll(padded(text)) for text in texts]
    close(rows, [[n.item(), c.item()] for n, c in singles], dtype=torch.float32)
    expected = np.exp(sum(n.item() for n, _ in singles) / sum(c.item() for _, c in singles))
    assert metric.aggregate(rows.mean(0)) == near(expected)
    assert bootstrap(metric, rows).value == near(expected)


@dataclass(frozen=True)
class Uniform:
    """A judge without weights: every letter has the same probability."""

    context: int = 20

    def token_nll(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        nll = torch.full((tokens.shape[0], tokens.shape[1] - 1), math.log(4))
        return nll, torch.ones_like(nll)


def test_a_judge_need_not_be_a_network() -> None:
    metric = JudgePerplexity(Uniform(), encode)
    rows = metric.statistics([Sample("AB"), Sample("ABCD")])
    assert metric.aggregate(rows.mean(0)) == near(4.0)
    assert metric.identity == "" and metric.networks == ()


def test_perplexity_does_not_depend_on_order_or_budget(judge: Judge) -> None:
    samples = [Sample(text) for text in ("A", "ABCD", "DA", "CCCCCCC", "BB", "ABCDA")]
    whole = JudgePerplexity(judge, encode).statistics(samples)
    pieces = JudgePerplexity(judge, encode, token_budget=10).statistics(samples[::-1])[::-1]
    close(whole, pieces, dtype=torch.float32)


def test_nothing_is_scored_twice(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    own = judge.token_nll
    monkeypatch.setattr(judge, "token_nll", lambda tokens: (scored.append(len(tokens)), own(tokens))[1])
    metric = JudgePerplexity(judge, encode)
    metric.statistics([Sample("AB"), Sample("AB"), Sample("CD")])
    metric.statistics([Sample("CD"), Sample("DD")])
    assert sum(scored) == 3


def test_batches_follow_tokens_where_letters_mislead(judge: Judge) -> None:
    """A long text may be few tokens: batches go by what is encoded."""

    def runs(text: str) -> list[int]:
        return [BOS, *(LETTERS.index(a) for i, a in enumerate(text) if i == 0 or text[i - 1] != a), EOS]

    samples = [Sample("AAAAAAAAAAAA"), Sample("ABCD")]
    rows = JudgePerplexity(judge, runs).statistics(samples)
    assert rows[:, 1].tolist() == [2, 5]
    assert rows[0, 0] == near(judge.nll(padded("A"))[0].item())


def test_vocabulary_without_padding() -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(hidden=16, layers=1, heads=2, context=20), Vocabulary(size=6, bos=BOS, eos=EOS)).eval()
    rows = JudgePerplexity(judge, encode).statistics([Sample("A"), Sample("ABC"), Sample("D")])
    assert rows[:, 1].tolist() == [2, 4, 2]


def test_text_without_tokens_is_undefined(judge: Judge) -> None:
    rows = JudgePerplexity(judge, lambda text: encode(text)[1:-1]).statistics([Sample(""), Sample("ABC")])
    assert np.isnan(rows[0]).all() and rows[1, 1] == 2


def test_longer_than_the_context_is_an_error_that_names_the_sample(judge: Judge) -> None:
    with pytest.raises(InputError, match=r"'long' has 27 tokens.*context 20"):
        JudgePerplexity(judge, encode).statistics([Sample("A" * 25, id="long")])


def test_windows_score_every_token_once_with_the_context_there_is(judge: Judge) -> None:
    text = "ABCDABCDDCBAABCDBBCA" * 2
    (total, count), ids = JudgePerplexity(judge, encode, windows=True).statistics([Sample(text)])[0], encode(text)
    assert count == len(ids) - 1
    pieces = [ids[i : i + 20] for i in range(0, len(ids) - 1, 19)]
    assert total == near(sum(judge.nll(torch.tensor([piece]))[0].item() for piece in pieces if len(piece) > 1))
    short = "ABCD"
    whole, cut = (JudgePerplexity(judge, encode, windows=w).statistics([Sample(short)]) for w in (False, True))
    close(whole, cut, dtype=torch.float32)


def test_saved_and_loaded_judge_is_the_same(judge: Judge, tmp_path: Path) -> None:
    save_judge(tmp_path, judge, {"about": "a test"})
    loaded = load_judge(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded.nll(padded("ABCD"))[0], judge.nll(padded("ABCD"))[0])
    assert loaded.vocabulary == VOCABULARY
    assert loaded.network.lm_head.weight is loaded.network.transformer.wte.weight
    assert json.loads((tmp_path / "card.json").read_text())["about"] == "a test"


@pytest.mark.parametrize("damage", ["absent", "weights", "kind", "card"])
def test_damaged_judges_are_refused(judge: Judge, tmp_path: Path, damage: str) -> None:
    save_judge(tmp_path, judge)
    weights, card = tmp_path / "model.safetensors", tmp_path / "card.json"
    match = {"absent": "no card.json", "weights": "does not match", "kind": "not a judge", "card": "damaged"}[damage]
    if damage == "absent":
        card.unlink()
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes() + b"x")
    elif damage == "kind":
        card.write_text(json.dumps({**json.loads(card.read_text()), "kind": "denoiser"}))
    else:
        card.write_text("{")
    with pytest.raises(InputError, match=match):
        load_judge(tmp_path)
