"""Who judges proteins: the bundled model, one that ``pretrain objective=autoregressive`` made, or one of the hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from didi_core.checkpoints.judge import judge_folder, load_causal, load_judge
from didi_core.checkpoints.quiet import quiet
from didi_core.config import user_path
from didi_core.errors import InputError, one_line
from didi_core.metrics.judge import JudgePerplexity
from didi_core.storage.files import packaged

from .vocabulary import VOCABULARY

BUNDLED = "bundled"
LINE = 60  # residues of a FASTA line
KEY = "data.judge"
asset = partial(packaged, __package__)


def protein_judge(name: str, encode: Callable[[str], list[int]]) -> JudgePerplexity:
    """Perplexity under the judge of that name, the end of the sequence included.

    A model of transformers reads the sequence in tokens of its own, between its begin and end tokens; where one of them
    is the line break, in lines of 60 residues, as FASTA has them and ProtGPT2 was trained.

    Args:
        name: ``bundled``, a folder with a judge's card.json, a run that trained one, or a hub id or folder of
            transformers.
        encode: text to ids of this domain.

    Raises:
        InputError: it cannot be had, or reads other tokens.
    """
    own = asset("judge") if name == BUNDLED else judge_folder(name)
    if own is None:
        return _of_transformers(name)
    judge = load_judge(own)
    if judge.vocabulary.size != VOCABULARY.size:
        raise InputError(
            f"{KEY}={name} has {judge.vocabulary.size} tokens, proteins have {VOCABULARY.size}: it was trained on "
            "another domain."
        )
    if name == BUNDLED:
        return JudgePerplexity(judge, encode)
    shape = f"GPT-2 architecture, {judge.config.layers} layers, {judge.config.hidden} wide"
    about = f"under the autoregressive judge in {name} ({shape})"
    return JudgePerplexity(judge, encode, windows=True, about=about)


def _of_transformers(name: str) -> JudgePerplexity:
    from transformers import AutoTokenizer

    model = load_causal(name, KEY)
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(str(user_path(name)), trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer can raise anything
        raise InputError(f"{KEY}={name} has no tokenizer: {one_line(error, 160)}") from None
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    begin = next((i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id, end) if i is not None), None)
    if begin is None:
        raise InputError(f"{KEY}={name} has no begin and no end token: set bos_token in its tokenizer_config.json.")

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    lines = bool(ids("\n")) and tokenizer.unk_token_id not in ids("\n")

    def encode(text: str) -> list[int]:
        written = text
        if lines:
            written = "\n" + "\n".join(text[i : i + LINE] for i in range(0, len(text), LINE)) + "\n"
        return [begin, *ids(written), *([] if end is None else [end])]

    how = ", written in lines as in FASTA" if lines else ""
    about = f"under {name}, per token of its own{how}, context {model.context}"
    return JudgePerplexity(model, encode, windows=True, about=about)
