"""The diffusion transformer of MDLM, DiDi-Instruct and IDLM, parameter for parameter, behind the trunk/head split.

It is time-independent as in MDLM: the conditioning network always gets the noise level zero, so its output is one
vector for all positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.errors import InputError, at_least
from didi_core.models.attention import Backend, Layout, Padded, attention, check_sizes, current_backend
from didi_core.models.compiled import compilable
from didi_core.models.graphs import replayable
from didi_core.models.noise import NoiseMap, ReadsNoise, check_noise
from didi_core.models.packed import PackedDenoiser
from didi_core.models.rotary import Rotary, rotate
from didi_core.types import Vocabulary

FREQUENCIES = 256  # width of the sinusoidal embedding of the noise level


@dataclass(frozen=True)
class DiTConfig:
    """Sizes. MDLM's small model is hidden=768, layers=12, heads=12, conditioning=128, positions=0.

    positions: rows of a learned table of absolute positions, added to the embeddings; 0 for none (MDLM: rotary only).
        Where sequences are aligned at their start, as in protein families, small models learn several times faster
        with it.
    noise: normal numbers that a sequence is given at every call (``NoisyDenoiser``), which move the mask's embedding;
        0 for none.
    noise_once: they move it only where nothing is written yet, so in the first call.
    first_blocks: that call has blocks of its own.
    """

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    conditioning: int = 128
    mlp_ratio: int = 4
    dropout: float = 0.0
    positions: int = 0
    noise: int = 0
    noise_once: bool = False
    first_blocks: bool = False
    attention: str = "auto"

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "conditioning", "mlp_ratio")
        at_least(1, "model.", **{name: getattr(self, name) for name in sizes})
        at_least(0, "model.", positions=self.positions)
        check_noise("model.", self.noise, self.noise_once, self.first_blocks)
        check_sizes(self.attention, self.hidden, self.heads)
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout={self.dropout} is out of range: it must be in [0, 1).")


class LayerNorm(nn.Module):
    """Layer norm without bias, modulated: ``norm(x) * weight * slope + shift``, in fp32 at least.

    The modulation is one vector for all positions, so it is folded into weight and bias of the norm: one pass over x.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(
        self, x: Float[Tensor, "... D"], shift: Float[Tensor, "D"], slope: Float[Tensor, "D"]
    ) -> Float[Tensor, "... D"]:
        weight = self.weight.to(slope.dtype) * slope
        return F.layer_norm(x.to(slope.dtype), weight.shape, weight, shift).to(x.dtype)


def widened(modulation: Float[Tensor, "1 M"], x: Tensor, parts: int) -> Float[Tensor, "P D"]:
    """The vectors of a modulation in the type in which ``LayerNorm`` modulates x: fp32 at least."""
    return modulation.to(torch.promote_types(x.dtype, torch.float32)).view(parts, -1)


class SigmaMap(nn.Module):
    """Conditioning vector of noise level zero: a two-layer MLP on sinusoids, whose cosines are one and sines zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, like: Tensor) -> Float[Tensor, "1 C"]:
        """The vector, on the device and in the type of ``like``."""
        waves = like.new_zeros(1, FREQUENCIES)
        waves[:, : FREQUENCIES // 2] = 1
        embedded: Tensor = self.mlp(waves)
        return embedded


class Block(nn.Module):
    """Attention and MLP, each with a modulated norm before and a gate after (adaLN-zero)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden
        self.heads, self.dropout = config.heads, config.dropout
        self.norm1 = LayerNorm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_ratio * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.mlp_ratio * width, width),
        )
        self.adaLN_modulation = nn.Linear(config.conditioning, 6 * width)
        # MDLM's gates start at zero. Conditioning is constant here, so they start open, on branches with small weights.
        nn.init.zeros_(self.adaLN_modulation.weight)
        start = torch.zeros(6, width)
        start[[2, 5]] = 1.0
        # A constant in queries and keys makes rotary attention depend on distance from the first update. Without it,
        # text models take several times longer to learn more than letter frequencies.
        nn.init.normal_(start[0])
        self.adaLN_modulation.bias = nn.Parameter(start.flatten())
        for branch in (self.attn_out, self.mlp[2]):
            nn.init.normal_(branch.weight, std=0.02)  # type: ignore[arg-type]

    def forward(
        self,
        x: Float[Tensor, "N D"],
        condition: Float[Tensor, "1 C"],
        rotation: tuple[Tensor, Tensor],
        layout: Layout,
        backend: str,
    ) -> Float[Tensor, "N D"]:
        q, k, v, gates = before_attention(self, x, condition, *rotation)
        return after_attention(self, x, attention(q, k, v, layout, backend), *gates)


