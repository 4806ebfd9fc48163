"""What transformers on packed positions have in common: they embed, run their blocks in order, and unpack."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from didi_core.models.attention import Layout
from didi_core.types import Denoiser


class PackedDenoiser(Denoiser):
    """A denoiser whose blocks can be run one by one (``didi_core.types.LayeredDenoiser``), and on soft tokens."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of blocks."""

    @abstractmethod
    def token_rows(self) -> Float[Tensor, "V D"]:
        """Embeddings of the tokens, in order."""

    @abstractmethod
    def embed(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Embeddings of tokens, and of the mask."""

    @abstractmethod
    def run_blocks(
        self, layout: Layout, embedded: Float[Tensor, "B L D"], depth: int, core: nn.Module | None = None
    ) -> Iterator[Float[Tensor, "N D"]]:
        """The packed residual stream after each of the first ``depth`` blocks, those of ``core`` where it is given."""

    def after_blocks(self, tokens: Int[Tensor, "B L"], layers: Sequence[int]) -> list[Float[Tensor, "B L D"]]:
        """The residual stream after each of these blocks, counted from 1; blocks after the last one do not run."""
        layout = Layout.of(tokens, self.vocabulary)
        states = dict(enumerate(self.run_blocks(layout, self.embed(tokens), max(layers)), start=1))
        return [layout.unpack(states[layer]) for layer in layers]

    def encode(
        self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"], core: nn.Module | None = None
    ) -> Float[Tensor, "B L D"]:
        """Run the blocks on embeddings, those of ``core`` where it is given; ``tokens`` only marks the padding."""
        layout = Layout.of(tokens, self.vocabulary)
        *_, last = self.run_blocks(layout, embedded, self.depth, core)
        return layout.unpack(last)

    def soft_embed(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L D"]:
        """Embeddings with those at ``where`` replaced by the weighted mean of token embeddings."""
        soft = soft_tokens(self.token_rows(), weights)
        return self.embed(tokens).masked_scatter(where[..., None], soft)


def soft_tokens(rows: Float[Tensor, "V D"], weights: Float[Tensor, "M V"]) -> Float[Tensor, "M D"]:
    """Weighted means of embeddings, in their type."""
    with torch.autocast(rows.device.type, enabled=False):  # in half, one-hot weights would not equal the token
        return weights.to(rows.dtype) @ rows
