"""The DiT against an independent implementation, its parameter names against MDLM's, and padding against nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tolerance import close

from didi_core.diffusion import heads
from didi_core.diffusion.walk import Trunk
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.types import Vocabulary

VOCABULARY = Vocabulary(11, pad=0, bos=1, eos=2)
CONFIG = DiTConfig(hidden=24, layers=3, heads=2, conditioning=16)


def randomised(config: DiTConfig = CONFIG, vocabulary: Vocabulary = VOCABULARY, seed: int = 0) -> DiT:
    """A network in which nothing is zero or one, so that every parameter shows in the logits."""
    torch.manual_seed(seed)
    model = DiT(config, vocabulary)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def tokens_of(lengths: list[int], width: int, seed: int = 0) -> torch.Tensor:
    """Random tokens (the mask among them, padding not), padded on the right with id 0."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 12, (len(lengths), width), generator=generator)
    return tokens.masked_fill(torch.arange(width) >= torch.tensor(lengths)[:, None], 0)


def reference(state: dict[str, torch.Tensor], tokens: torch.Tensor, config: DiTConfig) -> torch.Tensor:
    """Logits [L, V+1] of one sequence [L], written from the layout's description, one head and one step at a time."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        out = x @ state[f"{name}.weight"].T
        return out + state[f"{name}.bias"] if f"{name}.bias" in state else out

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(len(tokens))[:, None] * state["rotary_emb.inv_freq"].to(x.dtype)
        angles = torch.cat([angles, angles], -1)
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    waves = torch.cat([torch.ones(128), torch.zeros(128)]).to(state["vocab_embed.embedding"])  # cos 0, then sin 0
    c = F.silu(linear(F.silu(linear(waves, "sigma_map.mlp.0")), "sigma_map.mlp.2"))
    x = state["vocab_embed.embedding"][tokens]
    for i in range(config.layers):
        block = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(c, f"{block}.adaLN_modulation").chunk(6)
        qkv = linear(norm(x, f"{block}.norm1") * (1 + scale1) + shift1, f"{block}.attn_qkv")
        heads = []
        for head in range(config.heads):
            size = config.hidden // config.heads
            q, k, v = (qkv[:, part * config.hidden + head * size :][:, :size] for part in range(3))
            heads.append(torch.softmax(rotate(q) @ rotate(k).T / math.sqrt(size), -1) @ v)
        x = x + gate1 * linear(torch.cat(heads, -1), f"{block}.attn_out")
        inner = F.gelu(linear(norm(x, f"{block}.norm2") * (1 + scale2) + shift2, f"{block}.mlp.0"), approximate="tanh")
        x = x + gate2 * linear(inner, f"{block}.mlp.2")
    shift, scale = linear(c, "output_layer.adaLN_modulation").chunk(2)
    return linear(norm(x, "output_layer.norm_final") * (1 + scale) + shift, "output_layer.linear")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_equal_an_independent_implementation(attention: str) -> None:
    config = DiTConfig(hidden=24, layers=3, heads=2, conditioning=16, attention=attention)
    model = randomised(config).double().requires_grad_(False)
    lengths = [7, 1, 12, 0, 5]
    tokens = tokens_of(lengths, 15)
    logits, state = model(tokens), model.state_dict()
    for row, length in enumerate(lengths):
        expected = reference(state, tokens[row, :length], config)
        close(logits[row, :length], expected)


def test_gradients_equal_an_independent_implementation() -> None:
    model = randomised().double()
    lengths = [7, 12, 5]
    tokens = tokens_of(lengths, 12)
    real = tokens != 0
    model(tokens)[real].sin().sum().backward()
    state = {name: value.detach().requires_grad_(True) for name, value in model.state_dict().items()}
    total = sum(reference(state, tokens[row, :length], CONFIG).sin().sum() for row, length in enumerate(lengths))
    total.backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        close(parameter.grad, state[name].grad, name=name)


def test_parameter_names_and_shapes_are_those_of_mdlm() -> None:
    hidden, conditioning, rows = 24, 16, 12
    expected = {
        "vocab_embed.embedding": (rows, hidden),
        "sigma_map.mlp.0.weight": (conditioning, 256),
        "sigma_map.mlp.0.bias": (conditioning,),
        "sigma_map.mlp.2.weight": (conditioning, conditioning),
        "sigma_map.mlp.2.bias": (conditioning,),
        "rotary_emb.inv_freq": (hidden // 2 // 2,),
        "output_layer.norm_final.weight": (hidden,),
        "output_layer.linear.weight": (rows, hidden),
        "output_layer.linear.bias": (rows,),
        "output_layer.adaLN_modulation.weight": (2 * hidden, conditioning),
        "output_layer.adaLN_modulation.bias": (2 * hidden,),
    }
    for i in range(3):
        expected |= {
            f"blocks.{i}.norm1.weight": (hidden,),
            f"blocks.{i}.attn_qkv.weight": (3 * hidden, hidden),
            f"blocks.{i}.attn_out.weight": (hidden, hidden),
            f"blocks.{i}.norm2.weight": (hidden,),
            f"blocks.{i}.mlp.0.weight": (4 * hidden, hidden),
            f"blocks.{i}.mlp.0.bias": (4 * hidden,),
            f"blocks.{i}.mlp.2.weight": (hidden, 4 * hidden),
            f"blocks.{i}.mlp.2.bias": (hidden,),
            f"blocks.{i}.adaLN_modulation.weight": (6 * hidden, conditioning),
            f"blocks.{i}.adaLN_modulation.bias": (6 * hidden,),
        }
    model = DiT(CONFIG, VOCABULARY)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_and_company_never_change_logits(attention: str) -> None:
    model = randomised(DiTConfig(hidden=24, layers=3, heads=2, conditioning=16, attention=attention))
    lengths = [9, 3, 0, 6]
    tokens = tokens_of(lengths, 9)
    with torch.no_grad():
        batch, wider = model(tokens), model(F.pad(tokens, (0, 8), value=0))
        for row, length in enumerate(lengths):
            alone = model(tokens[row : row + 1, :length])[0]  # nothing padded: the packed batch is a view
            close(batch[row, :length], alone)
            close(wider[row, :length], alone)
        assert model.trunk(tokens)[tokens == 0].abs().sum() == 0


def test_padding_before_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="row 1 of the batch has padding"):
        randomised().trunk(torch.tensor([[1, 4, 2], [1, 0, 2]]))


def test_without_a_pad_id_every_position_counts() -> None:
    model = randomised(vocabulary=Vocabulary(11))
    tokens = tokens_of([4, 6], 6)
    expected = torch.stack([reference(model.state_dict(), row, CONFIG) for row in tokens])
    close(model(tokens), expected)


def test_a_new_network_predicts_almost_uniformly_and_listens_to_its_branches() -> None:
    torch.manual_seed(0)
    model = DiT(CONFIG, VOCABULARY)
    tokens = tokens_of([5, 5], 5)
    assert model(tokens).abs().max() < 1
    assert not torch.equal(model.trunk(tokens), model.vocab_embed(tokens))
    changed = tokens.clone()
    changed[0, 1] = 9 if tokens[0, 1] != 9 else 8
    assert not torch.equal(model(changed)[0, 3], model(tokens)[0, 3])  # open gates: context counts from the first step


def test_position_table_tells_places_apart_and_bounds_the_length() -> None:
    torch.manual_seed(0)
    model = DiT(replace(CONFIG, positions=6), VOCABULARY)
    tokens = torch.full((1, 6), 4)
    states = model.trunk(tokens)
    assert (states[0, 1] - states[0, 4]).abs().max() > 0.1
    with pytest.raises(InputError, match="7 tokens exceeds the 6 positions"):
        model.trunk(torch.full((1, 7), 4))


def test_head_takes_any_chosen_positions() -> None:
    model, tokens = randomised(), tokens_of([6, 4], 6)
    hidden, logits = model.trunk(tokens), model(tokens)
    chosen = tokens == 11
    close(model.head(hidden[chosen]), logits[chosen])
    close(model.head(hidden[1, 2]), logits[1, 2])
    assert model.head(hidden[:0]).shape == (0, 6, 12)


def test_bf16_autocast_and_a_bf16_network_stay_close() -> None:
    model, tokens = randomised(), tokens_of([6, 40], 40)
    expected = model(tokens)[tokens != 0]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.trunk(tokens)
        assert hidden.dtype == torch.float32  # the residual stream is not rounded at each block
        model.head(hidden)[tokens != 0].square().mean().backward()
        cast = model(tokens)[tokens != 0]
    assert (cast - expected).norm() / expected.norm() < 0.05
    whole = model.bfloat16()(tokens)[tokens != 0]
    assert whole.dtype == torch.bfloat16 and (whole - expected).norm() / expected.norm() < 0.1


def test_dropout_acts_in_training_only() -> None:
    model, tokens = randomised(DiTConfig(24, 2, 2, conditioning=16, dropout=0.5)), tokens_of([6], 6)
    assert not torch.equal(model.train()(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


def test_without_gradients_the_trunk_runs_in_pieces_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = randomised(), tokens_of([6, 3, 5, 5, 6, 1, 4], 6)
    expected, calls, whole = model.trunk(tokens), [], model.trunk
    monkeypatch.setattr(model, "trunk", lambda rows: calls.append(len(rows)) or whole(rows))
    monkeypatch.setattr(heads, "CACHE_POSITIONS", 20)  # three rows of six
    with torch.no_grad():
        hidden, own = heads.distinct_trunk(model, tokens)
    assert calls == [3, 3, 1]
    close(hidden[own], expected)
    calls.clear()
    hidden, own = heads.distinct_trunk(model, tokens)
    assert calls == [7] and hidden.requires_grad


def test_rows_that_stay_as_they_were_keep_their_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, rows = randomised().requires_grad_(False), tokens_of([6, 6, 6, 6], 6), []
    tokens[1] = tokens[0]
    whole = model.trunk
    monkeypatch.setattr(model, "trunk", lambda given: rows.append(len(given)) or whole(given))
    memory = Trunk(model, torch.Generator())
    for change, called in (([], 3), ([1], 1), ([], 0), ([0, 2], 2), ([0, 1, 2, 3], 4), ([3], 1)):
        tokens = tokens.clone()
        tokens[change, change] = (tokens[change, change] + 1) % 11 + 1
        rows.clear()
        hidden, own, _ = memory(tokens)
        assert sum(rows) == called
        assert len(hidden) <= len(tokens)
        close(hidden[own], whole(tokens))


def test_safetensors_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model, tokens = randomised(), tokens_of([6, 3], 6)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = DiT(CONFIG, VOCABULARY)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(model(tokens), other(tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 20, "heads": 3}, "model.heads=3 must divide model.hidden=20"),
        ({"layers": 0}, "model.layers=0 is out of range: it must be at least 1"),
        ({"noise": -1}, "model.noise=-1 is out of range: it must be at least 0"),
        ({"dropout": 1.0}, "dropout=1.0 is out of range"),
        ({"attention": "sdpaa"}, "Did you mean 'sdpa'"),
    ],
)
def test_wrong_sizes_are_named(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiTConfig(**({"hidden": 24, "layers": 1, "heads": 2} | change))