@compilable
def before_attention(
    block: Block,
    x: Float[Tensor, "N D"],
    condition: Float[Tensor, "1 C"],
    cos: Float[Tensor, "N 1 E"],
    sin: Float[Tensor, "N 1 E"],
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Queries, keys and values [N, H, E], and the vectors [D] that modulate what comes after attention."""
    modulation = block.adaLN_modulation(condition)
    # Shifts, scales and gates, each of both halves of the block, so that a kernel does both.
    shifts, scales, gates = widened(modulation, x, 6).view(2, 3, -1).unbind(1)
    (shift1, shift2), (slope1, slope2) = shifts.unbind(), (1 + scales).unbind()
    gate1, gate2 = gates.to(modulation.dtype).unbind()
    qkv = block.attn_qkv(block.norm1(x, shift1, slope1)).view(-1, 3, block.heads, x.shape[-1] // block.heads)
    turning, v = qkv.split([2, 1], dim=1)
    q, k = rotate(turning, cos[:, None], sin[:, None]).unbind(1)  # both at once: half as many kernels
    return q, k, v.squeeze(1), (gate1, shift2, slope2, gate2)


@compilable
def after_attention(
    block: Block,
    x: Float[Tensor, "N D"],
    mixed: Float[Tensor, "N H E"],
    gate1: Float[Tensor, "D"],
    shift2: Float[Tensor, "D"],
    slope2: Float[Tensor, "D"],
    gate2: Float[Tensor, "D"],
) -> Float[Tensor, "N D"]:
    """The residual stream after attention's output, and after the MLP."""
    x = gated(x, gate1, F.dropout(block.attn_out(mixed.flatten(1)), block.dropout, block.training))
    wide = block.mlp(block.norm2(x, shift2, slope2))
    return gated(x, gate2, F.dropout(wide, block.dropout, block.training))


def gated(x: Tensor, gate: Tensor, branch: Tensor) -> Tensor:
    """x + gate * branch, in one pass if autocast has not made two dtypes of them."""
    return torch.addcmul(x, gate, branch) if x.dtype == gate.dtype == branch.dtype else x + gate * branch


class Embedding(nn.Module):
    """Token embedding: one row per token, and the mask last."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(rows, width))
        nn.init.normal_(self.embedding)

    def forward(self, tokens: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
        return F.embedding(tokens, self.embedding)


class OutputLayer(nn.Module):
    """Final modulated norm and vocabulary head; initial logits are near zero."""

    def __init__(self, config: DiTConfig, rows: int) -> None:
        super().__init__()
        self.norm_final = LayerNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, rows)
        self.adaLN_modulation = nn.Linear(config.conditioning, 2 * config.hidden)
        nn.init.normal_(self.linear.weight, std=0.02)
        for parameter in (self.linear.bias, *self.adaLN_modulation.parameters()):
            nn.init.zeros_(parameter)

    def normed(self, hidden: Float[Tensor, "... D"], condition: Float[Tensor, "1 C"]) -> Float[Tensor, "... D"]:
        """The features that the linear layer reads."""
        shift, scale = widened(self.adaLN_modulation(condition), hidden, 2).unbind()
        normed: Tensor = self.norm_final(hidden, shift, 1 + scale)
        return normed


class DiT(PackedDenoiser, ReadsNoise):
    """A denoiser (``didi_core.types.Denoiser``): packed transformer trunk, modulated head. It reads noise where
    ``config.noise`` says so.

    Args:
        vocabulary: V tokens; embedding and head have V + 1 rows, the mask last, as in MDLM.
    """

    CORE = "blocks"

    def __init__(self, config: DiTConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.vocab_embed = Embedding(vocabulary.size + 1, config.hidden)
        if config.positions:
            self.position_embed = nn.Parameter(torch.randn(config.positions, config.hidden))
        self.register_module("noise_map", NoiseMap(config.noise, config.hidden) if config.noise else None)
        self.sigma_map = SigmaMap(config.conditioning)
        self.rotary_emb = Rotary(config.hidden // config.heads)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output_layer = OutputLayer(config, vocabulary.size + 1)
        self.register_module("first", self.new_first())

    def backend(self) -> Backend:
        """The attention backend of a call under the current autocast state."""
        return current_backend(self.config.attention, self.vocab_embed.embedding)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def token_rows(self) -> Float[Tensor, "V D"]:
        """Embeddings of the tokens; that of the mask is the last row, and is not among them."""
        return self.vocab_embed.embedding[: self.vocabulary.size]

    def new_noise_map(self, size: int) -> NoiseMap:
        """A map as a new network has it, whose embeddings have the size 1."""
        # Drawn with a network, after its embeddings: a seed then gives the map that it has always given.
        drawn = DiT(replace(self.config, noise=size, layers=1, first_blocks=False), self.vocabulary).noise_map
        assert drawn is not None, "there is a size"
        return drawn

    def norms(self) -> list[nn.Module]:
        """All layer norms."""
        return [part for part in self.modules() if isinstance(part, LayerNorm)]

    def drop_head(self, normed: bool) -> None:
        """Remove what a scorer has no part in: the vocabulary head, the final norm unless ``normed``, and the noise.

        What zeros do stays in the mask's embedding where all calls read noise.
        """
        if self.noise_map is not None:
            if not self.config.noise_once:
                with torch.no_grad():
                    self.vocab_embed.embedding[self.vocabulary.mask] += self.shift(None)[0]
            self.drop_noise()
        if normed:
            self.output_layer.linear = nn.Identity()  # type: ignore[assignment]
        else:
            self.output_layer = nn.Identity()  # type: ignore[assignment]

    def condition(self) -> Float[Tensor, "1 C"]:
        """The conditioning vector: that of noise level zero."""
        return F.silu(self.sigma_map(self.vocab_embed.embedding))

    @replayable
    def trunk(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """Hidden states after the last block; zeros at padding. Without noise, those of the vector of zeros."""
        return self.encode_by_call(tokens, self.embed_tokens(tokens), noise)

    @property
    def widest(self) -> int:
        """Positions of the longest sequence; 0 for any."""
        return self.config.positions

    def by_shape(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """``trunk``, computed alike for all batches of a shape: padding like the rest, and unseen by the host."""
        layout = Padded.of(tokens, self.vocabulary)
        *_, last = self.run_blocks(layout, self.embed(tokens, noise), self.depth)
        return layout.unpack(last).masked_fill(~layout.real[..., None], 0.0)

    def embed(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """Embeddings of tokens, those of the mask moved by the noise."""
        return self.with_noise_at(tokens, self.embed_tokens(tokens), noise)

    def embed_tokens(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Embeddings of tokens, without noise."""
        embedded: Tensor = self.vocab_embed(self.vocabulary.as_read(tokens))
        return embedded

    def run_blocks(
        self, layout: Layout, embedded: Float[Tensor, "B L D"], depth: int, core: nn.Module | None = None
    ) -> Iterator[Float[Tensor, "N D"]]:
        """The packed residual stream after each of the first ``depth`` blocks, those of ``core`` where it is given."""
        x = layout.pack(embedded)
        if self.config.positions:
            if layout.width > self.config.positions:
                raise InputError(
                    f"a sequence of {layout.width} tokens exceeds the {self.config.positions} positions of this "
                    "model. Give a shorter length."
                )
            x = x + self.position_embed[layout.positions]
        condition, rotation, backend = self.condition(), self.rotary_emb(layout.positions), self.backend().name
        for block in self.blocks_in(core or self.blocks)[:depth]:
            x = block(x, condition, rotation, layout, backend)
            yield x

    def features(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Hidden states as the head reads them: normalised and modulated."""
        return self.output_layer.normed(hidden, self.condition())

    def head(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """Raw logits, K = V + 1; the mask's column is meaningless."""
        logits: Tensor = self.output_layer.linear(self.features(hidden))
        return logits
