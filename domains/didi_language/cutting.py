"""Long texts in pieces whose ids are those of the whole, so that a tokenizer's memory does not grow with a document.

Byte-level tokenizers divide a text into words before they merge anything, and a word begins at the space before it. So
a text may be cut at a space between two letters of ASCII.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tokenizers import Tokenizer

LONG = 1 << 20  # letters of a text that is cut, and of a piece
PLACE = re.compile("(?<=[A-Za-z]) (?=[A-Za-z])")
BYTES, SEVERAL = "ByteLevel", "Sequence"
SPACE = "Ġ"  # a space, in the letters of a byte-level tokenizer
PROBES = ("ab cd", "a B", "THE end", "don't we", "aa bb cc dd")


def cuts_between_words(tokenizer: Tokenizer) -> bool:
    """Whether the ids of a text are those of its pieces, cut at a space between two letters of ASCII."""
    about = json.loads(tokenizer.to_str())
    before = about["pre_tokenizer"] or {}
    last = before["pretokenizers"][-1] if before.get("type") == SEVERAL else before
    if last.get("type") != BYTES or last["add_prefix_space"] or about["truncation"] or about["padding"]:
        return False
    if about["normalizer"] and about["normalizer"]["type"] != "NFC":  # which composes no letters of ASCII
        return False
    if any(" " in token["content"] or token["lstrip"] or token["rstrip"] for token in about["added_tokens"]):
        return False
    return all(_divided(tokenizer, probe) for probe in PROBES)


def _divided(tokenizer: Tokenizer, text: str) -> bool:
    """Whether each word begins at the space before it."""
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    return sum(word.startswith(SPACE) for word in words) == text.count(" ") == "".join(words).count(SPACE)


def pieces(text: str, size: int = LONG) -> Iterator[str]:
    """A text in consecutive pieces of about ``size`` letters, longer where there is no place to cut."""
    start = 0
    while len(text) - start > size and (found := PLACE.search(text, start + size)):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]
