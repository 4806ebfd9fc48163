"""What the peers' joint fp32 draw does to a model with many tokens, by formula and by drawing.

    python benchmarks/precision.py                      # the formula for 50,000 tokens, and its check by drawing
    python benchmarks/precision.py --tokens 16=4000 128=2000 1024=1000

The model knows its unigram exactly and nothing else, so the perplexity and entropy of every draw are known: what
differs from the exact draw is the draw's own doing. See docs/precision.md.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import law
from didi_core.evaluation.wording import percent
from didi_core.sampling.base import SampleRequest
from didi_core.sampling.joint_fp32 import JointFp32
from didi_core.streams import generator
from didi_core.types import Vocabulary

UNIT = 2.0**-24  # distance of two fp32 uniforms


class Unigram(nn.Module):
    """A denoiser that predicts the same law everywhere."""

    def __init__(self, p: Float[np.ndarray, "V"]) -> None:
        super().__init__()
        self.vocabulary = Vocabulary(size=len(p))
        self.log_p = nn.Parameter(torch.from_numpy(np.log(p)).float(), requires_grad=False)

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L 1"]:
        return torch.zeros(*tokens.shape, 1)

    def head(self, hidden: Float[Tensor, "... 1"]) -> Float[Tensor, "... V"]:
        return self.log_p.expand(*hidden.shape[:-1], -1)

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        return self.head(self.trunk(tokens))


def zipf(size: int) -> Float[np.ndarray, "V"]:
    """p_i proportional to 1 / i, as words are."""
    weights = 1.0 / np.arange(1, size + 1)
    return np.asarray(weights / weights.sum())


def legacy_law(p: Float[np.ndarray, "V"], steps: int) -> Float[np.ndarray, "V"]:
    """Law of a token under the joint fp32 draw on the uniform grid of ``steps`` calls.

    With exact noise token i wins with its joint probability p_i * r, where r is the reveal probability of the step. An
    fp32 uniform is k * 2^-24 below one, so its largest noise is finite, and the win probability becomes the sum over
    k of 2^-24 * exp(-k * x) = p_i * r * x / (e^x - 1) with x = 2^-24 / (p_i * r). What is not revealed stays masked.
    """
    masked, drawn = 1.0, np.zeros_like(p)
    for step in range(steps):
        chance = won(p / (steps - step))
        if step == steps - 1:  # there the mask has no mass: what wins is a token
            chance = chance / chance.sum()
        drawn += masked * chance
        masked *= 1 - chance.sum()
    return drawn / drawn.sum()


def won(joint: Float[np.ndarray, "V"]) -> Float[np.ndarray, "V"]:
    """Probability that a token of this joint probability wins against everything else, in fp32 noise."""
    x = np.minimum(UNIT / joint, 700.0)
    return np.asarray(joint * x / np.expm1(x))


def described(p: Float[np.ndarray, "V"], q: Float[np.ndarray, "V"]) -> tuple[float, float]:
    """Perplexity of draws from q under p, and entropy of q (nats)."""
    kept = q > 0
    return float(np.exp(-(q * np.log(p)).sum())), float(-(q[kept] * np.log(q[kept])).sum())


def still_masked(size: int, steps: int, positions: int, seed: int) -> tuple[float, float]:
    """Share of positions masked after half of the steps, drawn and by the formula, where all tokens are as likely.

    Exactly drawn it is one half. The sampler is our ``joint_fp32``, stopped half way.
    """
    p = np.full(size, 1 / size)
    model, width = Unigram(p), 10
    template = torch.full((max(positions // width, 1), width), model.vocabulary.mask)
    half = Uniform().shares(steps)[: steps // 2]
    made = JointFp32().sample(SampleRequest(model, template, half, law("iid"), generator(seed, "precision")))
    wanted = 1.0
    for step in range(steps // 2):
        wanted *= 1 - float(won(p / (steps - step)).sum())
    return float((made.tokens == model.vocabulary.mask).float().mean()), wanted


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=50_000, help="of the formula's table")
    parser.add_argument("--tokens", nargs="+", default=["16=400", "128=200", "1024=60"], help="drawn, by steps")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plan = {int(steps): int(count) for steps, _, count in (item.partition("=") for item in given.tokens)}
    p = zipf(given.vocabulary)
    exact = described(p, p)
    print(f"{given.vocabulary:,} tokens, Zipf; exact draw at any number of steps: perplexity {exact[0]:.1f}, "
          f"entropy {exact[1]:.3f}")  # fmt: skip
    print("| steps | perplexity, fp32 joint | entropy, fp32 joint | change of perplexity |\n|---|---|---|---|")
    for steps in plan:
        perplexity, entropy = described(p, legacy_law(p, steps))
        print(f"| {steps} | {perplexity:.1f} | {entropy:.3f} | {percent(perplexity / exact[0], 1)} |")
    print("\nshare of positions still masked after half of the steps, all tokens as likely (exact draw: 0.5)")
    print("| steps | positions | drawn (± 2 standard errors) | by the formula | seconds |\n|---|---|---|---|---|")
    for steps, count in plan.items():
        started = time.perf_counter()
        found, wanted = still_masked(given.vocabulary, steps, count, given.seed)
        error = 2 * math.sqrt(found * (1 - found) / count)
        seconds = time.perf_counter() - started
        print(f"| {steps} | {count} | {found:.3f} ± {error:.3f} | {wanted:.3f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
