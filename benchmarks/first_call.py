"""The all-masked first call, run once for equal rows, against one trunk row per sample.

    python benchmarks/first_call.py [--quick] [--out FILE]

In a two-call rollout of training (forward and backward) and in a generation of eight steps.
"""

from __future__ import annotations

from unittest.mock import patch

import torch
from measure import PROTEIN, Case, close, main, network
from torch import Tensor

from didi_core.diffusion import walk
from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.heads import distinct_trunk, token_statistics
from didi_core.diffusion.laws import law
from didi_core.objectives import rollout
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator
from didi_core.types import Denoiser


def trunk_per_row(denoiser: Denoiser, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """``distinct_trunk`` that never looks for equal rows."""
    return denoiser.trunk(tokens), torch.arange(tokens.shape[0], device=tokens.device)


def training(batch: int, length: int, hidden: int, layers: int) -> Case:
    """Rollout through one intermediate state, then the gradient of its log-probability."""
    model = network(PROTEIN, hidden, layers)
    template = torch.full((batch, length), PROTEIN.mask)
    shares = torch.tensor([[0.5, 1.0]], dtype=torch.float64).expand(batch, 2)

    def run(trunk: object) -> Tensor:
        with patch.object(walk, "distinct_trunk", trunk):
            made = rollout.roll_out(model, template, shares, law("iid"), generator(0, "benchmark"))
        states = [call.tokens for call in made.calls[1:]] + [made.completions[0]]
        log_p = [
            token_statistics(model, call.at(call.where), after[call.where][:, None]).log_p
            for call, after in zip(made.calls, states, strict=True)
        ]
        return torch.autograd.grad(torch.cat(log_p).sum(), model.vocab_embed.embedding)[0]

    return Case(lambda: run(trunk_per_row), lambda: run(distinct_trunk), close)


def sampling(batch: int, length: int, hidden: int, layers: int) -> Case:
    """A generation of eight steps."""
    model = network(PROTEIN, hidden, layers)
    template = torch.full((batch, length), PROTEIN.mask)

    def run(trunk: object) -> Tensor:
        stream = generator(0, "benchmark")
        with patch.object(walk, "distinct_trunk", trunk):
            return Ancestral().sample(SampleRequest(model, template, Uniform().shares(8), law("iid"), stream)).tokens

    return Case(lambda: run(trunk_per_row), lambda: run(distinct_trunk), nearly_equal)


def nearly_equal(plain: Tensor, ours: Tensor) -> bool:
    """The same tokens but for a draw that the last bit of a sum decided, and what followed from it."""
    return bool((plain == ours).float().mean() > 0.95)


CASES = {
    "rollout of 2 calls": lambda quick: training(4, 16, 32, 1) if quick else training(16, 128, 128, 4),
    "8 sampling steps": lambda quick: sampling(4, 16, 32, 1) if quick else sampling(16, 128, 128, 4),
}

if __name__ == "__main__":
    main(__file__, "first call per row / first call shared", CASES)
