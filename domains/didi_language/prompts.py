"""Prompts and responses from JSON lines, as ids: ``{"prompt": ..., "response": ...}`` or ``{"messages": [...]}``.

A response may be absent, as a distillation needs prompts only. The last message of a conversation is the response if
the assistant wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from didi_core.config import user_path
from didi_core.errors import InputError
from didi_core.storage.text_file import numbered_lines, undecoded_byte

from .sources import Tally
from .tokenizer import TextTokenizer

PROMPT, RESPONSE, MESSAGES = "prompt", "response", "messages"
USER, ASSISTANT = "user", "assistant"


class BadRow(Exception):
    """A row that cannot be used, and why."""


@dataclass(frozen=True)
class Exchange:
    """A prompt and its response as ids; None for a prompt alone. place: file and line, for messages."""

    prompt: tuple[int, ...]
    response: tuple[int, ...] | None
    place: str


@dataclass(frozen=True)
class Writing:
    """How rows become ids.

    chat: whether in the tokenizer's template. length: of a block, which prompt and response have to fit into.
    """

    tokenizer: TextTokenizer
    chat: bool
    length: int

    def exchange(self, row: Any, place: str) -> Exchange:
        """The ids of a row. Raises BadRow."""
        turns, response = turns_of(row)
        prompt: tuple[int, ...]
        behind: tuple[int, ...]
        if self.chat:
            prompt, behind = tuple(self.tokenizer.chat(turns)), self.tokenizer.after_answer
        elif MESSAGES in row:
            raise BadRow(f"{MESSAGES!r} need data.chat=true, and a tokenizer with a chat template")
        else:
            prompt = (self.tokenizer.begin, *self.tokenizer.ids(turns[0]["content"]))
            behind = (self.tokenizer.end,)
        answer = None if response is None else (*self.tokenizer.ids(response), *behind)
        used, limit = len(prompt) + len(answer or ()), f"data.length={self.length}"
        if len(prompt) >= self.length:
            raise BadRow(f"the prompt leaves no place for an answer: {len(prompt)} tokens, {limit}")
        if used > self.length:
            raise BadRow(f"prompt and response are too long: {used} tokens, {limit}")
        return Exchange(prompt, answer, place)


def turns_of(row: Any) -> tuple[list[dict[str, str]], str | None]:
    """The turns of a row before the response, and the response. Raises BadRow."""
    if not isinstance(row, Mapping):
        raise BadRow("not an object")
    if (PROMPT in row) == (MESSAGES in row):
        raise BadRow(f"it needs either {PROMPT!r} or {MESSAGES!r}")
    if PROMPT in row:
        prompt = row[PROMPT]
        if not isinstance(prompt, str) or not prompt.strip():
            raise BadRow(f"{PROMPT!r} is no text")
        return [{"role": USER, "content": prompt}], _answer(row.get(RESPONSE))
    turns = row[MESSAGES]
    if not isinstance(turns, list) or not turns:
        raise BadRow(f"{MESSAGES!r} is no list of turns")
    for turn in turns:
        if not isinstance(turn, Mapping) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise BadRow("a turn needs 'role' and 'content', both texts")
    plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    if plain[-1]["role"] != ASSISTANT:
        return plain, None
    if len(plain) == 1:
        raise BadRow("nothing is asked before the answer")
    return plain[:-1], _answer(plain[-1]["content"])


def _answer(text: Any) -> str | None:
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise BadRow(f"{RESPONSE!r} is no text")
    return text


def read_exchanges(paths: tuple[str, ...], writing: Writing, skip: bool, tally: Tally) -> Iterator[Exchange]:
    """The rows of all files, in order.

    Args:
        skip: whether a bad row is left out, and counted. tally: counts rows by their use.

    Raises:
        InputError: a file is not there; or, unless ``skip``, a row cannot be used (with file and line).
    """
    for name in paths:
        path = user_path(name)
        if not path.is_file():
            raise InputError(f"data.prompts={name}: no such file. Give JSON lines with {PROMPT!r} or {MESSAGES!r}.")
        tally.files.append(str(path))
        for number, line in numbered_lines(path, errors="surrogateescape"):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                made = writing.exchange(_parsed(line), place)
            except BadRow as error:
                if not skip:
                    advice = "Repair the row, or leave it out by data.on_bad=skip."
                    raise InputError(f"{place}: {error}. {advice}") from None
                tally.leave_out(place, str(error))
                continue
            tally.read += 1
            yield made


def _parsed(line: str) -> Any:
    if undecoded := undecoded_byte(line):
        raise BadRow(undecoded)
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadRow(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise BadRow(f"no JSON that can be read ({error})") from None
