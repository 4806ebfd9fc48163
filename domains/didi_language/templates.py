"""Texts with something to fill in: a prompt to go on from, or a text with gaps.

A gap is written ``[[12]]`` (twelve tokens) or ``[[*]]`` (as many as make the block full; once at most).
"""

from __future__ import annotations

import re

from didi_core.errors import InputError

from .tokenizer import TextTokenizer

_GAP = re.compile(r"\[\[(\d+|\*)\]\]")
REST = "*"


def prompt_template(tokenizer: TextTokenizer, text: str, length: int | None, most: int) -> list[int]:
    """The prompt's ids and masks up to ``length`` tokens (by custom ``most``, what a block of the model holds).

    Raises:
        InputError: an empty prompt, or one that leaves nothing to write.
    """
    pinned = tokenizer.ids(text)
    whole = most if length is None else length
    if not pinned:
        raise InputError("prompt is empty: give a text to go on from, or leave prompt out.")
    if whole > most:
        raise InputError(f"length={whole} is longer than the model: it writes at most {most} tokens (data.length).")
    if len(pinned) >= whole:
        limit = f"length={length}" if length is not None else f"the model, which writes {most} tokens"
        raise InputError(
            f"prompt={shorten(text)!r} has {len(pinned)} tokens and is longer than {limit}: shorten the prompt."
        )
    return [*pinned, *[tokenizer.vocabulary.mask] * (whole - len(pinned))]


def text_template(tokenizer: TextTokenizer, text: str, most: int) -> list[int]:
    """Ids of a text in which every ``[[n]]`` is n masks; each part between gaps is tokenised on its own.

    Raises:
        InputError: no gap, an empty one, several ``[[*]]``, or a text longer than ``most`` tokens.
    """
    parts = _GAP.split(text)
    texts, gaps = [tokenizer.ids(part) for part in parts[::2]], parts[1::2]
    if not gaps:
        raise InputError(f"template={shorten(text)!r} has no gap: write [[12]] for twelve tokens, [[*]] for the rest.")
    if gaps.count(REST) > 1:
        raise InputError(f"template={shorten(text)!r} has {gaps.count(REST)} gaps [[*]]: only one can take the rest.")
    if "0" in gaps:
        raise InputError(f"template={shorten(text)!r} has a gap [[0]]: at least one token.")
    known = sum(map(len, texts)) + sum(int(gap) for gap in gaps if gap != REST)
    rest = most - known
    if rest < (1 if REST in gaps else 0):
        raise InputError(
            f"template={shorten(text)!r} has {known} tokens and is longer than the model, which writes {most}: "
            "shorten the text or its gaps."
        )
    mask = tokenizer.vocabulary.mask
    ids = list(texts[0])
    for gap, after in zip(gaps, texts[1:], strict=True):
        ids += [mask] * (rest if gap == REST else int(gap))
        ids += after
    return ids


def shorten(text: str) -> str:
    """A text for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."
