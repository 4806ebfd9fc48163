"""Texts to fill in: a prompt to continue, a suffix to end with, or a text with gaps.

A gap is written ``[[12]]`` (twelve tokens) or ``[[*]]`` (as many as fill the block; at most once).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from didi_core.domain.conditioning import Conditioning, Field, Request
from didi_core.errors import InputError

from .tokenizer import TextTokenizer

_GAP = re.compile(r"\[\[(\d+|\*)\]\]")
REST = "*"
FRAME = 2  # begin and end token of a block
ROLES = (("system", "system"), ("prompt", "user"))  # keys of a chat, in order, and the role of each
FORM = (Field("prompt", "Beginning of the text", "The Zen of Python"), Field("suffix", "End of the text"))


@dataclass(frozen=True, kw_only=True)
class TextConditioning:
    """Keys of ``configs/conditioning/language.yaml``.

    prompt: the beginning of every sample. suffix: its end.
    chat: the prompt is a user's turn, written in the tokenizer's chat template; the model writes the answer. system:
        the turn before it.
    """

    prompt: str | None = None
    suffix: str | None = None
    chat: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        if self.chat and self.prompt is None:
            raise InputError("chat=true needs a prompt: give prompt=<text>, which is what the user says.")
        if self.chat and self.suffix is not None:
            raise InputError("chat=true and suffix exclude each other: the model writes the answer to its end.")
        if self.system is not None and not self.chat:
            raise InputError(f"system={shorten(self.system)!r} is a part of a chat: set chat=true.")

    def conditioning(
        self, tokenizer: TextTokenizer, request: Request, most: int, framed: Callable[[list[int]], list[int]]
    ) -> Conditioning:
        """A template with masks between prompt and suffix, of the requested length or of ``most`` tokens.

        Raises:
            InputError: a text is empty, or the texts leave nothing to write.
        """
        texts = {"prompt": self.prompt, "suffix": self.suffix, "system": self.system}
        given = {key: text for key, text in texts.items() if text is not None}
        if not given:
            return Conditioning()
        for key, text in given.items():
            if not text:
                raise InputError(f"{key} is empty: give a text, or leave {key} out.")
        if self.chat:
            turns = [{"role": role, "content": given[key]} for key, role in ROLES if key in given]
            begin, framed = tokenizer.chat(turns), list
            most, frame = most + FRAME, FRAME  # the template has its own frame, and nothing is behind the answer
        else:
            begin, frame = tokenizer.ids(self.prompt or ""), 0
        end = tokenizer.ids(self.suffix or "")
        shown = " and ".join(f"{key}={shorten(text)!r}" for key, text in given.items())
        mask, rows = tokenizer.vocabulary.mask, []
        for length in self._lengths(request, most - frame):
            length += frame
            free = length - len(begin) - len(end)
            if free < 1:
                limit = f"the model, which writes {most} tokens" if length == most else f"length={length - frame}"
                raise InputError(
                    f"{shown} has {len(begin) + len(end)} tokens and is longer than {limit}: shorten the text."
                )
            rows.append(framed([*begin, *[mask] * free, *end]))
        return Conditioning(rows, " and ".join(given))

    def _lengths(self, request: Request, most: int) -> list[int]:
        """Tokens of each sample, round-robin, prompt and suffix included."""
        if request.lengths is None:
            return [most]
        longest = max(high for _, high in request.lengths)
        if longest > most:
            raise InputError(f"length={longest} is longer than the model, which writes at most {most} tokens.")
        if any(low != high for low, high in request.lengths) or len(set(request.lengths)) > 1:
            raise InputError("texts of one run have one length: give length=<tokens>, not a range or a list.")
        return [request.lengths[0][0]]


def gapped(tokenizer: TextTokenizer, text: str, most: int) -> list[int]:
    """Ids of a text in which every ``[[n]]`` is n masks; each part between gaps is tokenised separately.

    Raises:
        InputError: there is no gap, an empty one or several ``[[*]]``, or the text is longer than ``most`` tokens.
    """
    parts = _GAP.split(text)
    texts, gaps = [tokenizer.ids(part) for part in parts[::2]], parts[1::2]
    if not gaps:
        raise InputError(f"template={shorten(text)!r} has no gap: write [[12]] for twelve tokens, [[*]] for the rest.")
    if gaps.count(REST) > 1:
        raise InputError(f"template={shorten(text)!r} has {gaps.count(REST)} gaps [[*]]: only one can take the rest.")
    sizes = [0 if gap == REST else int(gap) if len(gap) < 10 else 10**9 for gap in gaps]  # beyond any model's length
    if any(size == 0 for size, gap in zip(sizes, gaps, strict=True) if gap != REST):
        raise InputError(f"template={shorten(text)!r} has a gap [[0]]: at least one token.")
    known = sum(map(len, texts)) + sum(sizes)
    rest = most - known
    if rest < (1 if REST in gaps else 0):
        raise InputError(
            f"template={shorten(text)!r} has {known} tokens and is longer than the model, which writes {most}: "
            "shorten the text or its gaps."
        )
    mask = tokenizer.vocabulary.mask
    ids = list(texts[0])
    for gap, size, after in zip(gaps, sizes, texts[1:], strict=True):
        ids += [mask] * (rest if gap == REST else size)
        ids += after
    return ids


def shorten(text: str) -> str:
    """A text for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."
