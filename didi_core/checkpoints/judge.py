"""A judge on disk: ``model.safetensors`` beside ``card.json``, or a causal model of transformers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.checkpoints.card import read_vocabulary
from didi_core.checkpoints.weights import read_weights, write_weights
from didi_core.errors import InputError
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.storage.files import read_json, write_json

LONGEST = 1024  # tokens of context in the published protocol
TIED = "network.lm_head.weight"  # tied to the embedding, so it is not written


def save_judge(folder: Path, judge: Judge, about: dict[str, object] | None = None) -> None:
    """Write model.safetensors and card.json."""
    digest = write_weights(folder / "model.safetensors", judge, (TIED,))
    card = {
        "kind": "judge",
        "architecture": "gpt2",
        "config": asdict(judge.config),
        "vocabulary": asdict(judge.vocabulary),
        "sha256": {"model.safetensors": digest},
    }
    write_json(folder / "card.json", {**card, **(about or {})})


def load_judge(folder: Path) -> Judge:
    """Read a judge, in eval mode. Raises InputError for what is missing, damaged or of another kind."""
    if not (folder / "card.json").is_file():
        raise InputError(f"{folder} is not a judge: it has no card.json.")
    card, weights = read_json(folder / "card.json"), folder / "model.safetensors"
    if card.get("kind") != "judge":
        raise InputError(f"{folder} holds a {card.get('kind', 'model of unknown kind')}, not a judge.")
    try:
        judge = Judge(JudgeConfig(**card["config"]), read_vocabulary(card["vocabulary"]))
        digest = card["sha256"]["model.safetensors"]
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise InputError(f"{folder / 'card.json'} describes a judge that cannot be built: {error}.") from None
    missing, unexpected = judge.load_state_dict(read_weights(weights, digest), strict=False)
    if unexpected or set(missing) - {TIED}:
        raise InputError(f"{weights} belongs to another architecture: missing {missing}, unexpected {unexpected}.")
    judge.network.tie_weights()
    return judge.eval()


def judge_folder(name: str) -> Path | None:
    """The folder with a judge's card that a name means: itself, or ``judge/`` of a run; None for any other name."""
    folder = Path(name).expanduser()
    return next((found for found in (folder, folder / "judge") if (found / "card.json").is_file()), None)


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
    """A causal model of transformers, by hub id or folder, in eval mode, on a GPU where there is one.

    Args:
        key: the setting that names it. otherwise: a value of it that always works.

    Raises:
        InputError: it cannot be loaded; no code of a stranger is run for it.
    """
    from transformers import AutoModelForCausalLM

    try:
        network = AutoModelForCausalLM.from_pretrained(
            str(Path(name).expanduser()), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split("\n")[0].split())[:160]
        raise InputError(
            f"{key}={name} cannot be loaded: {reason} Give a folder on this machine that holds the model, or "
            f"{key}={otherwise}, which needs no network."
        ) from None
    context = min(int(getattr(network.config, "max_position_embeddings", LONGEST)), LONGEST)
    judge = HubJudge(network, context).eval()
    return judge.to("cuda") if torch.cuda.is_available() else judge
