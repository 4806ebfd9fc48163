"""Features of samples: mean hidden states of a frozen denoiser that is not the judge.

A likelihood shows whether each sample is probable, but not what the set lacks. A distance between distributions of
features shows both. The denoiser is the domain's bundled teacher: it is frozen and was trained on the domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from didi_core.device import device_of
from didi_core.diffusion.heads import trunk_in_pieces
from didi_core.storage.fingerprint import model_hash
from didi_core.types import Denoiser, Sample


@dataclass
class TrunkFeatures:
    """Mean of a denoiser's hidden states over the free positions of a text without masks; cached by text.

    A text without a free position is undefined (nan). Batches go from long to short texts, with at most
    ``token_budget`` tokens.
    """

    denoiser: Denoiser
    encode: Callable[[str], list[int]]
    token_budget: int = 8192
    _known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def identity(self) -> str:
        """Everything on which the features depend."""
        return f"trunk mean {model_hash(self.denoiser)}"

    def __call__(self, samples: Sequence[Sample]) -> Float[np.ndarray, "n D"]:
        """One row per sample."""
        fresh = {s.text for s in samples} - self._known.keys()
        rows = sorted(((text, self.encode(text)) for text in fresh), key=lambda row: (-len(row[1]), row[0]))
        start = 0
        while start < len(rows):
            size = max(self.token_budget // max(len(rows[start][1]), 1), 1)
            same = rows[start : start + size]
            if self.denoiser.vocabulary.pad is None:  # without padding, a batch has texts of one length
                same = [row for row in same if len(row[1]) == len(same[0][1])]
            self._compute(same)
            start += len(same)
        return np.stack([self._known[sample.text] for sample in samples])

    @torch.no_grad()
    def _compute(self, rows: Sequence[tuple[str, list[int]]]) -> None:
        vocabulary, width = self.denoiser.vocabulary, max(len(ids) for _, ids in rows)
        device = device_of(self.denoiser)
        pad = vocabulary.pad or 0
        tokens = torch.tensor([[*ids, *([pad] * (width - len(ids)))] for _, ids in rows], device=device)
        if not width:
            hidden_width = self.denoiser.trunk(torch.tensor([[0]], device=device)).shape[-1]
            self._known |= {text: np.full(hidden_width, np.nan) for text, _ in rows}
            return
        with torch.autocast(device.type, enabled=False):
            hidden = trunk_in_pieces(self.denoiser, tokens).double()
        free = vocabulary.maskable(tokens)[..., None]
        means = (hidden * free).sum(1) / free.sum(1)  # 0 / 0 is nan: no free position
        for (text, _), row in zip(rows, means.cpu().numpy(), strict=True):
            self._known[text] = row


def digest(*arrays: np.ndarray) -> str:
    """Short hash of arrays."""
    made = hashlib.sha256()
    for array in arrays:
        made.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return made.hexdigest()[:16]
