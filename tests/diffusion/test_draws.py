"""A draw of one token has the law of its logits, whatever way the number of tokens chooses."""

from __future__ import annotations

import pytest
import torch
from tolerance import close
from torch import Tensor

from didi_core.diffusion import blocks, heads
from didi_core.diffusion.draws import INVERTED, SEGMENT, draw, invert
from didi_core.diffusion.masking import log_p_x0
from didi_core.streams import generator
from didi_core.types import Vocabulary

LARGE = INVERTED + 5  # and its last segment is not a whole one
LEAST = 1e-4  # p-value of a chi-square test


def dyadic(size: int, grid: int) -> Tensor:
    """Probabilities that are whole numbers of 1 / grid, most of them zero, some larger than a segment of others."""
    counts = torch.bincount((torch.rand(grid, generator=generator(0, "cells")).square() * size).long(), minlength=size)
    counts[size // 2] += counts[: size // 4].sum()
    counts[: size // 4] = 0
    return counts


@pytest.mark.parametrize("size", [3, SEGMENT, SEGMENT + 1, LARGE])
def test_every_uniform_of_a_grid_once_gives_every_token_as_often_as_its_probability_says(size: int) -> None:
    grid = 1 << 12
    counts = dyadic(size, grid)
    uniforms = torch.arange(grid, dtype=torch.float64) / grid
    found = invert(counts.log().expand(grid, -1), uniforms + 0.5 / grid)  # cell middles: no rounding decides
    assert torch.equal(torch.bincount(found, minlength=size), counts)
    assert (found.diff() >= 0).all()


def test_no_uniform_reaches_a_token_without_mass() -> None:
    logits = torch.full((2, LARGE), -torch.inf)
    logits[:, [SEGMENT - 1, SEGMENT, 9 * SEGMENT + 7]] = torch.tensor([0.0, -20.0, -30.0])
    found = invert(logits, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64))
    assert found.tolist() == [SEGMENT - 1, 9 * SEGMENT + 7]
    assert invert(logits[:0], torch.zeros(0, dtype=torch.float64)).tolist() == []


def test_rows_of_different_logits_keep_to_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, uniforms = torch.randn(7, LARGE, generator=generator(1, "x")), torch.rand(7, dtype=torch.float64)
    one_by_one = torch.cat([invert(logits[i : i + 1], uniforms[i : i + 1]) for i in range(7)])
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 3 * LARGE)
    assert torch.equal(invert(logits, uniforms), one_by_one)
    inside = torch.softmax(logits.double(), -1).cumsum(-1).gather(1, one_by_one[:, None]).squeeze(1)
    assert (inside - uniforms > -1e-6).all()


@pytest.mark.parametrize("tail", [2000, LARGE])
def test_rare_tokens_are_drawn_as_often_as_they_should(tail: int) -> None:
    """One token of probability 1 - 1e-3 and a tail that shares the rest: 20 draws of 20,000."""
    probabilities = torch.cat([torch.tensor([1 - 1e-3]), torch.full((tail,), 1e-3 / tail)])
    stream = generator(0, "rare")
    rare = torch.cat([draw(probabilities.log().expand(4000, -1), stream) for _ in range(5)])
    assert abs(int((rare > 0).sum()) - 20) < 4 * 20**0.5
    assert len(set(rare[rare > 0].tolist())) > 5


class Bias(torch.nn.Module):
    """Logits that only depend on the position's hidden number."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.logits = torch.randn(vocabulary.size + 1, generator=generator(2, "logits")) * 3

    def head(self, hidden: Tensor) -> Tensor:
        return self.logits.expand(len(hidden), -1)


@pytest.mark.parametrize("rule", [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"bias": True}])
def test_tokens_of_a_large_vocabulary_follow_the_rule(rule: dict[str, float]) -> None:
    model = Bias(Vocabulary(LARGE, pad=0, forbidden=(3, 5)))
    bias = torch.randn(LARGE, generator=generator(3, "bias")) if "bias" in rule else None
    asked = {**rule, "bias": bias}
    hidden, stream = torch.zeros(1000, 1), generator(4, "draws")
    drawn = torch.cat([heads.draw_tokens(model, hidden, stream, **asked) for _ in range(4)])  # type: ignore[arg-type]
    raw = model.logits[None, :LARGE] if bias is None else model.logits[None, :LARGE] + bias
    p = heads.sharpen(log_p_x0(raw, model.vocabulary), rule.get("temperature", 1.0), rule.get("top_p", 1.0)).exp()[0]
    assert (p[drawn] > 0).all()
    group = torch.randint(20, (LARGE,), generator=generator(5, "groups"))
    expected = torch.zeros(20, dtype=torch.float64).index_add(0, group, p.double()) * len(drawn)
    seen = torch.bincount(group[drawn], minlength=20).double()
    close(expected.sum(), torch.tensor(float(len(drawn))), dtype=torch.float32)
    statistic = ((seen - expected).square() / expected).sum()
    assert torch.special.gammaincc(torch.tensor(9.5), statistic.float() / 2) > LEAST


@pytest.mark.parametrize("rows", [1, 3])
def test_how_many_rows_are_drawn_at_once_does_not_change_what_is_drawn(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, hidden = Bias(Vocabulary(LARGE)), torch.zeros(7, 1)
    whole = heads.draw_tokens(model, hidden, generator(0))  # type: ignore[arg-type]
    for limit in ("CHUNK_ELEMENTS", "CLOSED_ELEMENTS"):
        monkeypatch.setattr(heads, limit, LARGE)
    monkeypatch.setattr(heads, "device_elements", lambda _: rows * LARGE)
    assert torch.equal(heads.draw_tokens(model, hidden, generator(0)), whole)  # type: ignore[arg-type]
    assert len(set(whole.tolist())) > 1
