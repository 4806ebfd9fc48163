"""The NLL per masked token as a function of the visible share: the input of ``grid=optimised``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.device import device_of
from didi_core.diffusion.grids import Curve
from didi_core.diffusion.heads import token_statistics
from didi_core.diffusion.masking import forward_mask
from didi_core.diffusion.noise import noisy_trunk
from didi_core.streams import generator
from didi_core.types import Denoiser


@torch.no_grad()
def nll_curve(denoiser: Denoiser, batches: Sequence[Int[Tensor, "B L"]], seed: int, points: int = 9) -> Curve:
    """Mean NLL per masked token (nats) as a function of the share already visible, measured on validation batches.

    H(a) = E[-log p(x0_l | xt)] over masked l at alpha_t = a; linear between ``points`` measured shares.
    """
    shares = torch.linspace(0, 0.97, points, dtype=torch.float64)
    device = device_of(denoiser)
    values = []
    for k, share in enumerate(shares.tolist()):
        total, count = 0.0, 0
        for i, batch in enumerate(batches):
            x0 = batch.to(device)
            alpha = torch.full((len(x0),), share, device=device)
            stream = generator(seed, "nll_curve", k, i, device=device)
            xt = forward_mask(x0, alpha, denoiser.vocabulary.maskable(x0), denoiser.vocabulary.mask, stream)
            masked = xt == denoiser.vocabulary.mask
            log_p = token_statistics(denoiser, noisy_trunk(denoiser, xt, stream)[masked], x0[masked][:, None]).log_p
            total, count = total - float(log_p.sum()), count + log_p.numel()
        values.append(total / max(count, 1))
    known = torch.tensor(values, dtype=torch.float64)

    def curve(at: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        right = torch.searchsorted(shares, at.contiguous().to(torch.float64)).clamp(1, points - 1)
        left = right - 1
        part = ((at - shares[left]) / (shares[right] - shares[left])).clamp(0, 1)
        return known[left] + part * (known[right] - known[left])

    return curve
