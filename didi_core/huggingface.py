"""Public import path of our networks as transformers models: they load without remote code, and sample by themselves.

Importing this module registers them with ``AutoConfig`` and ``AutoModelForMaskedLM``, so that
``AutoModelForMaskedLM.from_pretrained(name)`` works for a folder of ``export`` or ``push``, and for its name
on the hub.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForMaskedLM

from didi_core.api import sample_networks
from didi_core.checkpoints.huggingface import (
    DiTHubConfig,
    DiTHubModel,
    EsmHubConfig,
    EsmHubModel,
    HubModel,
    LlamaHubConfig,
    LlamaHubModel,
)
from didi_core.sampling.generate import Generated

__all__ = [
    "DiTForMaskedDiffusion",
    "DiTHubConfig",
    "EsmForMaskedDiffusion",
    "EsmHubConfig",
    "LlamaForMaskedDiffusion",
    "LlamaHubConfig",
]


class Sampling(HubModel):
    """A model that samples by itself."""

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


class DiTForMaskedDiffusion(DiTHubModel, Sampling):
    """A DiT and, if there is one, its scorer: logits of the clean token at every position, and samples."""


class EsmForMaskedDiffusion(EsmHubModel, Sampling):
    """The same of ESM-2's architecture: a student of DPLM."""


class LlamaForMaskedDiffusion(LlamaHubModel, Sampling):
    """The same of LLaDA's architecture: a student of a large teacher, in the type of its weights."""


for _config, _model in (
    (DiTHubConfig, DiTForMaskedDiffusion),
    (EsmHubConfig, EsmForMaskedDiffusion),
    (LlamaHubConfig, LlamaForMaskedDiffusion),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForMaskedLM.register(_config, _model, exist_ok=True)
