"""Large teachers from folders in their layouts: transformers' logits, key by key, in place; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from large_files import BLOCK, IN_BLOCKS, KINDS, LAYERS, MASK_ROW, ROWS, VOCABULARY, folder, tensors, twin
from safetensors.torch import load_file, save_file
from tolerance import close
from torch import Tensor

from didi_core.checkpoints.card import load_denoiser, load_scorer, save_model, save_scorer
from didi_core.checkpoints.importers import import_checkpoint
from didi_core.checkpoints.importers.llama import FAMILIES, sizes_of
from didi_core.checkpoints.importers.sources import Held
from didi_core.diffusion.masking import log_p_x0
from didi_core.errors import InputError
from didi_core.models.llama import Llama, LlamaConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_core.sampling.generate import SamplerSettings, order_advice, sample_request
from didi_core.types import Vocabulary

EVERY = pytest.mark.parametrize("kind", KINDS)


def states() -> Tensor:
    """Two sequences of tokens with masks, the mask as the process has it: the row after the last token."""
    made = torch.randint(0, 30, (2, 11), generator=torch.Generator().manual_seed(1))
    made[0, 3:7] = made[1, [1, 8, 10]] = VOCABULARY.mask
    return made


def expected(kind: str, tokens: Tensor, tied: bool = False) -> Tensor:
    """What the authors' code computes, by transformers' network of the base model and an explicit mask."""
    rows = torch.where(tokens == VOCABULARY.mask, MASK_ROW, tokens)
    length = tokens.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool)
    if kind in IN_BLOCKS:
        number = torch.arange(length) // BLOCK
        seen = number[:, None] >= number[None, :]
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min).expand(len(tokens), 1, length, length)
    with torch.no_grad():
        logits: Tensor = twin(kind, tied)(input_ids=rows, attention_mask=mask).logits
    return torch.cat([logits[:, :1], logits[:, :-1]], dim=1) if kind == "dream" else logits


def load(path: Path, vocabulary: Vocabulary = VOCABULARY) -> Llama:
    made = import_checkpoint(str(path), vocabulary, key="teacher").denoiser
    assert isinstance(made, Llama)
    return made


@EVERY
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_logits_are_those_of_transformers(kind: str, tied: bool, shards: int, tmp_path: Path) -> None:
    model = load(folder(tmp_path, kind, tied=tied, shards=shards))
    with torch.no_grad():
        close(model(states()), expected(kind, states(), tied))
    assert not model.training and model.vocabulary == VOCABULARY


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_of_a_batch_do_not_meet(attention: str, tmp_path: Path) -> None:
    model = load(folder(tmp_path, "sdar", config={"block_size": 3}))
    model.config = LlamaConfig(**{**vars(model.config), "attention": attention})
    with torch.no_grad():
        close(model(states())[1:], model(states()[1:]))


def test_a_state_of_dream_writes_the_next_position(tmp_path: Path) -> None:
    model, tokens = load(folder(tmp_path, "dream")), states()
    with torch.no_grad():
        hidden = model.trunk(tokens)
        model.config = LlamaConfig(**{**vars(model.config), "shifted": False})
        plain = model.trunk(tokens)
    assert torch.equal(hidden[:, 1:], plain[:, :-1]) and torch.equal(hidden[:, 0], plain[:, 0])


@pytest.mark.parametrize("kind", IN_BLOCKS)
@pytest.mark.parametrize("at", range(11))
def test_later_blocks_do_not_change_earlier_logits(kind: str, at: int, tmp_path: Path) -> None:
    model, tokens = load(folder(tmp_path, kind)), states()
    other = tokens.clone()
    other[:, at] = (tokens[:, at] + 1) % 30
    with torch.no_grad():
        moved = (model(tokens) - model(other)).abs().amax(dim=(0, 2)) > 1e-6
    first = at // BLOCK * BLOCK
    assert moved.tolist() == [False] * first + [True] * (11 - first)


@EVERY
def test_weights_stay_where_the_file_has_them_in_their_type(kind: str, tmp_path: Path) -> None:
    path = folder(tmp_path, kind, dtype=torch.bfloat16)
    model = load(path)
    size = sum(value.nbytes for value in model.state_dict().values())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert size == sum(value.nbytes for value in load_file(path / "model.safetensors").values())
    assert {name for name, _ in model.named_buffers()} <= model.state_dict().keys()
    logits = model(states())
    assert logits.dtype == torch.bfloat16 and bool((logits.float() - expected(kind, states())).abs().mean() < 0.05)


def test_nothing_is_copied_on_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, int] = {}

    def watched(path: Path) -> dict[str, Tensor]:
        found = load_file(path)
        read.update({name: value.data_ptr() for name, value in found.items()})
        return found

    monkeypatch.setattr("didi_core.checkpoints.importers.sources.load_file", watched)
    model = load(folder(tmp_path, "dream", shards=2, dtype=torch.bfloat16))
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == read


@EVERY
def test_a_tensor_too_few_or_too_many_is_named(kind: str, tmp_path: Path) -> None:
    whole = tensors(kind, twin(kind))
    for i, name in enumerate(whole):
        path = folder(tmp_path / str(i), kind, state={n: v for n, v in whole.items() if n != name})
        with pytest.raises(InputError, match=f"missing tensors {name.replace('.', '[.]')}"):
            load(path)
    extra = folder(tmp_path / "extra", kind, state={**whole, "model.more.weight": torch.zeros(2)})
    with pytest.raises(InputError, match="unexpected tensors model.more.weight"):
        load(extra)


@EVERY
def test_another_shape_type_or_value_is_refused(kind: str, tmp_path: Path) -> None:
    whole = tensors(kind, twin(kind))
    name = next(n for n in whole if "q_proj.weight" in n or "query_key_value" in n)
    wrong = {
        "has shape": torch.zeros(3, HEIGHT),
        "quantised": whole[name].to(torch.float8_e4m3fn),
        "nan or inf": whole[name] * torch.nan,
    }
    for number, (reason, value) in enumerate(wrong.items()):
        path = folder(tmp_path / str(number), kind, state={})
        save_file({**{n: v.contiguous() for n, v in whole.items()}, name: value}, path / "model.safetensors")
        with pytest.raises(InputError, match=reason):
            load(path)


HEIGHT = 32
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llada", {"mask_token_id": 20}, "the model's mask is token 20"),
    ("dream", {"mask_token_id": 20}, "that of the domain's tokenizer is token 33"),
    ("sdar", {"mask_token_id": ROWS}, "mask_row=40 is outside"),
    ("llada", {"d_model": None}, "does not have d_model"),
    ("dream", {"num_hidden_layers": None}, "does not have num_hidden_layers"),
    ("dream", {"num_hidden_layers": 10**6}, "1,000,000 layers"),
    ("sdar", {"hidden_size": "wide"}, "hidden_size=wide; a number is needed"),
    ("llada", {"block_type": "sequential"}, "only block_type=llama"),
    ("llada", {"alibi": True}, "only alibi=False"),
    ("llada", {"multi_query_attention": True}, "only multi_query_attention=False"),
    ("dream", {"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
    ("dream", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type=yarn"),
    ("sdar", {"attention_bias": True}, "only attention_bias=False"),
    ("sdar", {"block_size": -1}, "block=-1 is out of range"),
    ("dream", {"num_key_value_heads": 3}, "not a multiple of kv_heads=3"),
]


@pytest.mark.parametrize(("kind", "config", "reason"), REFUSED, ids=lambda x: str(x)[:40])
def test_other_configurations_are_refused(kind: str, config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        load(folder(tmp_path, kind, config=config))


@pytest.mark.parametrize(
    ("vocabulary", "reason"),
    [
        (Vocabulary(36, own_mask=5), "that of the domain's tokenizer is token 5"),
        (Vocabulary(36), "an ordinary token"),
        (Vocabulary(50257), "50257 tokens: it is that of another model"),
    ],
)
def test_a_tokenizer_of_another_mask_is_refused(vocabulary: Vocabulary, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        load(folder(tmp_path, "llada"), vocabulary)


def test_a_tokenizer_without_a_mask_of_its_own_is_taken(tmp_path: Path) -> None:
    for vocabulary in (Vocabulary(36, forbidden=(MASK_ROW,)), Vocabulary(MASK_ROW)):
        assert load(folder(tmp_path, "llada"), vocabulary).config.mask_row == MASK_ROW


def test_an_untied_head_in_a_tied_file_is_refused(tmp_path: Path) -> None:
    whole = tensors("dream", twin("dream"))
    with pytest.raises(InputError, match="ties lm_head.weight to model.embed_tokens.weight"):
        load(folder(tmp_path, "dream", state=whole, tied=True))
    same = {**whole, "lm_head.weight": whole["model.embed_tokens.weight"].clone()}
    found = import_checkpoint(str(folder(tmp_path, "dream", state=same, tied=True)), VOCABULARY)
    assert list(found.ignored) == ["lm_head.weight"]


@EVERY
def test_the_mask_and_rows_of_no_token_are_never_drawn(kind: str, tmp_path: Path) -> None:
    model = load(folder(tmp_path, kind))
    assert MASK_ROW not in model.vocabulary.generated and model.vocabulary.mask == 36
    assert model(states()).shape[-1] == ROWS >= model.vocabulary.size


@EVERY
def test_a_saved_network_and_its_scorer_come_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    model = load(folder(tmp_path / "hub", kind, dtype=torch.bfloat16))
    scorer = scorer_from_trunk(model.float(), trainable_blocks=1).eval()
    save_model(tmp_path / "ours", model.bfloat16())
    save_scorer(tmp_path / "ours", scorer)
    again, guide = load_denoiser(tmp_path / "ours"), load_scorer(tmp_path / "ours")
    assert guide is not None and again.state_dict().keys() == model.state_dict().keys()
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert torch.equal(again(states()), model(states()))
        assert torch.equal(guide(states()), scorer(states()))


@EVERY
def test_one_hot_soft_tokens_are_tokens_and_a_scorer_reads_its_own_position(kind: str, tmp_path: Path) -> None:
    scorer = scorer_from_trunk(load(folder(tmp_path, kind))).eval()
    tokens = torch.randint(0, 30, (2, 9), generator=torch.Generator().manual_seed(2))
    where = torch.zeros(2, 9, dtype=torch.bool)
    where[:, 2:5] = True
    weights = torch.nn.functional.one_hot(tokens[where], VOCABULARY.size).float()
    assert not scorer.network.config.shifted  # type: ignore[union-attr]
    with torch.no_grad():
        close(scorer.soft(torch.where(where, VOCABULARY.mask, tokens), where, weights), scorer(tokens))


def parameters(config: dict[str, Any], family: str) -> int:
    """The parameters of a published model, by its configuration alone."""
    vocabulary = Vocabulary(config["mask_token_id"])
    sizes = sizes_of(Held("x", Path("x"), {}, config=config), FAMILIES[family], vocabulary, "x")
    with torch.device("meta"):
        return sum(p.numel() for p in Llama(sizes, vocabulary).parameters())


def test_published_models_have_their_numbers_of_parameters() -> None:
    sizes: dict[str, Any] = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32}
    sizes |= {"mlp_hidden_size": 12288, "embedding_size": 126464, "vocab_size": 126464, "mask_token_id": 126336}
    assert parameters({**KINDS["llada"], **sizes}, "llada") == 8_015_581_184
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    sizes |= {"num_key_value_heads": 4, "vocab_size": 152064, "mask_token_id": 151666}
    assert parameters({**KINDS["dream"], **sizes}, "Dream") == 7_615_616_512
    sizes = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
    sizes |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "mask_token_id": 151669}
    assert 2 * parameters({**KINDS["sdar"], **sizes}, "sdar") == 16_381_470_720  # total_size of its index


def test_layers_are_as_many_as_the_configuration_says(tmp_path: Path) -> None:
    path = folder(tmp_path, "llada")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "n_layers": LAYERS - 1}))
    with pytest.raises(InputError, match="unexpected tensors model.transformer.blocks.1"):
        load(path)


@pytest.mark.parametrize(
    ("law", "fits"),
    [
        ("iid", False),
        ({"kind": "blocks", "size": 4}, True),
        ({"kind": "blocks", "size": 2}, True),
        ({"kind": "blocks", "size": 8}, False),
        ({"kind": "threshold", "block": 4}, True),
        ({"kind": "threshold"}, False),
        ({"kind": "entropy_bound", "block": 4}, True),
    ],
)
def test_another_order_than_the_blocks_of_sdar_is_advised_against(law: Any, fits: bool, tmp_path: Path) -> None:
    model, settings = load(folder(tmp_path / "sdar", "sdar")), SamplerSettings(law=law)
    assert (order_advice(model, settings) == "") is fits
    assert order_advice(load(folder(tmp_path / "llada", "llada")), settings) == ""


def surest(model: Llama, row: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
    """The likeliest token at each of these places, and its probability."""
    with torch.no_grad():
        log_p = log_p_x0(model(row[None])[0, places], VOCABULARY)
    return log_p.argmax(-1), log_p.amax(-1).exp()


def by_threshold(model: Llama, row: Tensor, probability: float, block: int) -> Tensor:
    """The published loop (SDAR's ``low_confidence_dynamic``, Fast-dLLM) with the whole sequence in every call."""
    for start in range(0, len(row), block):
        while places := [i for i in range(start, min(start + block, len(row))) if row[i] == VOCABULARY.mask]:
            tokens, sure = surest(model, row, places)
            kept = sure >= probability if bool((sure >= probability).any()) else sure == sure.max()
            row[[i for i, keep in zip(places, kept.tolist(), strict=True) if keep]] = tokens[kept]
    return row


def by_blocks(model: Llama, row: Tensor, block: int, each: int) -> Tensor:
    """LLaDA's loop: from left to right in blocks, in each call the ``each`` surest tokens of the block."""
    for start in range(0, len(row), block):
        while places := [i for i in range(start, start + block) if row[i] == VOCABULARY.mask]:
            tokens, sure = surest(model, row, places)
            best = sure.argsort(descending=True)[:each]
            row[[places[i] for i in best.tolist()]] = tokens[best]
    return row


@EVERY
@pytest.mark.parametrize("probability", [0.3, 0.9])
def test_the_law_threshold_decodes_as_published(kind: str, probability: float, tmp_path: Path) -> None:
    model = load(folder(tmp_path, kind))
    template = torch.full((3, 12), VOCABULARY.mask)
    template[:, :5] = torch.randint(0, 30, (3, 5), generator=torch.Generator().manual_seed(4))
    settings = SamplerSettings(law={"kind": "threshold", "probability": probability, "block": 4}, temperature=1e-4)
    made = settings.make().sample(sample_request(model, None, template, settings, torch.Generator())).tokens
    assert torch.equal(made, torch.stack([by_threshold(model, row.clone(), probability, 4) for row in template]))


@EVERY
def test_the_law_blocks_decodes_as_published(kind: str, tmp_path: Path) -> None:
    model = load(folder(tmp_path, kind))
    template = torch.full((3, 12), VOCABULARY.mask)
    template[:, :4] = torch.randint(0, 30, (3, 4), generator=torch.Generator().manual_seed(5))
    law = {"kind": "blocks", "size": 4, "inside": "confidence"}
    settings = SamplerSettings(steps=4, law=law, temperature=1e-4)
    made = settings.make().sample(sample_request(model, None, template, settings, torch.Generator())).tokens
    assert torch.equal(made, torch.stack([by_blocks(model, row.clone(), 4, 2) for row in template]))
