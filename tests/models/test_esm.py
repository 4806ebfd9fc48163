"""The ESM trunk: transformers' logits on packed sequences, token dropout for hard and soft tokens, scorer and card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tolerance import close
from torch import Tensor
from transformers import EsmForMaskedLM

from didi_core.checkpoints.card import load_denoiser, load_scorer, save_model, save_scorer
from didi_core.errors import InputError
from didi_core.models.esm import RAGGED, Esm, EsmConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_protein.vocabulary import EOS, MASK, PAD, VOCABULARY

SIZES = EsmConfig(hidden=32, layers=3, heads=4, intermediate=48, attention="sdpa")


def random_esm(config: EsmConfig = SIZES) -> Esm:
    """Weights large enough that every part shows in the logits."""
    torch.manual_seed(0)
    model = Esm(config, VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model.eval()


def transformers_twin(model: Esm) -> EsmForMaskedLM:
    """transformers' own network with the same weights and its own attention."""
    settings = model.config.hugging_face(VOCABULARY)
    twin = EsmForMaskedLM._from_config(settings, attn_implementation="eager")
    told = twin.load_state_dict(model.state_dict(), strict=False)
    assert {name.split(".")[1] for name in told.missing_keys} <= {"contact_head"} and not told.unexpected_keys
    return twin.eval()


def batch(masked: float = 0.4) -> Tensor:
    """<cls> residues <eos>, four lengths, padded on the right, some residues masked."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.full((4, 25), PAD)
    for row, length in zip(tokens, (23, 17, 3, 9), strict=True):
        row[0], row[length + 1] = 0, EOS
        residues = torch.randint(4, 24, (length,), generator=generator)
        hidden = torch.rand(length, generator=generator) < masked
        row[1 : length + 1] = residues.masked_fill(hidden, MASK)
    return tokens


@pytest.mark.parametrize("masked", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("token_dropout", [True, False])
@torch.no_grad()
def test_logits_are_those_of_transformers(masked: float, token_dropout: bool) -> None:
    model = random_esm(EsmConfig(**{**vars(SIZES), "token_dropout": token_dropout}))
    tokens = batch(masked)
    real = tokens != PAD
    theirs = transformers_twin(model)(input_ids=tokens, attention_mask=real).logits
    close(model(tokens)[real], theirs[real])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_padding_and_company_never_change_logits(attention: str) -> None:
    model, tokens = random_esm(EsmConfig(**{**vars(SIZES), "attention": attention})), batch()
    together, wider = model(tokens), model(F.pad(tokens, (0, 7), value=PAD))
    for row, length in enumerate(VOCABULARY.lengths(tokens).tolist()):
        alone = model(tokens[row : row + 1, :length])[0]
        close(together[row, :length], alone)
        close(wider[row, :length], alone)
    assert not model.trunk(tokens)[tokens == PAD].any()


@torch.no_grad()
def test_transformers_own_forward_still_runs_under_our_attention() -> None:
    model, tokens = random_esm(), batch()
    assert model.esm.config._attn_implementation == RAGGED
    real = tokens != PAD
    theirs = model.esm(input_ids=tokens, attention_mask=real).last_hidden_state
    close(model.trunk(tokens)[real], theirs[real])


@torch.no_grad()
def test_sequence_without_a_visible_token_is_finite() -> None:
    """transformers divides zero by zero here."""
    assert torch.isfinite(random_esm()(torch.full((1, 4), MASK))).all()


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_one_hot_weights_are_the_tokens_themselves(autocast: bool) -> None:
    """Also where a mask is replaced: the soft token counts as visible in token dropout."""
    scorer, tokens = scorer_from_trunk(random_esm(), 1).eval(), batch()
    where = VOCABULARY.maskable(tokens) & (torch.rand(tokens.shape, generator=torch.Generator().manual_seed(5)) < 0.5)
    assert (tokens[where] == MASK).any() and (tokens[where] != MASK).any()
    hard = torch.randint(4, 24, (int(where.sum()),))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        soft = scorer.soft(tokens, where, F.one_hot(hard, VOCABULARY.size).float())
        assert torch.equal(soft, scorer(tokens.masked_scatter(where, hard)))
        nothing = scorer.soft(tokens, torch.zeros_like(where), torch.zeros(0, VOCABULARY.size))
        assert torch.equal(nothing, scorer(tokens))


def test_gradient_of_soft_tokens_is_the_slope_of_the_logits() -> None:
    """Along one direction; transformers rounds rotary angles to fp32, so the step is wide."""
    scorer, tokens = scorer_from_trunk(random_esm().double(), 1).double().eval(), batch()
    where, generator = tokens == MASK, torch.Generator().manual_seed(6)
    weights, direction = torch.rand(2, int(where.sum()), VOCABULARY.size, dtype=torch.float64, generator=generator)

    def total(step: float | Tensor) -> Tensor:
        return scorer.soft(tokens, where, weights + step * direction)[tokens != PAD].sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(step), step)
    with torch.no_grad():
        rise = (total(1e-3) - total(-1e-3)) / 2e-3
    torch.testing.assert_close(slope, rise, rtol=1e-3, atol=0)


@pytest.mark.parametrize("blocks", [1, 2])
def test_last_blocks_norms_and_scorer_head_learn_and_nothing_else(blocks: int) -> None:
    scorer = scorer_from_trunk(random_esm(), blocks)
    scorer(batch()).sum().backward()
    last = tuple(f"network.esm.encoder.layer.{i}." for i in range(3 - blocks, 3))
    for name, parameter in scorer.named_parameters():
        learns = name.startswith(("main.", *last)) or "LayerNorm" in name or "layer_norm" in name
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name
    assert not [name for name in scorer.state_dict() if "lm_head" in name]


def test_every_parameter_of_the_denoiser_learns() -> None:
    model = random_esm().train()
    model(batch()).square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_training_mode_adds_no_noise() -> None:
    model, tokens = random_esm(), batch()
    assert torch.equal(model.train()(tokens), model.eval()(tokens))


def test_embedding_and_vocabulary_head_stay_tied(tmp_path: Path) -> None:
    model = random_esm()
    save_model(tmp_path, model)
    for network in (model, load_denoiser(tmp_path)):
        assert network.lm_head.decoder.weight is network.esm.embeddings.word_embeddings.weight


@pytest.mark.parametrize("normed", [True, False])
@torch.no_grad()
def test_student_and_scorer_come_back_exactly(tmp_path: Path, normed: bool) -> None:
    model, tokens = random_esm(), batch()
    scorer = scorer_from_trunk(model, 1, normed).eval()
    assert normed == any("emb_layer_norm_after" in name for name in scorer.state_dict())
    card = save_model(tmp_path, model)
    save_scorer(tmp_path, scorer)
    assert card["architecture"] == "esm" and "attention" not in card["config"]
    assert torch.equal(load_denoiser(tmp_path)(tokens), model(tokens))
    again = load_scorer(tmp_path)
    assert again is not None and torch.equal(again(tokens), scorer(tokens))


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="model.heads=3 must divide model.hidden=32"):
        EsmConfig(hidden=32, heads=3)
    with pytest.raises(InputError, match="unknown attention backend 'flash'"):
        EsmConfig(attention="flash")
