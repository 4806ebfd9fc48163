"""The ancestral sampler with a factorised draw.

Each step first decides *which* positions are revealed, and then draws their tokens. The distribution is that of the
joint draw (token or mask), but it is exact in fp32, and the vocabulary head runs only at the revealed positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from didi_core.sampling.base import Filling, Sampled, SampleRequest, filling, finish


@dataclass(frozen=True)
class Ancestral:
    """Law and grid choose the positions of each step; their tokens are drawn from log_p_x0.

    p(xs | xt) = product over revealed l of p(x0_l | xt). A law of reveal times makes exactly k denoiser calls, the last
    of which reveals all that is left; an open law makes as many as it needs.
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = True

    def states(self, request: SampleRequest) -> Filling:
        return filling(request, request.walk(request.law), request.draw)

    def sample(self, request: SampleRequest) -> Sampled:
        return finish(self.states(request))
