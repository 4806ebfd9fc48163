"""What a layout finds in a checkpoint, and the networks built from it. Every tensor is either used or reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from didi_core.checkpoints.weights import check_finite, check_names, check_sizes
from didi_core.errors import InputError
from didi_core.models.dit import FREQUENCIES, DiT, DiTConfig
from didi_core.models.rotary import Rotary
from didi_core.models.scorer import TokenScorer, scorer_from_trunk
from didi_core.streams import seeded
from didi_core.types import Denoiser, Vocabulary

INV_FREQ = "rotary_emb.inv_freq"
# Classic spectral norm to that of torch.nn.utils.parametrizations: the same three tensors.
SPECTRAL = {"weight_orig": "parametrizations.weight.original", "weight_u": "parametrizations.weight.0._u",
            "weight_v": "parametrizations.weight.0._v", "bias": "bias"}  # fmt: skip
HEAD = {f"output_layer.main.{i}.{theirs}": f"main.{i}.{ours}" for i in (0, 2) for theirs, ours in SPECTRAL.items()}
# Beyond the published layout: the norm that our own scorers read through.
NORMED_HEAD = {f"output_layer.{name}": f"network.output_layer.{name}" for name in
               ("norm_final.weight", "adaLN_modulation.weight", "adaLN_modulation.bias")}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The parts that a layout found.

    layout, weights: the layout's owner and the weights that were used, in words.
    denoiser, discriminator: tensors under the names of MDLM's network. ignored: what was left out, with reasons.
    """

    layout: str
    weights: str
    denoiser: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor] | None
    ignored: Mapping[str, str]


@dataclass(frozen=True)
class Imported:
    """Networks from a checkpoint, on the CPU, in eval mode.

    layout, weights: the layout's owner and the weights that were used. ignored: what was left out, with reasons.
    card: entries of its card, if it is one of our own checkpoints.
    """

    denoiser: Denoiser
    scorer: TokenScorer | None
    layout: str
    weights: str
    ignored: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


def gather(tensors: Iterable[str], prefixes: Sequence[str]) -> dict[str, str]:
    """The prefixes that occur among the names, as ignored parts."""
    return {p + "*": "not part of the network" for p in prefixes if any(name.startswith(p) for name in tensors)}


def build_denoiser(
    tensors: Mapping[str, Tensor], vocabulary: Vocabulary, where: str, heads: int | None = None, key: str = "source"
) -> DiT:
    """A DiT of the sizes that the tensors have, in fp32, in eval mode.

    Args:
        heads: attention heads, for files without rotary frequencies.

    Raises:
        InputError: tensors are missing, unexpected or of another shape, or the vocabulary is another one.
    """
    config = infer_config(tensors, where, heads)
    rows = len(tensors["vocab_embed.embedding"])
    if rows != vocabulary.size + 1:
        gpt2 = " (GPT-2's tokens)" if rows == 50258 else ""
        raise InputError(
            f"{key}={where} has {rows} rows of embeddings: {rows - 1} tokens{gpt2} and the mask. This domain has "
            f"{vocabulary.size} tokens. Choose the domain, or the tokenizer of its data, that it was made for."
        )
    held = {INV_FREQ: Rotary(config.hidden // config.heads).frequencies(), **tensors}
    check_sizes(lambda: DiT(config, vocabulary), config.layers, held, where)
    check_finite(held, where)
    with torch.device("meta"):  # no memory and no random numbers for weights that will be replaced
        model = DiT(config, vocabulary)
    model.load_state_dict({name: as_float(value) for name, value in held.items()}, assign=True)
    return model.eval()


def infer_config(tensors: Mapping[str, Tensor], where: str, heads: int | None = None) -> DiTConfig:
    """Sizes of MDLM's network from the shapes of its tensors.

    Raises:
        InputError: tensors are missing or of another shape, or nothing gives the number of heads.
    """
    first = ("mlp.0.weight", "adaLN_modulation.weight")
    needed = ("vocab_embed.embedding", "sigma_map.mlp.0.weight", *(f"blocks.0.{name}" for name in first))
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise InputError(f"{where}: missing tensors {', '.join(missing)}: it is not a time-independent DiT as in MDLM.")
    flat = next((name for name in needed if tensors[name].ndim != 2 or not tensors[name].numel()), None)
    if flat is not None:
        raise InputError(f"{where}: {flat} has the shape {tuple(tensors[flat].shape)}; in MDLM it is a matrix.")
    hidden = tensors["vocab_embed.embedding"].shape[1]
    conditioning, frequencies = tensors["sigma_map.mlp.0.weight"].shape
    if frequencies != FREQUENCIES:
        raise InputError(f"{where}: sigma_map reads {frequencies} sinusoids; MDLM's reads {FREQUENCIES}.")
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"blocks\.([0-9]{1,9})\.", name))}
    own = _heads(tensors, hidden, where)
    if own is None and heads is None:
        raise InputError(f"{where} does not contain the network's number of attention heads: give heads=<number>.")
    return DiTConfig(
        hidden=hidden,
        layers=max(blocks) + 1,
        heads=own or heads or 1,
        conditioning=conditioning,
        mlp_ratio=tensors["blocks.0.mlp.0.weight"].shape[0] // hidden,
        positions=tensors["position_embed"].numel() // hidden if "position_embed" in tensors else 0,
    )


