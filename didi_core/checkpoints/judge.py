"""A judge on disk: ``model.safetensors`` beside ``card.json``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from didi_core.checkpoints.card import read_vocabulary
from didi_core.checkpoints.weights import read_weights, write_weights
from didi_core.errors import InputError
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.storage.files import read_json, write_json

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
