"""A judge on disk: ``model.safetensors`` beside ``card.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from didi_core.errors import InputError
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.storage.files import sha256, write_atomic, write_json
from didi_core.types import Vocabulary


def save_judge(folder: Path, judge: Judge, about: dict[str, object] | None = None) -> None:
    """Write model.safetensors and card.json."""
    tensors = {
        k: v.detach().cpu().contiguous().clone() for k, v in judge.state_dict().items() if k != "network.lm_head.weight"
    }
    write_atomic(folder / "model.safetensors", lambda path: save_file(tensors, path))
    card = {
        "kind": "judge",
        "architecture": "gpt2",
        "config": asdict(judge.config),
        "vocabulary": asdict(judge.vocabulary),
        "sha256": {"model.safetensors": sha256(folder / "model.safetensors")},
    }
    write_json(folder / "card.json", {**card, **(about or {})})


def load_judge(folder: Path) -> Judge:
    """Read a judge in eval mode; InputError names what is missing, damaged or of another kind."""
    try:
        card = json.loads((folder / "card.json").read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is not a judge: it has no card.json.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{folder / 'card.json'} is damaged: {error}") from None
    if card.get("kind") != "judge":
        raise InputError(f"{folder} holds a {card.get('kind', 'model of unknown kind')}, not a judge.")
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256(weights) != card["sha256"]["model.safetensors"]:
        raise InputError(f"{weights} is missing or does not match the hash in card.json: get the folder anew.")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["vocabulary"].items()}
    judge = Judge(JudgeConfig(**card["config"]), Vocabulary(**fields))
    missing, unexpected = judge.load_state_dict(load_file(weights), strict=False)
    if unexpected or set(missing) - {"network.lm_head.weight"}:
        raise InputError(f"{weights} is of another architecture: missing {missing}, unexpected {unexpected}.")
    judge.network.tie_weights()
    return judge.eval()
