"""The scorer: soft tokens are tokens, only what should learn learns, and the head is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tolerance import close
from torch import Tensor

from didi_core.checkpoints.card import load_scorer, save_model, save_scorer
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.scorer import TokenScorer, scorer_from_trunk
from didi_core.streams import seeded
from didi_core.types import Vocabulary

VOCABULARY = Vocabulary(11, pad=0, bos=1, eos=2)
MASK = VOCABULARY.mask


def teacher_of(layers: int = 3) -> DiT:
    """A small network whose gates are open, so that every block shows in the logits."""
    torch.manual_seed(0)
    model = DiT(DiTConfig(hidden=24, layers=layers, heads=2, conditioning=16), VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model


def batch() -> tuple[Tensor, Tensor]:
    """Two sequences of different length, and where they are soft."""
    tokens = torch.tensor([[1, 4, 5, MASK, 7, 2], [1, 8, MASK, 2, 0, 0]])
    return tokens, torch.tensor([[0, 1, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]]).bool()


def weights_like(count: int) -> Tensor:
    return torch.softmax(torch.randn(count, 11, generator=torch.Generator().manual_seed(1)), -1)


@pytest.mark.parametrize("autocast", [False, True])
def test_one_hot_weights_are_the_tokens_themselves(autocast: bool) -> None:
    scorer = scorer_from_trunk(teacher_of(), 1).eval()
    tokens, where = batch()
    hard = torch.tensor([3, 9, 10, 4])
    filled = tokens.masked_scatter(where, hard)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(scorer.soft(tokens, where, F.one_hot(hard, 11).float()), scorer(filled))
        assert torch.equal(scorer.soft(tokens, torch.zeros_like(where), torch.zeros(0, 11)), scorer(tokens))


def test_gradient_of_soft_tokens_is_the_slope_of_the_logits() -> None:
    teacher = teacher_of().double()
    scorer = scorer_from_trunk(teacher, 1).double().eval()
    tokens, where = batch()
    weights = weights_like(4).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda w: scorer.soft(tokens, where, w)[tokens != 0], weights, atol=1e-6)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_last_blocks_norms_and_head_learn_and_nothing_else(blocks: int) -> None:
    scorer = scorer_from_trunk(teacher_of(), blocks)
    scorer(batch()[0]).sum().backward()
    last = tuple(f"network.blocks.{i}." for i in range(3 - blocks, 3))
    for name, parameter in scorer.named_parameters():
        learns = name.startswith(("main.", *last)) or "norm" in name
        assert parameter.requires_grad == (parameter.grad is not None) == learns, name


def test_zero_blocks_means_the_whole_trunk_learns() -> None:
    assert all(parameter.requires_grad for parameter in scorer_from_trunk(teacher_of(), 0).parameters())


def test_a_negative_number_of_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="trainable_blocks=-1 is out of range"):
        scorer_from_trunk(teacher_of(), -1)


def test_teacher_is_copied_and_its_vocabulary_head_left_behind() -> None:
    teacher = teacher_of()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    scorer = scorer_from_trunk(teacher, 2)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert not [name for name in scorer.state_dict() if "output_layer.linear" in name]


def test_padding_and_company_never_change_logits() -> None:
    scorer, (tokens, _) = scorer_from_trunk(teacher_of(), 1).eval(), batch()
    together, wider = scorer(tokens), scorer(F.pad(tokens, (0, 5), value=0))
    for row, length in enumerate((6, 4)):
        alone = scorer(tokens[row : row + 1, :length])[0]
        close(together[row, :length], alone)
        close(wider[row, :length], alone)


def test_spectral_norms_become_one_and_stay_put_in_eval_mode() -> None:
    scorer, (tokens, _) = scorer_from_trunk(teacher_of(), 1).train(), batch()
    with torch.no_grad():
        for _ in range(100):
            scorer(tokens)
        scorer.eval()
        first, second = scorer(tokens), scorer(tokens)
    assert torch.equal(first, second)
    for layer in (scorer.main[0], scorer.main[2]):
        torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2).item(), 1.0, rtol=1e-3, atol=0)


def test_head_changes_no_faster_than_its_bound() -> None:
    """Two linear maps of norm one around SiLU, whose slope is at most 1.1."""
    scorer = scorer_from_trunk(teacher_of(), 1).train()
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(500, 24, generator=generator) * 3 for _ in range(2))
    with torch.no_grad():
        for _ in range(100):
            scorer.main(a)
        slope = (scorer.eval().main(a) - scorer.main(b)).abs().squeeze(1) / (a - b).norm(dim=1)
    assert slope.max() < 1.1 * 1.002


def test_seed_decides_the_head_and_leaves_the_global_state_alone() -> None:
    teacher = teacher_of()
    before = torch.get_rng_state()
    made = []
    for seed in (3, 3, 4):
        with seeded(seed, "scorer"):
            made.append(scorer_from_trunk(teacher, 1).state_dict())
    first, again, other = made
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "main.0.parametrizations.weight.original"
    assert not torch.equal(first[name], other[name])


def test_safetensors_round_trip(tmp_path: Path) -> None:
    scorer, (tokens, _) = scorer_from_trunk(teacher_of(), 1), batch()
    scorer(tokens).sum().backward()  # one power iteration, kept in the buffers
    save_file(scorer.state_dict(), tmp_path / "scorer.safetensors")
    other: TokenScorer = scorer_from_trunk(teacher_of(), 1)
    other.load_state_dict(load_file(tmp_path / "scorer.safetensors"), strict=True)
    assert torch.equal(scorer.eval()(tokens), other.eval()(tokens))


def test_training_step_under_bf16_autocast() -> None:
    scorer, (tokens, _) = scorer_from_trunk(teacher_of(), 1).train(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        logits = scorer(tokens)
    logits.square().sum().backward()
    assert logits.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in scorer.parameters() if p.grad is not None)


def test_a_bare_head_reads_the_trunk_without_its_norm(tmp_path: Path) -> None:
    model = teacher_of().eval()
    scorer = scorer_from_trunk(model, 1, normed=False).eval()
    tokens = torch.tensor([[1, 5, MASK, 7, 2], [1, MASK, 2, 0, 0]])
    expected = scorer.main(model.trunk(tokens)).squeeze(-1)
    close(scorer(tokens), expected)
    assert not any("output_layer" in name for name in scorer.state_dict())
    save_model(tmp_path, model)
    save_scorer(tmp_path, scorer)
    loaded = load_scorer(tmp_path)
    assert loaded is not None and torch.equal(loaded(tokens), scorer(tokens))
