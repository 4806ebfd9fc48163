"""Whole commands, which use what they have read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from didi_core.checkpoints.judge import load_causal
from didi_core.commands import COMMANDS
from didi_core.commands.compose import compose_jobs, compose_mapping
from didi_core.config import build
from didi_core.models.judge import Judge, JudgeConfig
from didi_language.tokenizer import END, load_tokenizer, train_tokenizer
from didi_protein.vocabulary import VOCABULARY as PROTEIN
from fuzzing.case import Case
from fuzzing.mutations import as_bytes, as_json, as_safetensors
from fuzzing.networks import own, sealed
from fuzzing.records import scores


def sampled(folder: Path) -> None:
    settings: dict[str, Any] = {"run": str(folder), "num": 1, "steps": 2, "length": 4, "out": str(folder / "x.jsonl")}
    command("sample", settings)


def filtered(folder: Path) -> None:
    command("filter", {"input": str(folder), "out": str(folder / "out"), "preset": "lenient", "top": 2})


def command(name: str, settings: Mapping[str, Any]) -> None:
    """A command as Python starts it; errors are not caught."""
    found = COMMANDS[name]
    job = compose_mapping(name, settings)
    found.run(build(found.settings, job.config), job.config, (name,))


def causal(folder: Path) -> None:
    Judge(JudgeConfig(8, 1, 2, 16), PROTEIN).network.save_pretrained(folder)


def judged(folder: Path) -> None:
    load_causal(str(folder), "data.judge")


def tokens(folder: Path) -> None:
    made = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(["one two"], 270), eos_token=END)
    made.save_pretrained(folder)


def tokenised(folder: Path) -> None:
    load_tokenizer(str(folder)).many(["one two"])


def words(folder: Path) -> None:
    (folder / "words").write_bytes(b"objective=didi\nobjective.reward=[{kind: scorer}]\ntraining.steps=3\nseed=1")


def composed(folder: Path) -> None:
    for job in compose_jobs("distill", (folder / "words").read_text(errors="replace").split("\n")):
        build(COMMANDS["distill"].settings, job.config)


COMMAND_CASES = {
    "sample with a card.json": Case("card.json", own, sampled, as_json, sealed, costly=True),
    "filter of scores.jsonl": Case("scores.jsonl", scores, filtered, as_json, costly=True),
    "a causal config.json": Case("config.json", causal, judged, as_json, costly=True),
    "a causal safetensors": Case("model.safetensors", causal, judged, as_safetensors, costly=True),
    "tokenizer_config.json": Case("tokenizer_config.json", tokens, tokenised, as_json, costly=True),
    "a command line": Case("words", words, composed, as_bytes, costly=True),
}  # fmt: skip
