"""A sampling call by call: it is the sampling of ``generate``, it stops with its reader, and every token has a text."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.errors import InputError
from didi_core.sampling.base import TracedSampler
from didi_core.sampling.catalogue import SAMPLERS
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.sampling.trace import NO_TEXT, spelled, trace
from didi_core.types import Denoiser
from didi_language import LanguageDomain
from didi_toy import ToyDomain

DOMAIN = ToyDomain()
TEMPLATES = DOMAIN.template([12] * 3).tolist()
TRACED = [name for name, kind in SAMPLERS.items() if isinstance(kind(), TracedSampler)]


class Counting(Denoiser):
    """The chain itself, with the number of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = DOMAIN.teacher("exact"), 0
        self.vocabulary = self.inner.vocabulary

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        self.calls += 1
        return self.inner.trunk(tokens)

    def head(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        return self.inner.head(hidden)


@pytest.mark.parametrize("name", TRACED)
def test_its_end_is_what_generate_writes(name: str) -> None:
    settings = SamplerSettings(name, steps=5)
    *_, last = trace(DOMAIN, DOMAIN.teacher("exact"), settings, TEMPLATES, seed=7)
    made = generate(DOMAIN, DOMAIN.teacher("exact"), settings=settings, num=3, templates=TEMPLATES, seed=7)
    assert [sample.tokens for sample in made.samples] == list(last.rows)
    assert last.call == made.nfe.denoiser


def test_a_state_differs_from_the_one_before_only_where_a_mask_was() -> None:
    settings, mask = SamplerSettings(steps=4, law="stratified"), DOMAIN.vocabulary.mask
    pinned = [[3, *row[1:]] for row in TEMPLATES]
    before, *others = trace(DOMAIN, DOMAIN.teacher("exact"), settings, pinned)
    assert before.call == 0 and [list(row) for row in before.rows] == pinned
    assert [state.call for state in others] == [1, 2, 3, 4]
    left = [sum(token == mask for row in state.rows for token in row) for state in (before, *others)]
    assert left == sorted(left, reverse=True) and left[-1] == 0 and len(set(left)) == 5
    for state in others:
        pairs = [pair for old, new in zip(before.rows, state.rows, strict=True) for pair in zip(old, new, strict=True)]
        assert all(old in (mask, new) for old, new in pairs)
        before = state


def test_nothing_is_sampled_before_it_is_asked_for_and_nothing_after() -> None:
    network = Counting()
    states = trace(DOMAIN, network, SamplerSettings(steps=6, law="stratified"), TEMPLATES)
    next(states)
    assert network.calls == 0
    next(states)
    assert network.calls == 1
    states.close()  # type: ignore[attr-defined]
    assert network.calls == 1 and next(states, None) is None


def test_a_reader_may_train_between_two_calls() -> None:
    """The sampling runs without gradients, and leaves them enabled for whoever reads it."""
    for _ in trace(DOMAIN, DOMAIN.teacher("exact"), SamplerSettings(steps=2), TEMPLATES):
        assert torch.is_grad_enabled()


def test_a_sampler_that_cannot_be_watched_is_refused() -> None:
    assert {"ancestral", "first_hitting", "p2"} == set(TRACED)
    with pytest.raises(InputError, match="sampler=dplm cannot be watched"):
        next(trace(DOMAIN, DOMAIN.teacher("exact"), SamplerSettings("dplm"), TEMPLATES))


def test_letters_masks_and_the_frame_have_their_texts() -> None:
    template = DOMAIN.template([3, 2])[1].tolist()
    assert spelled(DOMAIN, [0, template[0], *template[2:]]) == ["a", None, ""]


def test_texts_of_tokens_make_the_text_also_where_a_letter_is_several_tokens() -> None:
    domain = LanguageDomain()
    ids = domain.encode("naïve → 日本語, 🙂!")
    texts = spelled(domain, ids)
    assert "".join(text or "" for text in texts) == "naïve → 日本語, 🙂!"
    assert len(texts) == len(ids)
    mask, end = domain.vocabulary.mask, domain.tokenizer.end
    state = [end, mask, *domain.tokenizer.ids("a"), end, mask, end]
    assert spelled(domain, state) == ["", None, "a", NO_TEXT, None, ""]
