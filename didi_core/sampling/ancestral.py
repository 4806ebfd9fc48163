"""The ancestral sampler with a factorised draw.

Each step decides first *which* positions are revealed and then draws their tokens. The law is that of the joint (token
or mask) draw, but exact in fp32, and the vocabulary head runs only at the revealed positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from didi_core.sampling.base import Sampled, SampleRequest, fill


@dataclass(frozen=True)
class Ancestral:
    """Every revealed position by a draw from log_p_x0; which ones, by law and grid.

    By a law of reveal times it makes exactly k denoiser calls, the last of which reveals whatever is left; by an open
    law as many as it takes.
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = True

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Sampled:
        return fill(request, request.walk(request.law), request.draw)
