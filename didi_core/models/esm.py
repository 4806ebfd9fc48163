"""The ESM-2 transformer, which DPLM shares, behind the trunk/head split: transformers' layers on packed sequences.

Parameters have the names of ``EsmForMaskedLM`` (``esm.*``, ``lm_head.*``), so published weights load without renaming.
It is time-independent, as DPLM was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from didi_core.errors import InputError, at_least
from didi_core.models.attention import Backend, Layout, attention, check_sizes, current_backend
from didi_core.models.compiled import compilable, is_compiling
from didi_core.models.noise import ReadsNoise, check_noise
from didi_core.models.packed import soft_tokens
from didi_core.types import Vocabulary

if TYPE_CHECKING:
    from transformers import EsmConfig as HuggingFaceConfig

RAGGED = "didi_ragged"  # name of our attention among transformers' implementations
KEPT_IN_TRAINING = 1 - 0.15 * 0.8  # share of visible tokens in ESM's pretraining, which token dropout restores


@dataclass(frozen=True)
class EsmConfig:
    """Sizes. DPLM's 150M is hidden=640, layers=30, heads=20, intermediate=2560.

    token_dropout: masked tokens enter as zeros and the others are scaled up (all of ESM-2 and DPLM).
    noise: normal numbers that a sequence is given at every call (``NoisyDenoiser``), which move what enters for masked
        tokens; 0 for none.
    noise_once: they move it only where nothing is written yet, so in the first call.
    first_blocks: that call has blocks of its own, and a last norm.
    """

    hidden: int = 640
    layers: int = 30
    heads: int = 20
    intermediate: int = 2560
    token_dropout: bool = True
    layer_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    noise: int = 0
    noise_once: bool = False
    first_blocks: bool = False
    attention: str = "auto"

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "intermediate")
        at_least(1, "model.", **{name: getattr(self, name) for name in sizes})
        check_noise("model.", self.noise, self.noise_once, self.first_blocks)
        if not (self.layer_norm_eps > 0 and self.rope_theta > 0):
            raise InputError(f"layer_norm_eps={self.layer_norm_eps}, rope_theta={self.rope_theta}: both are positive.")
        check_sizes(self.attention, self.hidden, self.heads)

    def hugging_face(self, vocabulary: Vocabulary) -> HuggingFaceConfig:
        """The same sizes as a configuration of transformers.

        It has no dropout, because a rollout's log-probabilities must be those of the network that drew it.
        """
        from transformers import EsmConfig as HuggingFaceConfig

        return HuggingFaceConfig(
            vocab_size=vocabulary.size + 1,
            mask_token_id=vocabulary.mask,
            pad_token_id=vocabulary.pad,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=self.layer_norm_eps,
            rope_theta=self.rope_theta,
            position_embedding_type="rotary",
            emb_layer_norm_before=False,
            token_dropout=self.token_dropout,
        )


def ragged_attention(
    module: nn.Module,
    query: Float[Tensor, "1 H N E"],
    key: Float[Tensor, "1 H N E"],
    value: Float[Tensor, "1 H N E"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    backend: str = "sdpa",
    **options: Any,
) -> tuple[Float[Tensor, "1 N H E"], None]:
    """``didi_core.models.attention`` as an implementation of transformers' attention interface.

    ``layout`` and ``backend`` arrive as keyword arguments of the encoder's call. Without a layout the batch is padded
    as usual, and transformers' own SDPA runs.
    """
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        mixed: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return mixed
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return attention(q, k, v, layout, backend, scale=scaling)[None], None


@compilable
def before_attention(
    layer: Any, x: Float[Tensor, "1 N D"], cos: Float[Tensor, "1 N E"], sin: Float[Tensor, "1 N E"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [N, H, E] of an ``EsmLayer`` of transformers, which scales queries before it rotates."""
    from transformers.models.esm.modeling_esm import apply_rotary_pos_emb

    own = layer.attention.self
    normed, shape = layer.attention.LayerNorm(x), (x.shape[1], -1, own.attention_head_size)
    q, k, v = (project(normed)[0].view(shape) for project in (own.query, own.key, own.value))
    q, k = apply_rotary_pos_emb(q * own.attention_head_size**-0.5, k, cos[0], sin[0], unsqueeze_dim=1)
    return q, k, v


@compilable
def after_attention(layer: Any, x: Float[Tensor, "1 N D"], mixed: Float[Tensor, "N H E"]) -> Tensor:
    """The residual stream after attention's output, and after the MLP."""
    x = layer.attention.output(mixed.flatten(1)[None], x)
    made: Tensor = layer.feed_forward_chunk(x)
    return made


