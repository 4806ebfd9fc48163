"""The factorised draw (which positions, then their tokens) against the joint draw of token or mask at every position.

    python benchmarks/sampling.py [--quick] [--out FILE]

A generation of 16 steps. Rows start from different pinned tokens, so that no call is shared: only the head, the
uniforms and the argmax differ.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from measure import PROTEIN, TEXT, Case, main, network
from torch import Tensor

from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import law
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import Sampler, SampleRequest
from didi_core.sampling.joint_fp32 import JointFp32
from didi_core.streams import generator
from didi_core.types import Vocabulary

STEPS, GROUPS, PINNED = 16, 8, 2


def build(vocabulary: Vocabulary, batch: int, length: int, hidden: int, layers: int) -> Case:
    model = network(vocabulary, hidden, layers)
    with torch.no_grad():  # uneven, so that equality of the two laws can fail
        model.output_layer.linear.bias.copy_(torch.arange(vocabulary.size + 1) % GROUPS * 0.3)
    template = torch.full((batch, length), vocabulary.mask)
    ids = torch.tensor(vocabulary.generated)
    rows = torch.arange(batch)
    template[:, 0], template[:, 1] = ids[rows % len(ids)], ids[rows // len(ids) % len(ids)]

    def run(sampler: Sampler) -> Tensor:
        stream, shares = generator(0, "benchmark", type(sampler).__name__), Uniform().shares(STEPS)
        return sampler.sample(SampleRequest(model, template, shares, law("iid"), stream)).tokens

    return Case(lambda: run(JointFp32()), lambda: run(Ancestral()), lambda a, b: same_law(a, b, vocabulary))


def same_law(plain: Int[Tensor, "B L"], ours: Int[Tensor, "B L"], vocabulary: Vocabulary) -> bool:
    """All positions written, and the counts of eight groups of tokens pass a two-sample chi-square test.

    The draws themselves use different random numbers. 29.9 is the quantile of 7 degrees of freedom for p = 0.0001.
    """
    if bool((plain == vocabulary.mask).any() | (ours == vocabulary.mask).any()):
        return False
    counts = [(tokens[:, PINNED:].flatten() % GROUPS).bincount(minlength=GROUPS).double() for tokens in (plain, ours)]
    total = counts[0] + counts[1]
    return float(((counts[0] - counts[1]).square() / total.clamp_min(1)).sum()) < 29.9


CASES = {
    "V=33": lambda quick: build(PROTEIN, 16, 32, 32, 1) if quick else build(PROTEIN, 8, 128, 64, 2),
    "V=50258": lambda quick: build(TEXT, 1, 32, 16, 1) if quick else build(TEXT, 2, 64, 64, 2),
}

if __name__ == "__main__":
    main(__file__, "joint draw / factorised draw, 16 steps", CASES)
