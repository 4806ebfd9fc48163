"""A student that reads noise, made from a teacher without noise."""

from __future__ import annotations

import copy
from dataclasses import replace

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
    with seeded(seed, "noise"):
        made = DiT(replace(denoiser.config, noise=size), denoiser.vocabulary)
    kept = {name: value for name, value in made.state_dict().items() if name.startswith("noise_map.")}
    made.load_state_dict({**kept, **denoiser.state_dict()})
    device = next(denoiser.parameters()).device
    return made.to(device).train(denoiser.training)
