"""A student that reads noise, made from a teacher without noise."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from didi_core.device import device_of
from didi_core.errors import InputError
from didi_core.models.dit import DiT
from didi_core.streams import seeded
from didi_core.types import Denoiser, NoisyDenoiser


def with_noise(denoiser: Denoiser, size: int, seed: int) -> Denoiser:
    """A copy of a denoiser that also reads ``size`` normal numbers for each sequence; what it makes of them starts
    small.

    With size 0 the denoiser is copied unchanged, with any noise that it already reads.

    Raises:
        InputError: the network has another architecture, or reads another number of them.
    """
    has = denoiser.noise_size if isinstance(denoiser, NoisyDenoiser) else 0
    if size in (0, has):
        return copy.deepcopy(denoiser)
    if not isinstance(denoiser, DiT):
        raise InputError(
            f"student.noise={size}: the teacher is a {type(denoiser).__name__}, and only a DiT can read noise. "
            "Set student.noise=0."
        )
    if has:
        raise InputError(f"student.noise={size}: the teacher reads {has} numbers already. Set student.noise={has}.")
    config = replace(denoiser.config, noise=size)
    with seeded(seed, "noise"):  # the map is drawn before the blocks, so that one of them is enough
        drawn = DiT(replace(config, layers=1), denoiser.vocabulary).noise_map
    assert drawn is not None, "there is a size"
    with torch.device("meta"):  # the other weights are the denoiser's
        made = DiT(config, denoiser.vocabulary)
    device = device_of(denoiser)
    made.noise_map = drawn if device.type == "meta" else drawn.to(device)  # of an outline, it alone has values
    held = {name: value.clone() for name, value in denoiser.state_dict().items()}
    made.load_state_dict({**held, **made.noise_map.state_dict(prefix="noise_map.")}, assign=True)
    return made.train(denoiser.training)
