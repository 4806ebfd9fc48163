"""MDLM's layout, which IDLM and SDTT share: the network under ``backbone.``, in Lightning files with an EMA beside it.

Facts (kuleshov-group/mdlm ``diffusion.py``, ``models/ema.py``; jdeschena/sdtt ``core/diffusion/absorbing.py``): the EMA
is a list of tensors in the order of the parameters of the backbone, then of the noise schedule; a log-linear schedule
has none. The Hugging Face model wraps the network once more, and people's own training loops put ``model.`` around it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from didi_core.checkpoints.importers.parts import Parts, gather
from didi_core.checkpoints.importers.sources import Held
from didi_core.errors import InputError

COUNTS = ("n_averaged",)  # of torch's AveragedModel
WRAPPERS = ("backbone.", "model.", "net.", "network.", "denoiser.", "diffusion.", "student.")
NETWORK = ("vocab_embed.", "sigma_map.", "rotary_emb.", "blocks.", "output_layer.")
BUFFERS = ("rotary_emb.inv_freq",)  # in the state dict but not among the parameters
# State that Lightning writes beside the network: metrics, and the schedule's buffers.
BESIDE = ("noise.", "train_metrics.", "valid_metrics.", "test_metrics.", "gen_ppl_metric.", "metrics.", "teacher.",
          *COUNTS)  # fmt: skip


def recognises(held: Held) -> bool:
    """Whether a checkpoint has the network, bare or under ``backbone.``."""
    return any(unwrapped(name).startswith("vocab_embed.") for name in held.tensors)


def unwrapped(name: str) -> str:
    """A tensor's name without the wrappers around the network."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def parts(held: Held, weights: str) -> Parts:
    """The network's tensors: the EMA if there is one, unless ``weights=raw``.

    Raises:
        InputError: there are two networks under one name, or no EMA where one is asked for.
    """
    bare = [unwrapped(name) for name in held.tensors]
    ignored = gather(bare, BESIDE) | {name: "training state" for name in held.other}
    pairs = zip(bare, held.tensors.values(), strict=True)
    raw = {name: value for name, value in pairs if not name.startswith(BESIDE)}
    if len(raw) + sum(name.startswith(BESIDE) for name in bare) != len(bare):
        raise InputError(f"{held.source} holds two networks under one name: give the file of one of them.")
    if held.average is not None and weights != "raw":
        average = {unwrapped(name): value for name, value in held.average.items() if unwrapped(name) not in COUNTS}
        kept = {name: raw[name] for name in BUFFERS if name in raw}
        return Parts(_name(held), "EMA", {**kept, **average}, None, {**ignored, "raw weights": "the EMA is used"})
    if held.average is not None:
        return Parts(_name(held), "raw", raw, None, {**ignored, "ema": "weights=raw"})
    if held.shadow is None:
        if weights == "ema":
            raise InputError(f"weights=ema, but {held.source} has no EMA. Set weights=auto.")
        return Parts(_name(held), "as they are (no EMA in the file)", raw, None, ignored)
    if weights == "raw":
        return Parts(_name(held), "raw", raw, None, {**ignored, "ema": "weights=raw"})
    return Parts(_name(held), "EMA", named_shadow(held, raw), None, {**ignored, "raw weights": "the EMA is used"})


def named_shadow(held: Held, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the EMA under the names of their parameters. Raises InputError where a shape differs."""
    shadow = held.shadow or ()
    names = [name for name in raw if name not in BUFFERS]
    if len(shadow) != len(names):
        raise InputError(
            f"{held.source}: its EMA has {len(shadow)} tensors, the network {len(names)} parameters, so they cannot be "
            "matched. Set weights=raw to import the raw weights."
        )
    for name, value in zip(names, shadow, strict=True):
        if value.shape != raw[name].shape:
            raise InputError(
                f"{held.source}: the EMA tensor in the place of {name} has shape {tuple(value.shape)}, not "
                f"{tuple(raw[name].shape)}, so the EMA belongs to another network. Set weights=raw to do without it."
            )
    return {**{name: raw[name] for name in BUFFERS if name in raw}, **dict(zip(names, shadow, strict=True))}


def _name(held: Held) -> str:
    """Which code wrote this layout, as far as its configuration shows."""
    if held.setting("parameterization", "name") == "multi-round-sdtt":
        return "SDTT"
    return "MDLM"
