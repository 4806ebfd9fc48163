"""Our own Hugging Face export (``didi_core.huggingface``), read back without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from didi_core.checkpoints.card import read_vocabulary
from didi_core.checkpoints.importers.parts import Imported, check_names, check_vocabulary
from didi_core.checkpoints.importers.sources import Held
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_core.streams import seeded
from didi_core.types import Denoiser, Vocabulary

MODEL_TYPE = "didi_dit"


def read_export(held: Held, vocabulary: Vocabulary, key: str) -> Imported:
    """Both networks and the card.

    Raises:
        InputError: the configuration describes no network, the tensors do not fit it, or the vocabulary is another.
    """
    where = f"{key}={held.source}"
    try:
        sizes, own = DiTConfig(**_mapping(held, "network")), read_vocabulary(_mapping(held, "vocabulary"))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: config.json describes no network: {error}.") from None
    check_vocabulary(own, vocabulary, where)
    with seeded(0, "weights that the file replaces"):
        denoiser: Denoiser = DiT(sizes, own)
        given = held.setting("scorer")
        scorer = scorer_from_trunk(denoiser, normed=bool(given["normed"])) if isinstance(given, Mapping) else None
    both = nn.ModuleDict({"denoiser": denoiser, **({"scorer": scorer} if scorer is not None else {})})
    check_names(both.state_dict(), held.tensors, where)
    both.load_state_dict(dict(held.tensors))
    both.eval()
    guide = scorer.requires_grad_(False) if scorer is not None else None
    return Imported(denoiser, guide, "didi_core", "as they are", card=_mapping(held, "card"))


def _mapping(held: Held, name: str) -> dict[str, Any]:
    found = held.setting(name)
    if not isinstance(found, Mapping):
        raise InputError(f"{held.source}: config.json has no entry {name!r}, so the export is incomplete.")
    return dict(found)
