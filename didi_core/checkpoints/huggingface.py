"""Our network as a transformers model, which ``from_pretrained`` reads and ``save_pretrained`` writes.

``didi_core.huggingface`` has the class for users, which also samples; this one knows no domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from didi_core.checkpoints.card import NOT_IN_CARD, OF_THE_FILES, read_vocabulary
from didi_core.checkpoints.exported import MODEL_TYPE
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.scorer import TokenScorer, scorer_from_trunk

PUBLIC = "DiTForMaskedDiffusion"  # name of the class for users, in config.json


class DiTHubConfig(PreTrainedConfig):
    """Sizes, vocabulary and card of a DiT.

    Args:
        network: the fields of ``DiTConfig``. vocabulary: those of ``Vocabulary``.
        scorer: how the exported scorer reads the trunk, or None without a scorer.
        card: the entries of the model's card that are not about its files.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        network: Mapping[str, Any] | None = None,
        vocabulary: Mapping[str, Any] | None = None,
        scorer: Mapping[str, Any] | None = None,
        card: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.network = dict(network or {})
        self.vocabulary = dict(vocabulary or {"size": 2})
        self.scorer = dict(scorer) if scorer is not None else None
        self.card = dict(card or {})
        size = int(self.vocabulary["size"])
        super().__init__(**{"vocab_size": size + 1, "mask_token_id": size, **kwargs})


class DiTHubModel(PreTrainedModel):
    """A DiT and, if there is one, its scorer; gives logits of the clean token at every position."""

    config_class = DiTHubConfig
    config: DiTHubConfig
    base_model_prefix = "denoiser"
    main_input_name = "input_ids"

    def __init__(self, config: DiTHubConfig) -> None:
        super().__init__(config)
        self.denoiser = DiT(DiTConfig(**config.network), read_vocabulary(config.vocabulary))
        self.scorer: TokenScorer | None = None
        if config.scorer is not None:
            self.scorer = scorer_from_trunk(self.denoiser, normed=bool(config.scorer["normed"]))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the network initialises itself."""

    @classmethod
    def of(cls, denoiser: DiT, scorer: TokenScorer | None, card: Mapping[str, Any]) -> Self:
        """Wrap networks; they are shared, not copied."""
        about = {key: value for key, value in card.items() if key not in OF_THE_FILES}
        config = DiTHubConfig(
            {key: value for key, value in asdict(denoiser.config).items() if key not in NOT_IN_CARD},
            asdict(denoiser.vocabulary),
            None if scorer is None else {"normed": scorer.normed},
            about,
            architectures=[PUBLIC],
        )
        with torch.device("meta"):
            made = cls(config)
        made.denoiser, made.scorer = denoiser, scorer
        return made

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        labels: Int[Tensor, "B L"] | None = None,
        noise: Float[Tensor, "B Z"] | None = None,
    ) -> MaskedLMOutput:
        """Raw logits; with ``labels`` also the mean cross-entropy where a label is not -100.

        noise: standard normal numbers, new at every call, for a student that reads some (``config.network["noise"]``).
        """
        logits = self.denoiser(input_ids, noise)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)
