"""Public import path of our network as a transformers model: it loads without remote code, and samples by itself.

Importing this module registers it with ``AutoConfig`` and ``AutoModelForMaskedLM``, so that
``AutoModelForMaskedLM.from_pretrained(name)`` works for a folder of ``export`` or ``push``, and for its name
on the hub.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForMaskedLM

from didi_core.api import sample_networks
from didi_core.checkpoints.exported import MODEL_TYPE
from didi_core.checkpoints.huggingface import DiTHubConfig, DiTHubModel
from didi_core.sampling.generate import Generated

__all__ = ["DiTForMaskedDiffusion", "DiTHubConfig"]


class DiTForMaskedDiffusion(DiTHubModel):
    """A DiT and, if there is one, its scorer: logits of the clean token at every position, and samples."""

    def generate(self, num: int = 10, steps: int = 16, **settings: Any) -> Generated:
        """Samples in ``steps`` network calls, with the texts, the number of calls, and the settings of each.

        Args:
            settings: as of ``didi sample``: seed, length, template, sampler, law, grid, temperature, top_p, and the
                keys of the model's domain, such as ``prompt`` of a text or ``contig`` of a protein. Law and grid are by
                default those with which the model was trained.

        Raises:
            InputError: an unknown key or a wrong value, or the model's domain is not installed.
        """
        how = {"num": num, "steps": steps, "device": self.device.type, **settings}
        name = self.config.name_or_path or type(self).__name__
        return sample_networks(self.config.card, self.denoiser, self.scorer, name, how)


AutoConfig.register(MODEL_TYPE, DiTHubConfig, exist_ok=True)
AutoModelForMaskedLM.register(DiTHubConfig, DiTForMaskedDiffusion, exist_ok=True)
