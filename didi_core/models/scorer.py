"""The scorer: a denoiser's trunk with a small spectrally normalised head that gives one logit per position."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from didi_core.errors import InputError
from didi_core.types import Scorer, Vocabulary


class HasWidth(Protocol):
    """Configuration of a network with the width that a scorer's head needs."""

    @property
    def hidden(self) -> int: ...


class ScorerTrunk(Protocol):
    """The interface of a network that can be a scorer's trunk."""

    vocabulary: Vocabulary

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]: ...

    def encode(self, tokens: Int[Tensor, "B L"], embedded: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]: ...

    def soft_embed(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L D"]: ...

    def features(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]: ...

    @property
    def config(self) -> HasWidth: ...

    @property
    def blocks(self) -> Iterable[nn.Module]: ...

    def norms(self) -> list[nn.Module]: ...

    def drop_head(self, normed: bool) -> None: ...


class TokenScorer(Scorer):
    """D_lambda: the trunk, then two spectrally normalised linear layers with a SiLU between them.

    Each call in training mode refines the spectral norms by one power iteration; in eval mode they are fixed.

    Args:
        normed: whether the head reads the trunk through its final norm. DiDi-Instruct's discriminator does not.
    """

    network: Any  # an nn.Module that is a ScorerTrunk, for which there is no type

    def __init__(self, network: nn.Module, width: int, vocabulary: Vocabulary, normed: bool = True) -> None:
        super().__init__()
        self.network, self.vocabulary, self.normed = network, vocabulary, normed
        self.main = nn.Sequential(spectral_norm(nn.Linear(width, width)), nn.SiLU(), spectral_norm(nn.Linear(width, 1)))

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return self._logits(self.network.trunk(tokens))

    def soft(
        self, tokens: Int[Tensor, "B L"], where: Bool[Tensor, "B L"], weights: Float[Tensor, "M V"]
    ) -> Float[Tensor, "B L"]:
        """Logits with weighted means of embeddings at ``where``; one-hot weights equal the tokens themselves."""
        return self._logits(self.network.encode(tokens, self.network.soft_embed(tokens, where, weights)))

    def _logits(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L"]:
        read: Tensor = self.network.features(hidden) if self.normed else hidden
        if not torch.is_autocast_enabled(read.device.type):  # a trunk in half precision, under a head in fp32
            read = read.to(self.main[0].bias.dtype)  # type: ignore[arg-type]
        logits: Tensor = self.main(read).squeeze(-1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def scorer_from_trunk(teacher: nn.Module, trainable_blocks: int = 4, normed: bool = True) -> TokenScorer:
    """A scorer on a copy of a denoiser: the last blocks, all norms and the head learn, the rest is frozen.

    The head's initial weights come from torch's global random state (see ``didi_core.streams.seeded``).

    Args:
        teacher: a network with the interface ``ScorerTrunk``.
        trainable_blocks: number of last blocks that learn; 0 for all of them.
        normed: see ``TokenScorer``; without it, the final norm is removed.

    Raises:
        InputError: ``trainable_blocks`` is negative.
    """
    if trainable_blocks < 0:
        raise InputError(f"trainable_blocks={trainable_blocks} is out of range: it must not be negative.")
    network: Any = copy.deepcopy(teacher)
    network.drop_head(normed)
    network.requires_grad_(trainable_blocks == 0)
    for part in (*list(network.blocks)[-trainable_blocks:], *network.norms()):
        part.requires_grad_(True)
    return TokenScorer(network, network.config.hidden, network.vocabulary, normed)
