"""The scorer: a denoiser's trunk with a small spectral-normed head that gives one logit per position."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from didi_core.errors import InputError
from didi_core.types import Vocabulary


class ScorerTrunk(Protocol):
    """What a network must offer to carry a scorer."""

    vocabulary: Vocabulary

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]: ...

    def encode(self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]: ...

    def soft_embed(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L D"]: ...

    def features(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]: ...


class TokenScorer(nn.Module):
    """D_lambda (``didi_core.types.Scorer``): trunk, then two spectral-normed linear layers with SiLU between.

    The spectral norms are refined by one power iteration per call in training mode and fixed in eval mode.

    Args:
        normed: whether the head reads the trunk through its final norm, or bare as DiDi-Instruct's discriminator does.
    """

    def __init__(self, network: nn.Module, width: int, vocabulary: Vocabulary, normed: bool = True) -> None:
        super().__init__()
        self.network, self.vocabulary, self.normed = network, vocabulary, normed
        self.main = nn.Sequential(spectral_norm(nn.Linear(width, width)), nn.SiLU(), spectral_norm(nn.Linear(width, 1)))

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return self._logits(self.network.trunk(tokens))  # type: ignore[operator]

    def soft(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L"]:
        """Logits with weighted mean embeddings at ``where``; one-hot weights are the tokens themselves."""
        network: ScorerTrunk = self.network  # type: ignore[assignment]
        return self._logits(network.encode(tokens, network.soft_embed(tokens, where, weights)))

    def _logits(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L"]:
        read: Tensor = self.network.features(hidden) if self.normed else hidden  # type: ignore[operator]
        logits: Tensor = self.main(read).squeeze(-1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def scorer_from_dit(teacher: nn.Module, trainable_blocks: int = 4, normed: bool = True) -> TokenScorer:
    """A scorer on a copy of a DiT: the last blocks, all norms and the head learn, the rest is frozen.

    The head's first weights come from torch's global random state (``didi_core.random.seeded`` sets it for a while).

    Args:
        trainable_blocks: how many of the last blocks learn; 0 means all of them.
        normed: see ``TokenScorer``; without it the final norm is left out altogether.
    """
    network = copy.deepcopy(teacher)
    blocks: nn.ModuleList = network.blocks  # type: ignore[assignment]
    if trainable_blocks < 0:
        raise InputError(f"trainable_blocks={trainable_blocks} is out of range: it must not be negative.")
    network.requires_grad_(False)
    learning = list(blocks)[-trainable_blocks:] if trainable_blocks else [network]
    norms = [part for name, part in network.named_modules() if "norm" in name.rsplit(".", 1)[-1]]
    for part in (*learning, *norms):
        part.requires_grad_(True)
    width = network.config.hidden  # type: ignore[union-attr]
    if normed:
        network.output_layer.linear = nn.Identity()  # type: ignore[union-attr]  # the vocabulary head has no part in it
    else:
        network.output_layer = nn.Identity()
    return TokenScorer(network, width, network.vocabulary, normed)  # type: ignore[arg-type]