def _register() -> None:
    """Register ``ragged_attention`` with transformers; repeating this has no effect."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(RAGGED, ragged_attention)
    AttentionMaskInterface.register(RAGGED, sdpa_mask)


class Esm(ReadsNoise):
    """A denoiser (``didi_core.types.Denoiser``) of ESM-2's architecture. It reads noise where ``config.noise`` says so.

    Args:
        vocabulary: V tokens; embedding and head have V + 1 rows, the mask last (id 32 of ESM's 33).
    """

    CORE = "esm.encoder"

    def __init__(self, config: EsmConfig, vocabulary: Vocabulary) -> None:
        from transformers import EsmForMaskedLM

        super().__init__()
        _register()
        self.config, self.vocabulary = config, vocabulary
        settings = config.hugging_face(vocabulary)
        settings._attn_implementation = RAGGED
        network = EsmForMaskedLM(settings)
        self.esm, self.lm_head = network.esm, network.lm_head
        self.lm_head.decoder.weight = self.esm.embeddings.word_embeddings.weight  # tied, as in every ESM-2
        self.esm.contact_head = None  # type: ignore[assignment]  # a diffusion model does not use it
        self.register_module("noise_map", self.new_noise_map(config.noise) if config.noise else None)
        self.register_module("first", self.new_first())

    @property
    def blocks(self) -> Sequence[Any]:
        """The transformer layers (``EsmLayer``), in order."""
        return self.blocks_in(self.esm.encoder)

    def blocks_in(self, core: nn.Module) -> Sequence[Any]:
        """The layers of an encoder, in order."""
        return list(core.layer)  # type: ignore[arg-type]

    def token_rows(self) -> Float[Tensor, "V D"]:
        """Embeddings of the tokens; that of the mask is the last row, and is not among them."""
        return self.esm.embeddings.word_embeddings.weight[: self.vocabulary.size]

    def norms(self) -> list[nn.Module]:
        """All layer norms."""
        return [part for part in self.modules() if isinstance(part, nn.LayerNorm)]

    def drop_head(self, normed: bool) -> None:
        """Remove what a scorer has no part in: the vocabulary head, the noise, of which zeros move nothing, and the
        final norm unless ``normed``."""
        self.lm_head = nn.Identity()
        self.drop_noise()
        if not normed:
            self.esm.encoder.emb_layer_norm_after = nn.Identity()  # type: ignore[assignment]

    def backend(self) -> Backend:
        """The attention backend of a call under the current autocast state."""
        return current_backend(self.config.attention, self.esm.embeddings.word_embeddings.weight)

    def trunk(self, tokens: Int[Tensor, "B L"], noise: Float[Tensor, "B Z"] | None = None) -> Float[Tensor, "B L D"]:
        """Hidden states after the last block's norm; zeros at padding. Without noise, those of the vector of zeros.

        Noise comes after token dropout, so with it the noise is all that enters for a masked token.
        """
        masked = tokens == self.vocabulary.mask
        embedded = self._compensate(tokens, self.esm.embeddings.word_embeddings(tokens), masked)
        return self.encode_by_call(tokens, embedded, noise)

    def encode(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], core: nn.Module | None = None
    ) -> Float[Tensor, "B L D"]:
        """Run the blocks on embeddings after token dropout, those of ``core`` where it is given; ``tokens`` only marks
        the padding."""
        encoder: Any = core or self.esm.encoder
        layout = Layout.of(tokens, self.vocabulary)
        packed = layout.pack(embedded)[None]
        rotary: Any = self.esm.rotary_embeddings
        rotation = rotary(packed, layout.positions[None])
        if is_compiling():
            return layout.unpack(self._in_parts(encoder, packed, rotation, layout)[0])
        encoded = encoder(packed, position_embeddings=rotation, layout=layout, backend=self.backend().name)
        return layout.unpack(encoded.last_hidden_state[0])

    def _in_parts(
        self, encoder: Any, x: Float[Tensor, "1 N D"], rotation: tuple[Tensor, Tensor], layout: Layout
    ) -> Float[Tensor, "1 N D"]:
        """What transformers' encoder computes, in parts that can be compiled."""
        backend = self.backend().name
        for layer in encoder.layer:
            q, k, v = before_attention(layer, x, *rotation)
            mixed = attention(q, k, v, layout, backend, scale=layer.attention.self.scaling)
            x = after_attention(layer, x, mixed)
        normed: Tensor = encoder.emb_layer_norm_after(x)
        return normed

    def soft_embed(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L D"]:
        """Embeddings with those at ``where`` replaced by the weighted mean of token embeddings.

        A soft token is visible, and token dropout counts it as such whatever ``tokens`` holds there.
        """
        soft = soft_tokens(self.token_rows(), weights)
        embedded = self.esm.embeddings.word_embeddings(tokens).masked_scatter(where[..., None], soft)
        return self._compensate(tokens, embedded, (tokens == self.vocabulary.mask) & ~where)

    def _compensate(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], masked: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        """Token dropout: zeros at masks, the rest times 0.88 / share visible (``EsmEmbeddings`` of transformers).

        Where nothing is visible, not even <cls>, transformers divides zero by zero; here the result is zero.
        """
        if not self.config.token_dropout:
            return embedded
        lengths = self.vocabulary.lengths(tokens)
        visible = (lengths - masked.sum(1)).clamp_min(1)
        scale = (KEPT_IN_TRAINING * lengths / visible).to(embedded.dtype)
        return (embedded * scale[:, None, None]).masked_fill(masked[..., None], 0.0)

    def features(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Hidden states as a head reads them; the trunk has normalised them already."""
        return hidden

    def head(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """Raw logits, K = V + 1; the mask's column is meaningless."""
        logits: Tensor = self.lm_head(hidden)
        return logits
