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
FORM = (Field("prompt", "Beginning of the text", "The Zen of Python"), Field("suffix", "End of the text"))


@dataclass(frozen=True, kw_only=True)
class TextConditioning:
    """Keys of ``configs/conditioning/language.yaml``.

    prompt: the beginning of every sample. suffix: its end.
    """

    prompt: str | None = None
    suffix: str | None = None

    def conditioning(
        self, tokenizer: TextTokenizer, request: Request, most: int, framed: Callable[[list[int]], list[int]]
    ) -> Conditioning:
        """A template with masks between prompt and suffix, of the requested length or of ``most`` tokens.

        Raises:
            InputError: a text is empty, or the texts leave nothing to write.
        """
        given = {key: text for key, text in (("prompt", self.prompt), ("suffix", self.suffix)) if text is not None}
        if not given:
            return Conditioning()
        for key, text in given.items():
            if not text:
                raise InputError(f"{key} is empty: give a text, or leave {key} out.")
        begin, end = tokenizer.ids(self.prompt or ""), tokenizer.ids(self.suffix or "")
        shown = " and ".join(f"{key}={shorten(text)!r}" for key, text in given.items())
        mask, rows = tokenizer.vocabulary.mask, []
        for length in self._lengths(request, most):
            free = length - len(begin) - len(end)
            if free < 1:
                limit = f"the model, which writes {most} tokens" if length == most else f"length={length}"
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
