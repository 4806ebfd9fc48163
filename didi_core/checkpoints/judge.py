"""A judge on disk: ``model.safetensors`` beside ``card.json``, or a causal model of transformers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.checkpoints.card import CARD, MODEL, check_seal, read_vocabulary, write_card
from didi_core.checkpoints.quiet import quiet
from didi_core.checkpoints.weights import check_sizes, read_weights, write_weights
from didi_core.config import build, user_path
from didi_core.errors import InputError, first_line
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.storage.files import read_json

LONGEST = 1024  # tokens of context in the published protocol
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")  # names that transformers' configurations have
BYTES_A_LAYER = 64  # less than the name of a single tensor takes in a file
TIED = "network.lm_head.weight"  # tied to the embedding, so it is not written


def save_judge(folder: Path, judge: Judge, about: dict[str, object] | None = None) -> None:
    """Write model.safetensors and card.json."""
    digest = write_weights(folder / MODEL, judge, (TIED,))
    card = {
        "kind": "judge",
        "architecture": "gpt2",
        "config": asdict(judge.config),
        "vocabulary": asdict(judge.vocabulary),
        "sha256": {MODEL: digest},
    }
    write_card(folder, {**card, **(about or {})})


def load_judge(folder: Path) -> Judge:
    """Read a judge, in eval mode. Raises InputError for what is missing, damaged or of another kind."""
    if not (folder / CARD).is_file():
        raise InputError(
            f"{folder} is not a judge: it has no card.json. "
            "Give a run of pretrain objective=autoregressive."
        )
    card, weights = read_json(folder / CARD), folder / MODEL
    if card.get("kind") != "judge":
        raise InputError(
            f"{folder} holds a {card.get('kind', 'model of unknown kind')}, not a judge. Give a run of "
            "pretrain objective=autoregressive."
        )
    check_seal(folder / CARD, card)
    try:
        tensors = read_weights(weights, card["sha256"][MODEL])
        config, vocabulary = build(JudgeConfig, card["config"], "config"), read_vocabulary(card["vocabulary"])
        check_sizes(lambda: Judge(config, vocabulary), config.layers, tensors, str(weights), (TIED,))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"{folder / CARD} describes a judge that cannot be built: {error}. "
            "Get the folder again."
        ) from None
    judge = Judge(config, vocabulary)
    judge.load_state_dict(tensors, strict=False)  # without the tied matrix
    judge.network.tie_weights()
    return judge.eval()


def judge_folder(name: str) -> Path | None:
    """The folder with a judge's card that a name means: itself, or ``judge/`` of a run; None for any other name."""
    folder = user_path(name)
    return next((found for found in (folder, folder / "judge") if (found / CARD).is_file()), None)


def causal_network(name: str, key: str, otherwise: str) -> Any:
    """A causal model of transformers, whole, in fp32.

    Args:
        key: the setting that names it. otherwise: what to give in its place, for messages.

    Raises:
        InputError: it cannot be loaded, or lacks weights; no code of a stranger is run for it.
    """
    from transformers import AutoModelForCausalLM

    advice = f"Give a folder on this machine that holds the model, or {otherwise}."
    folder = user_path(name)
    check_depth(folder, f"{key}={name}")
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # a configuration is checked by many libraries, each with errors of its own
        reason = first_line(error)[:160].rstrip(".")
        raise InputError(f"{key}={name} cannot be loaded: {reason}. {advice}") from None
    network, info = loaded
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise InputError(f"{key}={name} lacks the weights of {', '.join(lacking[:4])}: it is not whole. {advice}")
    return network


def check_depth(folder: Path, where: str) -> None:
    """Raise InputError for a folder whose configuration has more layers than its files of weights have room for."""
    if not (folder / "config.json").is_file():
        return
    config = read_json(folder / "config.json")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    for name in LAYERS:
        if isinstance(config.get(name), int) and config[name] * BYTES_A_LAYER > size:
            raise InputError(
                f"{where}: config.json has {name}={config[name]}, and the weights beside it are {size:,} bytes: one of "
                "the two is damaged. Get the folder again."
            )


class HubJudge(nn.Module):
    """A causal language model of transformers with the interface ``didi_core.metrics.judge.CausalModel``."""

    def __init__(self, network: nn.Module, context: int) -> None:
        super().__init__()
        self.network, self.context = network, context

    def token_nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        logits = self.network(input_ids=tokens[:, :-1], use_cache=False).logits.float()
        nll = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        return nll, torch.ones_like(nll)


def load_causal(name: str, key: str, otherwise: str = "bundled") -> HubJudge:
    """A causal model of transformers, by hub id or folder, in eval mode.

    Args:
        key: the setting that names it. otherwise: a value of it that always works.

    Raises:
        InputError: it cannot be loaded; no code of a stranger is run for it.
    """
    network = causal_network(name, key, f"{key}={otherwise}, which needs no network")
    context = min(int(getattr(network.config, "max_position_embeddings", LONGEST)), LONGEST)
    return HubJudge(network, context).eval()
