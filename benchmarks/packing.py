"""Packed hidden states and batches of like lengths against plainly padded batches; proteins of 30 to 500 residues.

    python benchmarks/packing.py [--quick] [--out FILE]

Forward and backward over one pool of sequences. The padded network masks padding in attention, as it must to be right,
and computes it everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import torch
from jaxtyping import Float, Int
from measure import PROTEIN, Case, close, main, network
from torch import Tensor

from didi_core.models import dit
from didi_core.models.attention import Layout
from didi_core.sequences import epoch_batches
from didi_core.streams import generator


@dataclass(frozen=True)
class Padded(Layout):
    """A layout that keeps the padding among the hidden states."""

    @property
    def index(self) -> Int[Tensor, "N"]:  # type: ignore[override]
        return torch.arange(self.real.numel(), device=self.lengths.device)

    def pack(self, padded: Float[Tensor, "B L ..."]) -> Float[Tensor, "N ..."]:
        return padded.flatten(0, 1)

    def unpack(self, packed: Float[Tensor, "N ..."]) -> Float[Tensor, "B L ..."]:
        return packed.view(len(self.lengths), self.width, *packed.shape[1:])


def build(number: int, batch: int, longest: int, sort: bool, hidden: int, layers: int) -> Case:
    """Case over ``number`` sequences. sort: our batches are of like lengths; otherwise both take the same batches."""
    model = network(PROTEIN, hidden, layers)
    lengths = torch.randint(30, longest + 1, (number,), generator=generator(0, "lengths"))
    rows = [torch.randint(4, 24, (n,), generator=generator(0, "row", i)) for i, n in enumerate(lengths.tolist())]
    mixed = list(torch.arange(number).split(batch))
    like = epoch_batches(lengths, batch, number, generator(0, "buckets")) if sort else mixed

    def run(layout: type[Layout], batches: Sequence[Tensor]) -> Tensor:
        """Loss of each sequence, in order, and the gradient of their sum for the embedding."""
        losses = torch.zeros(number)
        gradient = torch.zeros_like(model.vocab_embed.embedding)
        for chosen in batches:
            tokens = torch.nn.utils.rnn.pad_sequence(
                [rows[i] for i in chosen.tolist()], batch_first=True, padding_value=PROTEIN.pad or 0
            )
            with patch.object(dit, "Layout", layout):
                states = model.trunk(tokens)
            real = tokens.ne(PROTEIN.pad or 0)
            loss = (states.square().mean(-1) * real).sum(1) / real.sum(1)
            gradient += torch.autograd.grad(loss.sum(), model.vocab_embed.embedding)[0]
            losses[chosen] = loss.detach()
        return torch.cat([losses, gradient.flatten()])

    return Case(lambda: run(Padded, mixed), lambda: run(Layout, like), close)


CASES = {
    "packed, same batches": lambda quick: build(4, 2, 60, False, 32, 1) if quick else build(32, 8, 500, False, 128, 4),
    "packed and bucketed": lambda quick: build(4, 2, 60, True, 32, 1) if quick else build(32, 8, 500, True, 128, 4),
}

if __name__ == "__main__":
    main(__file__, "padded / packed, lengths 30 to 500", CASES)
