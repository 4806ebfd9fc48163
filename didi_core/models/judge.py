"""The judge: a small autoregressive model that measures how likely a sequence is. It is never the teacher.

It is GPT-2 (transformers' implementation) on the domain's own tokens, trained on natural sequences by
``pretrain objective=autoregressive``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.errors import InputError
from didi_core.types import Vocabulary


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of the GPT-2 model; ``context`` is the largest number of tokens of one sequence, with BOS and EOS."""

    hidden: int = 192
    layers: int = 4
    heads: int = 6
    context: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.heads, self.context) < 1 or self.hidden % self.heads:
            raise InputError(
                f"judge: hidden={self.hidden}, layers={self.layers}, heads={self.heads}, context={self.context}: sizes "
                "are at least 1, and heads must divide hidden."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"judge: dropout={self.dropout} is out of range: it must be in [0, 1).")


class Judge(nn.Module):
    """GPT-2 over a domain's vocabulary (without the mask).

    The first token of a sequence is given and not scored; it should be BOS, as in ``Domain.encode``.
    """

    def __init__(self, config: JudgeConfig, vocabulary: Vocabulary) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary.size,
                n_positions=config.context,
                n_embd=config.hidden,
                n_layer=config.layers,
                n_head=config.heads,
                activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one kernel
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                bos_token_id=vocabulary.bos,
                eos_token_id=vocabulary.eos,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer layers, in order."""
        return list(self.network.transformer.h)

    @property
    def context(self) -> int:
        """Largest number of tokens of one sequence."""
        return self.config.context

    def token_nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """NLL (nats) of every token given those before it; M = L - 1.

        Padding is on the right, so causality keeps it from affecting other tokens.

        Returns:
            the NLL -log p(x_i | x_<i), and a weight of 1 at tokens that are not padding, 0 elsewhere.

        Raises:
            InputError: a sequence is longer than the judge's context.
        """
        if tokens.shape[1] > self.config.context:
            raise InputError(
                f"a sequence of {tokens.shape[1]} tokens exceeds the judge's context of {self.config.context}: leave "
                "it out, or use a judge with a longer context."
            )
        logits = self.network(input_ids=tokens[:, :-1], use_cache=False).logits.float()
        target = tokens[:, 1:]
        nll = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        real = torch.ones_like(nll) if self.vocabulary.pad is None else (target != self.vocabulary.pad).float()
        return nll, real

    def nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Sums over each sequence.

        Returns:
            the summed NLL (nats), and the number of scored tokens, EOS included.
        """
        nll, real = self.token_nll(tokens)
        return (nll * real).sum(1), real.sum(1)

    forward = nll
