"""The trunk over a whole batch against the same in pieces that stay in the CPU's cache, as samplers call it.

    python benchmarks/pieces.py [--quick] [--out FILE]
"""

from __future__ import annotations

import torch
from measure import PROTEIN, Case, close, main, network
from torch import Tensor

from didi_core.diffusion.heads import distinct_trunk
from didi_core.streams import generator


def sequences(batch: int, length: int) -> Tensor:
    """Rows of amino acids that all differ."""
    return torch.randint(4, 24, (batch, length), generator=generator(0, "benchmark"))


def trunk(batch: int, length: int, hidden: int, layers: int) -> Case:
    """Hidden states of a batch, without gradients."""
    model, tokens = network(PROTEIN, hidden, layers), sequences(batch, length)

    def whole() -> Tensor:
        with torch.no_grad():
            return model.trunk(tokens)

    def pieces() -> Tensor:
        with torch.no_grad():
            hidden, own = distinct_trunk(model, tokens)
            return hidden[own]

    return Case(whole, pieces, close)


CASES = {
    "64 x 250, 4x128 trunk": lambda quick: trunk(4, 16, 32, 1) if quick else trunk(64, 250, 128, 4),
    "16 x 250, 4x128 trunk": lambda quick: trunk(4, 16, 32, 1) if quick else trunk(16, 250, 128, 4),
    "16 x 250, 4x512 trunk": lambda quick: trunk(4, 16, 32, 1) if quick else trunk(16, 250, 512, 4),
}

if __name__ == "__main__":
    main(__file__, "whole batch / pieces", CASES)
