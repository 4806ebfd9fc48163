"""The mask of what may be generated: made once a device, and left out where nothing is forbidden."""

from __future__ import annotations

import dataclasses
import pickle

import torch

from didi_core.diffusion.masking import log_p_x0
from didi_core.types import Vocabulary

GUARDED = Vocabulary(7, pad=0, forbidden=(5,))


def test_the_mask_of_allowed_ids_is_made_once_a_device() -> None:
    vocabulary = dataclasses.replace(GUARDED)
    first = vocabulary.allowed()
    assert first.tolist() == [False, True, True, True, True, False, True]
    assert vocabulary.allowed(torch.device("cpu")) is first
    assert vocabulary.allowed("meta").is_meta
    assert vocabulary == GUARDED and hash(vocabulary) == hash(GUARDED)
    assert pickle.loads(pickle.dumps(vocabulary)) == GUARDED


def test_the_mask_may_first_be_asked_for_in_inference_mode() -> None:
    vocabulary, logits = dataclasses.replace(GUARDED), torch.randn(2, 8, requires_grad=True)
    with torch.inference_mode():
        log_p_x0(logits, vocabulary)
    log_p_x0(logits, vocabulary)[:, 1].sum().backward()
    assert logits.grad is not None and logits.grad[:, 1].abs().min() > 0


def test_subs_is_to_the_bit_what_a_mask_of_all_ids_gives() -> None:
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    for vocabulary in (GUARDED, Vocabulary(8)):
        allowed = torch.zeros(vocabulary.size, dtype=torch.bool)
        allowed[list(vocabulary.generated)] = True
        plain = torch.log_softmax(logits[:, : vocabulary.size].masked_fill(~allowed, -torch.inf), dim=-1)
        assert torch.equal(log_p_x0(logits, vocabulary), plain)
