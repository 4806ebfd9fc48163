"""Our networks as models of transformers, which ``from_pretrained`` reads and ``save_pretrained`` writes.

``didi_core.huggingface`` has the classes for users, which also sample; these know no domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from didi_core.checkpoints.card import ARCHITECTURES, NOT_IN_CARD, OF_THE_FILES, architecture_of, read_vocabulary
from didi_core.checkpoints.exported import MODEL_TYPES, PUBLIC
from didi_core.models.scorer import TokenScorer, scorer_from_trunk
from didi_core.types import Denoiser

ONE_FILE = "1TB"  # of weights: no model is split


class HubConfig(PreTrainedConfig):
    """Sizes, vocabulary and card of a network.

    Args:
        network: the fields of its configuration (``DiTConfig``, ``EsmConfig``, ``LlamaConfig``).
        vocabulary: those of ``Vocabulary``.
        scorer: how the exported scorer reads the trunk, or None without a scorer.
        card: the entries of the model's card that are not about its files.
    """

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


class DiTHubConfig(HubConfig):
    """Of a DiT."""

    model_type = "didi_dit"
    __init__ = HubConfig.__init__  # transformers gives a class without one of its own another


class EsmHubConfig(HubConfig):
    """Of a network of ESM-2's architecture, such as DPLM and its students."""

    model_type = "didi_esm"
    __init__ = HubConfig.__init__


class LlamaHubConfig(HubConfig):
    """Of a network like LLaDA's, such as the student of a large teacher."""

    model_type = "didi_llama"
    __init__ = HubConfig.__init__


class HubModel(PreTrainedModel):
    """A denoiser and, if there is one, its scorer; gives logits of the clean token at every position."""

    config_class = HubConfig
    config: HubConfig
    base_model_prefix = "denoiser"
    main_input_name = "input_ids"

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        kind = ARCHITECTURES[MODEL_TYPES[config.model_type]]
        self.denoiser = kind.build(config.network, read_vocabulary(config.vocabulary))
        self.scorer: TokenScorer | None = None
        if config.scorer is not None:
            self.scorer = scorer_from_trunk(self.denoiser, normed=bool(config.scorer["normed"]))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the network initialises itself."""

    def save_pretrained(  # type: ignore[override]  # options are passed on
        self, save_directory: str | PathLike[str], **options: Any
    ) -> None:
        """As in transformers, into one file, with our names, and tied weights under both as in every file of ours."""
        tensors = {name: value.detach().clone() for name, value in self.state_dict().items()}
        own = {"state_dict": tensors, "max_shard_size": ONE_FILE, "save_original_format": False}
        super().save_pretrained(save_directory, **{**own, **options})

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        labels: Int[Tensor, "B L"] | None = None,
        noise: Float[Tensor, "B Z"] | None = None,
    ) -> MaskedLMOutput:
        """Raw logits; with ``labels`` also the mean cross-entropy where a label is not -100.

        noise: standard normal numbers, new at every call, for a student that reads some (``config.network["noise"]``).
        """
        logits = self.denoiser(input_ids) if noise is None else self.denoiser(input_ids, noise)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)


class DiTHubModel(HubModel):
    """A DiT."""

    config_class = DiTHubConfig


class EsmHubModel(HubModel):
    """A network of ESM-2's architecture, whose head is tied to its embedding."""

    config_class = EsmHubConfig
    _tied_weights_keys = {"denoiser.lm_head.decoder.weight": "denoiser.esm.embeddings.word_embeddings.weight"}


class LlamaHubModel(HubModel):
    """A network like LLaDA's. One whose head is its embedding has no tensor for the head."""

    config_class = LlamaHubConfig


MODELS: dict[str, type[HubModel]] = {"dit": DiTHubModel, "esm": EsmHubModel, "llama": LlamaHubModel}


def wrapped(denoiser: Denoiser, scorer: TokenScorer | None, card: Mapping[str, Any]) -> HubModel:
    """Networks as one model of transformers; they are shared, not copied.

    denoiser: of an architecture in ``MODELS``. card: that of the denoiser.
    """
    name = str(architecture_of(denoiser))
    kind, about = MODELS[name], {key: value for key, value in card.items() if key not in OF_THE_FILES}
    sizes: Any = denoiser.config
    config = kind.config_class(
        {key: value for key, value in asdict(sizes).items() if key not in NOT_IN_CARD},
        asdict(denoiser.vocabulary),
        None if scorer is None else {"normed": scorer.normed},
        about,
        architectures=[PUBLIC[name]],
    )
    with torch.device("meta"):
        made = kind(config)
    made.denoiser, made.scorer = denoiser, scorer
    return made
