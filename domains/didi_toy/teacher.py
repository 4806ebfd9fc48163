"""The exact teacher: a denoiser whose logits are the chain's exact posterior."""

from __future__ import annotations

from string import ascii_letters

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.errors import InputError
from didi_core.sequences import alphabet_vocabulary
from didi_core.types import Denoiser, Vocabulary

from .chain import MarkovChain

_NEVER = -1e4  # exp of it is exactly zero in single precision, and differences of two stay finite


def toy_letters(symbols: int) -> str:
    """One letter for each symbol of the chain. Raises InputError for more symbols than letters."""
    if not 2 <= symbols <= len(ascii_letters):
        raise InputError(f"data.symbols={symbols}: choose 2 to {len(ascii_letters)}, one letter for each")
    return ascii_letters[:symbols]


def toy_vocabulary(symbols: int) -> Vocabulary:
    """``symbols`` letters and a pad token; the mask is ``symbols + 1``."""
    return alphabet_vocabulary(toy_letters(symbols))


class ExactTeacher(Denoiser):
    """p(x0_l | xt) by forward-backward, without parameters. Hidden states are the logits; the head returns them."""

    initial: Tensor
    transition: Tensor

    def __init__(self, chain: MarkovChain) -> None:
        super().__init__()
        self.vocabulary = toy_vocabulary(chain.symbols)
        self.register_buffer("initial", chain.initial)
        self.register_buffer("transition", chain.transition)

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Log-posteriors as hidden states, fp32; visible tokens and the pad column are (nearly) one-hot."""
        symbols = self.initial.numel()
        chain = MarkovChain(self.initial.double(), self.transition.double())
        log_p = chain.posterior(tokens, tokens < symbols, self.vocabulary.lengths(tokens))
        hidden = torch.full((*tokens.shape, self.vocabulary.size), _NEVER, dtype=torch.float32, device=tokens.device)
        hidden[..., :symbols] = log_p.clamp_min(_NEVER).float()
        return hidden

    def head(self, hidden: Float[Tensor, "... V"]) -> Float[Tensor, "... V"]:
        return hidden

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        return self.head(self.trunk(tokens))
