"""Log-probabilities in chunks with recomputation against full logits [B, L, V], forward and backward, V = 50,258.

    python benchmarks/log_probabilities.py [--quick] [--out FILE]

Gradients for the hidden states and the head. Half of the positions masked is the mean of training; there the plain way
also pays for logits that are never read.
"""

from __future__ import annotations

import torch
from measure import TEXT, Case, close, main, network
from torch import Tensor

from didi_core.diffusion.heads import token_statistics
from didi_core.diffusion.masking import log_p_x0
from didi_core.streams import generator


def build(batch: int, length: int, share: float, chunk: int | None) -> Case:
    """Case with ``share`` of the positions masked. chunk: positions at once; None for the default."""
    model = network(TEXT, 64, 1)
    hidden = torch.randn(batch, length, 64, generator=generator(0, "hidden")).requires_grad_(True)
    tokens = torch.randint(TEXT.size, (batch, length), generator=generator(0, "tokens"))
    masked = torch.rand(batch, length, generator=generator(0, "masked")) < share
    weight = model.output_layer.linear.weight

    def gradients(log_p: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(log_p.sum(), (hidden, weight))])

    def plain() -> Tensor:
        return gradients(log_p_x0(model.head(hidden), TEXT).gather(-1, tokens[..., None]).squeeze(-1)[masked])

    def ours() -> Tensor:
        return gradients(token_statistics(model, hidden[masked], tokens[masked][:, None], chunk=chunk).log_p)

    return Case(plain, ours, close)


CASES = {
    "all masked, default chunk": lambda quick: build(2, 8, 1.1, 4) if quick else build(4, 256, 1.1, None),
    "all masked, chunk 128": lambda quick: build(2, 8, 1.1, 1) if quick else build(4, 256, 1.1, 128),
    "half masked, chunk 128": lambda quick: build(2, 8, 0.5, 1) if quick else build(4, 256, 0.5, 128),
}

if __name__ == "__main__":
    main(__file__, "full logits / chunks with recomputation", CASES)