def _heads(tensors: Mapping[str, Tensor], hidden: int, where: str) -> int | None:
    """Number of attention heads, from that of the rotary frequencies, which must have base 10,000."""
    if INV_FREQ not in tensors:
        return None
    found = tensors[INV_FREQ].float()
    if found.ndim != 1 or not found.numel():
        raise InputError(f"{where}: its rotary frequencies have the shape {tuple(found.shape)}, not a list's.")
    wanted = Rotary(2 * len(found)).frequencies()
    if not torch.allclose(found, wanted, rtol=1e-2):  # a half-precision copy is the same network
        raise InputError(f"{where}: its rotary frequencies are not those of base 10,000.")
    return int(hidden // (2 * len(found)))


def build_scorer(tensors: Mapping[str, Tensor], denoiser: DiT, where: str) -> TokenScorer:
    """A scorer with a discriminator's tensors and a trunk of the denoiser's sizes, in eval mode."""
    normed = "output_layer.norm_final.weight" in tensors
    heads = {**HEAD, **(NORMED_HEAD if normed else {})}
    trunk = {name: value for name, value in tensors.items() if name not in heads}
    renamed = {f"network.{name}": value for name, value in trunk.items()}
    renamed |= {heads[name]: tensors[name] for name in heads if name in tensors}
    with seeded(0, "weights that the file replaces"):
        scorer = scorer_from_trunk(denoiser, normed=normed)
    renamed.setdefault(f"network.{INV_FREQ}", denoiser.rotary_emb.inv_freq)
    check_names(scorer.state_dict(), renamed, f"{where}, discriminator")
    check_finite(renamed, f"{where}, discriminator")
    scorer.load_state_dict({name: as_float(value) for name, value in renamed.items()})
    return scorer.eval().requires_grad_(False)


def check_vocabulary(own: Vocabulary, wanted: Vocabulary, where: str) -> None:
    """Raise InputError for one of our own models that was made for another vocabulary than the domain's."""
    if (own.size, own.pinned) != (wanted.size, wanted.pinned):
        raise InputError(
            f"{where} was made for a vocabulary of {own.size} tokens (pinned {own.pinned}), this domain has "
            f"{wanted.size} (pinned {wanted.pinned}). Choose the domain and the settings that its card names."
        )
    if own.tokens and wanted.tokens and own.tokens != wanted.tokens:
        i = next(i for i, pair in enumerate(zip(own.tokens, wanted.tokens, strict=True)) if pair[0] != pair[1])
        raise InputError(
            f"{where} was made for other tokens than this domain's: its token {i} is {own.tokens[i]!r}, here it is "
            f"{wanted.tokens[i]!r}. Choose the domain and the settings that its card names."
        )


def as_float(value: Tensor) -> Tensor:
    """A separate copy in fp32, which does not depend on the memory-mapped file."""
    return value.detach().to(torch.float32).contiguous().clone()
