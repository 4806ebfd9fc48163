"""The LLaMA-like transformer that large masked language models share, behind the trunk/head split.

LLaDA (arXiv 2502.09992), Dream (arXiv 2508.15487), SDAR (arXiv 2510.06303) and LLaDA2 (arXiv 2512.15745) are one
network with few differences: RMS norms before attention and MLP, rotary positions, grouped keys and values, SwiGLU, of
which LLaDA2 has many (``didi_core.models.experts``). Parameters have the names that transformers gives to its Llama,
Qwen2 and Qwen3. It is time-independent, as all four were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.errors import InputError, at_least
from didi_core.models.attention import Backend, Layout, attention, check_backend, current_backend
from didi_core.models.compiled import compilable
from didi_core.models.experts import MLP, ExpertsConfig, Mixture, saved_by_mixture
from didi_core.models.noise import ReadsNoise, check_noise
from didi_core.models.packed import PackedDenoiser
from didi_core.models.rotary import for_both_halves, rotate
from didi_core.types import Vocabulary


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes. LLaDA-8B is hidden=4096, layers=32, heads=32, kv_heads=32, head_width=128, intermediate=12288.

    rows: of the embedding, which may be more than the tokenizer has tokens. mask_row: the mask's, among these.
    tied: the head is the embedding. qkv_bias, qk_norm: biases of queries, keys and values; norms of queries and keys.
    shifted: the hidden state of a position gives the logits of the next one (Dream).
    block: positions of a block; a position attends to its own block and to earlier ones (SDAR). 0: to all positions.
    rotary: share of a head's width, from its beginning, that is turned by the position.
    experts: sizes of the mixtures that layers have in place of their MLP; None for no mixtures.
    noise: normal numbers that a sequence is given at every call (``NoisyDenoiser``), which move the mask's embedding;
        0 for none.
    noise_once: they move it only where nothing is written yet, so in the first call.
    first_blocks: that call has blocks of its own.
    """

    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    head_width: int = 128
    intermediate: int = 12288
    rows: int = 126464
    mask_row: int = 126336
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    shifted: bool = False
    block: int = 0
    norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rotary: float = 1.0
    experts: ExpertsConfig | None = None
    noise: int = 0
    noise_once: bool = False
    first_blocks: bool = False
    attention: str = "auto"

    @property
    def rotary_width(self) -> int:
        """Numbers of a head that are turned by the position."""
        return int(self.head_width * self.rotary)

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "kv_heads", "head_width", "intermediate")
        at_least(1, **{name: getattr(self, name) for name in sizes})
        check_noise("", self.noise, self.noise_once, self.first_blocks)
        if not (self.norm_eps > 0 and self.rope_theta > 0):
            raise InputError(f"norm_eps={self.norm_eps}, rope_theta={self.rope_theta}: both are positive.")
        if self.heads % self.kv_heads:
            raise InputError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}.")
        if not 0 < self.rotary <= 1:
            raise InputError(f"rotary={self.rotary} is out of range: a share of the head's width, above 0, at most 1.")
        if self.rotary_width % 2 or not self.rotary_width:
            part = "" if self.rotary == 1 else f" times rotary={self.rotary}"
            raise InputError(f"head_width={self.head_width}{part} must be even, as rotary positions turn pairs.")
        if self.block < 0:
            raise InputError(f"block={self.block} is out of range: a number of positions, or 0 for no blocks.")
        if not 0 <= self.mask_row < self.rows:
            raise InputError(f"mask_row={self.mask_row} is outside the embedding of {self.rows} rows.")
        check_backend(self.attention)
        if self.block and self.attention not in ("auto", "sdpa", "eager"):
            raise InputError(f"attention={self.attention} cannot attend in blocks of {self.block}. Use attention=auto.")


