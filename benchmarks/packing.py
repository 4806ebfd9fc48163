"""Packed hidden states and batches of like lengths against plainly padded batches; proteins of 30 to 500 residues.

    python benchmarks/packing.py [--quick] [--out FILE]

Forward and backward over one pool of sequences. The padded network masks padding in attention, as it must to be right,
and computes it everywhere else. ``attention``: sdpa of a padded batch with a mask against sdpa of one sequence after
another, which is what a CPU does where there is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest.mock import patch

import torch
from measure import PROTEIN, Case, close, main, network
from torch import Tensor

from didi_core.models import attention
from didi_core.sequences import epoch_batches
from didi_core.streams import generator


def build(number: int, batch: int, longest: int, sort: bool, hidden: int, layers: int) -> Case:
    """Case over ``number`` sequences. sort: our batches are of like lengths; otherwise both take the same batches."""
    model = network(PROTEIN, hidden, layers)
    lengths = torch.randint(30, longest + 1, (number,), generator=generator(0, "lengths"))
    rows = [torch.randint(4, 24, (n,), generator=generator(0, "row", i)) for i, n in enumerate(lengths.tolist())]
    mixed = list(torch.arange(number).split(batch))
    like = epoch_batches(lengths, batch, number, generator(0, "buckets")) if sort else mixed

    def run(trunk: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> Tensor:
        """Loss of each sequence, in order, and the gradient of their sum for the embedding."""
        losses = torch.zeros(number)
        gradient = torch.zeros_like(model.vocab_embed.embedding)
        for chosen in batches:
            tokens = torch.nn.utils.rnn.pad_sequence(
                [rows[i] for i in chosen.tolist()], batch_first=True, padding_value=PROTEIN.pad or 0
            )
            states = trunk(tokens)
            real = tokens.ne(PROTEIN.pad or 0)
            loss = (states.square().mean(-1) * real).sum(1) / real.sum(1)
            gradient += torch.autograd.grad(loss.sum(), model.vocab_embed.embedding)[0]
            losses[chosen] = loss.detach()
        return torch.cat([losses, gradient.flatten()])

    return Case(lambda: run(model.by_shape, mixed), lambda: run(model.trunk, like), close)


def ragged(batch: int, shortest: int, longest: int) -> Case:
    """Attention of 4 heads of 32 forward and backward; the plain way never takes a batch for ragged."""
    lengths = torch.randint(shortest, longest + 1, (batch,), generator=generator(0, "lengths"))
    known = tuple(lengths.tolist())
    layout = attention.Layout(lengths, max(known), known)
    leaves = torch.randn(3, sum(known), 4, 32, generator=generator(0, "heads")).requires_grad_(True)

    def run() -> Tensor:
        mixed = attention.attention(*leaves, layout, "sdpa")
        return torch.cat([mixed.detach()[None], torch.autograd.grad(mixed.square().sum(), leaves)[0]])

    def padded() -> Tensor:
        with patch.object(attention, "RAGGED", -1.0):
            return run()

    return Case(padded, run, close)


CASES = {
    "attention, 64 of 30 to 300": lambda quick: ragged(4, 2, 9) if quick else ragged(64, 30, 300),
    "attention, 64 of 200 to 240": lambda quick: ragged(4, 5, 9) if quick else ragged(64, 200, 240),
    "packed, same batches": lambda quick: build(4, 2, 60, False, 32, 1) if quick else build(32, 8, 500, False, 128, 4),
    "packed and bucketed": lambda quick: build(4, 2, 60, True, 32, 1) if quick else build(32, 8, 500, True, 128, 4),
}

if __name__ == "__main__":
    main(__file__, "padded / packed, lengths 30 to 500", CASES)
