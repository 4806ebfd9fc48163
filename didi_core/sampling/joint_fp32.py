"""The sampler of published code, to reproduce its numbers: token or mask drawn jointly, from fp32 noise.

Its uniforms have 24 bits, so tokens rarer than about 2^-24 a step are never drawn. With many steps this acts as a lower
temperature (docs/precision.md). For your own samples use ``ancestral``, which draws from the same distribution exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.diffusion.heads import chunk_rows, position_log_p, sharpen
from didi_core.diffusion.laws import Iid
from didi_core.diffusion.masking import joint_reverse_log_p
from didi_core.diffusion.walk import Call
from didi_core.sampling.base import Sampled, SampleRequest, fill


@dataclass(frozen=True)
class JointFp32:
    """k steps of the reverse process as in MDLM's code: Gumbel-max over tokens and mask at every masked position.

    The last step has reveal probability 1, as in all our samplers; MDLM's code makes one more call instead.
    """

    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = True
    uses_law: ClassVar[bool] = False

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Sampled:
        alphas = torch.cat([request.shares.new_zeros(1), request.shares]).to(request.template.device, torch.float32)

        def step(call: Call) -> Int[Tensor, "B L"]:
            masked = call.tokens == request.denoiser.vocabulary.mask
            return call.tokens.masked_scatter(masked, draw_jointly(request, call.at(masked), alphas[call.step :]))

        return fill(request, request.walk(Iid()), step)  # the noise itself reveals ``iid``; the law's times go unused


def draw_jointly(request: SampleRequest, hidden: Float[Tensor, "N D"], alphas: Float[Tensor, "n"]) -> Int[Tensor, "N"]:
    """A token or the mask for each of N masked positions, in the step from alphas[0] to alphas[1]."""
    rule, drawn = request.rule, []
    for piece in hidden.split(chunk_rows(request.denoiser.vocabulary.size)):
        log_p = sharpen(position_log_p(request.denoiser, piece, rule.bias), rule.temperature, rule.top_p)
        joint = joint_reverse_log_p(log_p, alphas[0], alphas[1])
        uniforms = torch.rand(joint.shape, generator=request.generator, device=request.generator.device)
        gumbel = -torch.log(1e-10 - torch.log(uniforms.to(joint.device) + 1e-10))
        drawn.append((joint + gumbel).argmax(-1))  # the mask is the last column and id V
    return torch.cat(drawn)