class RMSNorm(nn.Module):
    """Root-mean-square norm, in fp32 at least, in the order of rounding of LLaMA: cast, then times the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class Attention(nn.Module):
    """Projections of one layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, inner, keys = config.hidden, config.heads * config.head_width, config.kv_heads * config.head_width
        self.q_proj = nn.Linear(width, inner, bias=config.qkv_bias)
        self.k_proj = nn.Linear(width, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(width, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(inner, width, bias=False)
        self.head_width, self.groups = config.head_width, config.heads // config.kv_heads
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_width, config.norm_eps)
            self.k_norm = RMSNorm(config.head_width, config.norm_eps)

    def queries_and_more(
        self, x: Float[Tensor, "N D"], cos: Float[Tensor, "N 1 R"], sin: Float[Tensor, "N 1 R"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values [N, H, E]; keys and values repeated for their group of heads."""
        q, k, v = (part(x).unflatten(-1, (-1, self.head_width)) for part in (self.q_proj, self.k_proj, self.v_proj))
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = turn(q, cos, sin).to(v.dtype), turn(k, cos, sin).to(v.dtype)
        if self.groups > 1:
            k, v = k.repeat_interleave(self.groups, dim=1), v.repeat_interleave(self.groups, dim=1)
        return q, k, v


class Layer(nn.Module):
    """Attention and MLP, or a mixture of these, each with a norm before it. number: of layers before it."""

    def __init__(self, config: LlamaConfig, number: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp: MLP | Mixture = (
            Mixture(config.hidden, config.experts)
            if config.experts is not None and number >= config.experts.dense
            else MLP(config.hidden, config.intermediate)
        )
        self.block = config.block

    def forward(
        self, x: Float[Tensor, "N D"], rotation: tuple[Tensor, Tensor], layout: Layout, backend: str
    ) -> Float[Tensor, "N D"]:
        q, k, v = before_attention(self, x, *rotation)
        mixed = attention(q, k, v, layout, backend, block=self.block)
        # How many positions an expert has is known only as it runs: no part of a graph.
        return _after(self, x, mixed) if isinstance(self.mlp, Mixture) else after_attention(self, x, mixed)


@compilable
def before_attention(
    layer: Layer, x: Float[Tensor, "N D"], cos: Float[Tensor, "N 1 R"], sin: Float[Tensor, "N 1 R"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [N, H, E]."""
    return layer.self_attn.queries_and_more(layer.input_layernorm(x), cos, sin)


def _after(layer: Layer, x: Float[Tensor, "N D"], mixed: Float[Tensor, "N H E"]) -> Float[Tensor, "N D"]:
    """The residual stream after attention's output, and after the MLP."""
    x = x + layer.self_attn.o_proj(mixed.flatten(1))
    made: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
    return made


after_attention = compilable(_after)


class Stack(nn.Module):
    """Embedding, layers and the last norm, under the names of transformers."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.rows, config.hidden)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm: nn.Module = RMSNorm(config.hidden, config.norm_eps)


class Llama(PackedDenoiser, ReadsNoise):
    """A denoiser (``didi_core.types.Denoiser``) of LLaMA's architecture that is not causal. It reads noise where
    ``config.noise`` says so.

    The vocabulary's mask, id V, is looked up at ``config.mask_row``; tokens keep the ids of their tokenizer.

    Args:
        vocabulary: V tokens, at most ``config.rows``; head columns from V on belong to no token.
    """

    CORE = "model.layers"

    def __init__(self, config: LlamaConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        if vocabulary.size > config.rows:
            raise InputError(f"{vocabulary.size} tokens do not fit into an embedding of {config.rows} rows.")
        self.config, self.vocabulary = config, vocabulary
        self.model = Stack(config)
        self.lm_head: nn.Module | None = None
        if not config.tied:
            self.lm_head = nn.Linear(config.hidden, config.rows, bias=False)
        self.register_module("noise_map", self.new_noise_map(config.noise) if config.noise else None)
        self.register_module("first", self.new_first())

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers, in order."""
        return self.blocks_in(self.model.layers)

    @property
    def block_size(self) -> int:
        """Positions of a block; 0 for any order."""
        return self.config.block

    def norms(self) -> list[nn.Module]:
        """All norms."""
        return [part for part in self.modules() if isinstance(part, RMSNorm)]

    def drop_head(self, normed: bool) -> None:
        """Remove what a scorer has no part in: the head, the shift to the next position, the noise, of which zeros
        move nothing, and the last norm unless ``normed``."""
        self.drop_noise()
        self.lm_head, self.config = None, replace(self.config, shifted=False)
        if not normed:
            self.model.norm = nn.Identity()

    def backend(self) -> Backend:
        """The attention backend of a call under the current autocast state."""
        if self.config.block and self.config.attention == "auto":
            return Backend("sdpa", "auto: the packed kernels do not attend in blocks")
        return current_backend(self.config.attention, self.model.embed_tokens.weight)

    def trunk(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """Hidden states before the last norm; zeros at padding. Without noise, those of the vector of zeros."""
        return self.encode_by_call(tokens, self.embed_tokens(tokens), noise)

    def embed(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """Embeddings of tokens, those of the mask moved by the noise."""
        return self.with_noise_at(tokens, self.embed_tokens(tokens), noise)

    def embed_tokens(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Embeddings of tokens without noise, the mask's from its own row."""
        read = self.vocabulary.as_read(tokens)
        rows = torch.where(read == self.vocabulary.mask, self.config.mask_row, read)
        embedded: Tensor = self.model.embed_tokens(rows)
        return embedded

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.model.layers)

    def token_rows(self) -> Float[Tensor, "V D"]:
        """Embeddings of the tokens, which are the first rows."""
        return self.model.embed_tokens.weight[: self.vocabulary.size]

    def encode(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], core: nn.Module | None = None
    ) -> Float[Tensor, "B L D"]:
        """Run the layers on embeddings, those of ``core`` where it is given; ``tokens`` only marks the padding."""
        hidden = super().encode(tokens, embedded, core)
        return torch.cat([hidden[:, :1], hidden[:, :-1]], dim=1) if self.config.shifted else hidden

    def run_blocks(
        self, layout: Layout, embedded: Float[Tensor, "B L D"], depth: int, core: nn.Module | None = None
    ) -> Iterator[Float[Tensor, "N D"]]:
        """The packed residual stream after each of the first ``depth`` layers, those of ``core`` where it is given."""
        x, backend = layout.pack(embedded), self.backend().name
        turned = rotation(layout.positions, self.config.rotary_width, self.config.rope_theta)
        for layer in self.blocks_in(core or self.model.layers)[:depth]:
            x = layer(x, turned, layout, backend)
            yield x

    def features(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Hidden states as the head reads them: normalised."""
        normed: Tensor = self.model.norm(hidden)
        return normed

    def head(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """Raw logits, one for each row of the embedding."""
        read = self.features(hidden)
        logits: Tensor = F.linear(read, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(read)
        return logits


def rotation(positions: Int[Tensor, "N"], width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, 1, width] of the angles of each position, as ``rotate`` reads them, in fp32."""
    half = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None].float() / theta ** (half / width)
    return for_both_halves(angles[:, None])


def turn(
    x: Float[Tensor, "N H E"], cos: Float[Tensor, "N 1 R"], sin: Float[Tensor, "N 1 R"]
) -> Float[Tensor, "N H E"]:
    """The first R numbers of each head turned by the angles of its position, the others as they are."""
    width = cos.shape[-1]
    if width == x.shape[-1]:
        return rotate(x, cos, sin)
    return torch.cat([rotate(x[..., :width], cos, sin), x[..., width:]], dim=-1)


def saved_bytes(config: LlamaConfig, adapted: bool) -> int:
    """Bytes that a layer keeps of one position for the backward pass, in bf16 autocast and with fused attention.

    The mean of the layers, where only some have a mixture.

    adapted: whether the weights are frozen in bf16 below adapters, which read a copy of every input, or learn in fp32,
        where norms keep their results too. Copies of fp32 weights in bf16 are not counted.
    """
    width, inner, mlp = config.hidden, config.heads * config.head_width, 8 * config.intermediate
    if config.experts is not None:
        plain = min(config.experts.dense, config.layers)
        mixed = (config.layers - plain) * saved_by_mixture(config.experts, width, adapted)
        mlp = (plain * mlp + mixed) // config.layers
    return 18 * width + 10 * inner + mlp if adapted else 26 * width + 8 * inner + mlp
