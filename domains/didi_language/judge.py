"""Judges of texts: the bundled one, one from ``pretrain objective=autoregressive``, or one from the hub."""

from __future__ import annotations

from pathlib import Path

from didi_core.checkpoints.card import read_card
from didi_core.checkpoints.judge import HubJudge, judge_folder, load_causal, load_judge
from didi_core.errors import InputError
from didi_core.metrics.judge import CausalModel, JudgePerplexity
from didi_core.models.judge import Judge

from .assets import BUNDLED, asset
from .tokenizer import TextTokenizer, load_tokenizer


def text_judge(name: str, end_text: str) -> JudgePerplexity:
    """Perplexity under the judge of that name, by the published protocol (MDLM, DiDi-Instruct).

    The text is tokenised again with the judge's own tokenizer, up to and including the first end token, after a begin
    token that is not scored. The context is that of the judge, at most 1,024 tokens; a longer text continues in new
    windows.

    Args:
        name: ``bundled``, a folder with a judge's card.json, or a hub id or folder of transformers (``gpt2-large``).
        end_text: spelling of the end token in the texts.

    Raises:
        InputError: the judge cannot be loaded; the message gives the key to change.
    """
    own = judge_folder(str(asset("judge")) if name == BUNDLED else name)
    model: CausalModel
    if own is not None:
        model, tokenizer, about = *_own(own), _shape(own, name)
    elif name == BUNDLED:
        raise InputError("the bundled judge is not in this installation: set data.judge=<folder or hub id>")
    else:
        model, tokenizer = _of_transformers(name)
        about = f"under {name}, texts retokenised, up to the first end token, context {model.context}"

    def encode(text: str) -> list[int]:
        first, end, _ = text.partition(end_text)
        return [tokenizer.begin, *tokenizer.ids(first), *([tokenizer.end] if end else [])]

    return JudgePerplexity(model, encode, windows=True, about=about)


def _own(folder: Path) -> tuple[Judge, TextTokenizer]:
    judge = load_judge(folder)
    tokenizer = load_tokenizer((read_card(folder).get("data") or {}).get("tokenizer", BUNDLED))
    if tokenizer.size != judge.vocabulary.size:
        raise InputError(
            f"the judge in {folder} has {judge.vocabulary.size} tokens, its tokenizer {tokenizer.name!r} "
            f"{tokenizer.size}: it was trained with another one."
        )
    return judge, tokenizer


def _shape(folder: Path, name: str) -> str:
    config = read_card(folder)["config"]
    called = "the bundled autoregressive judge" if name == BUNDLED else f"the autoregressive judge in {name}"
    shape = f"GPT-2 architecture, {config['layers']} layers, {config['hidden']} wide"
    return f"under {called} ({shape}), texts retokenised, up to the first end token"


def _of_transformers(name: str) -> tuple[HubJudge, TextTokenizer]:
    judge = load_causal(name, "data.judge", BUNDLED)
    return judge, load_tokenizer(name)
