"""DiDi-Instruct's layouts: Lightning files with ``student_ema.`` and ``discriminator.``, and the two files on the hub.

Facts (haoyangzheng-ai/didi-instruct ``algo.py``, ``models/hf_to_ckpt.py``): samples are written by ``student_ema``, and
``backbone`` is the raw student; ``model.safetensors`` is ``student_ema`` without its prefix. The discriminator is the
network with ``output_layer`` replaced by two linear layers under classic spectral norm, right after the last block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from didi_core.checkpoints.importers import mdlm
from didi_core.checkpoints.importers.parts import Parts, gather
from didi_core.checkpoints.importers.sources import Held
from didi_core.errors import InputError

STUDENT, RAW, DISCRIMINATOR = "student_ema.", "backbone.", "discriminator."
OUTSIDE = re.compile(r"^((model|net|network|algo)\.)+(?=(student_ema|backbone|discriminator)\.)")
BESIDE = (*mdlm.BESIDE, "reward_baseline")


def recognises(held: Held) -> bool:
    """Whether a checkpoint has a named EMA of the student, or a discriminator beside the network."""
    names = map(_own, held.tensors)
    return held.discriminator is not None or any(name.startswith((STUDENT, DISCRIMINATOR)) for name in names)


def parts(held: Held, weights: str) -> Parts:
    """Student and discriminator.

    Raises:
        InputError: there are two networks under one name, none of the wanted kind, or unexpected tensors.
    """
    if held.discriminator is not None:
        bare = {mdlm.unwrapped(name): value for name, value in held.tensors.items()}
        return Parts("DiDi-Instruct", "EMA (all that is published)", bare, held.discriminator, {})
    prefix = RAW if weights == "raw" else STUDENT
    tensors = {_own(name): value for name, value in held.tensors.items()}
    if len(tensors) != len(held.tensors):
        raise InputError(f"{held.source} holds two networks under one name: give the file of one of them.")
    student = _under(tensors, prefix)
    if not student:
        raise InputError(f"{held.source} has no tensors under {prefix}*: set weights={_other(weights)}.")
    ignored = gather(tensors, BESIDE) | {name: "training state" for name in held.other}
    if held.shadow is not None:
        ignored["ema"] = "samples are written by student_ema"
    unused = STUDENT if prefix == RAW else RAW
    ignored |= {unused + "*": f"{prefix}* is used"} if _under(tensors, unused) else {}
    known = (STUDENT, RAW, DISCRIMINATOR, *BESIDE)
    strange = [name for name in tensors if not name.startswith(known)]
    if strange:
        raise InputError(f"{held.source}: unexpected tensors {', '.join(strange[:5])} beside DiDi-Instruct's.")
    label = "raw" if prefix == RAW else "EMA"
    return Parts("DiDi-Instruct", label, student, _under(tensors, DISCRIMINATOR) or None, ignored)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {mdlm.unwrapped(name[len(prefix) :]): value for name, value in tensors.items() if name.startswith(prefix)}


def _own(name: str) -> str:
    """A name without the wrappers around student, network and discriminator."""
    return OUTSIDE.sub("", name)


def _other(weights: str) -> str:
    return "ema" if weights == "raw" else "raw"
