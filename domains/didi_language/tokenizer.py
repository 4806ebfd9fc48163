"""Hugging Face fast tokenizers as the domain uses them: plain ids, one end token, and the mask as an extra row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from didi_core.checkpoints.quiet import quiet
from didi_core.config import user_path
from didi_core.errors import InputError, first_line
from didi_core.types import Vocabulary

from .assets import BUNDLED, asset
from .cutting import LONG, cuts_between_words, pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END = "<|endoftext|>"  # end token of the tokenizers that we train, as in GPT-2
BEGIN_NAMES = ("bos_token", "cls_token")
END_NAMES = ("eos_token", "sep_token")
COPIES = {"DreamTokenizer": "Qwen2TokenizerFast"}  # classes of remote code, and what they are copies of
PROBE = "D1D1"  # an answer, to see what a chat template writes after one
OWN_MASK = re.compile(r"\W*(mdm_)?mask\W*", re.IGNORECASE)  # a mask among the tokens that were added to a tokenizer
MASK = "<mask>"  # of a published tokenizer: the row after the last token
FILE = "tokenizer.json"
LOOSE = ("normalized", "lstrip", "rstrip", "single_word")  # such a token matches more or less than its spelling


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer with the begin and end ids of a block; ``forbidden`` are other special tokens, never generated.

    ``begin`` and ``end`` are the same token in a tokenizer with a single one (GPT-2). ``own_mask`` is the mask that a
    tokenizer has itself, and ``source`` the tokenizer of transformers, which has the chat template.
    """

    name: str
    backend: Tokenizer
    begin: int
    end: int
    forbidden: tuple[int, ...] = ()
    own_mask: int | None = None
    source: PreTrainedTokenizerBase | None = None

    @property
    def size(self) -> int:
        """Tokens without the mask."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary as in MDLM: every token may be generated, and the mask is the row after the last one.

        The end token may be generated too, because a block holds several documents. Nothing is pinned by its id; the
        begin and end token of a block are pinned by their position.
        """
        never = tuple(i for i in self.forbidden if i not in (self.begin, self.end, *self.turn_ends))
        return Vocabulary(size=self.size, forbidden=never, own_mask=self.own_mask)

    @cached_property
    def after_answer(self) -> tuple[int, ...]:
        """What the chat template writes behind an answer; empty without a template."""
        if not self.has_chat:
            return ()
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": PROBE}]
        _, _, after = self._rendered(turns, False).rpartition(PROBE)
        return tuple(self.ids(after.strip()))

    @property
    def turn_ends(self) -> tuple[int, ...]:
        """Special tokens that end an answer in the chat template, which a model must be able to write."""
        return tuple(sorted({i for i in self.after_answer if i in self.forbidden}))

    @property
    def has_chat(self) -> bool:
        """Whether there is a chat template."""
        return bool(getattr(self.source, "chat_template", None))

    def chat(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation in the tokenizer's own template, up to where the answer begins.

        Args:
            turns: each with ``role`` and ``content``.

        Raises:
            InputError: there is no template, or it does not take these turns.
        """
        if not self.has_chat:
            raise InputError(
                f"data.tokenizer={self.name} has no chat template. Leave chat out, or name the tokenizer of a model "
                "that was trained on conversations."
            )
        return self.ids(self._rendered(turns, True))

    def _rendered(self, turns: Sequence[Mapping[str, str]], answer: bool) -> str:
        assert self.source is not None, "asked where there is a template"
        try:
            made = self.source.apply_chat_template(
                [dict(turn) for turn in turns], tokenize=False, add_generation_prompt=answer
            )
        except Exception as error:  # noqa: BLE001  # a template is a program, and can raise anything
            raise InputError(f"data.tokenizer={self.name}: its chat template fails: {as_sentence(error)}") from None
        return str(made)

    @cached_property
    def digest(self) -> str:
        """Hash of everything that decides the ids of a text."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    @cached_property
    def end_text(self) -> str:
        """Spelling of the end token."""
        return str(self.backend.id_to_token(self.end))

    def ids(self, text: str) -> list[int]:
        """Ids of a text without begin and end token; a special token spelled out in it becomes its id."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def many(self, texts: Sequence[str]) -> list[Int[np.ndarray, "n"]]:
        """``ids`` of each text, on several threads, or by a table if every byte is a token."""
        if self._bytes is not None:
            return [self._by_table(text, self._bytes) for text in texts]
        encoded = self.backend.encode_batch(texts, add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int64) for one in encoded]

    def parts(self, texts: Sequence[str]) -> Iterator[Iterable[Int[np.ndarray, "n"]]]:
        """``many`` for each text in parts to be joined: of a long one, one after another where it can be cut."""
        if max(map(len, texts), default=0) <= LONG or not self._cuts:
            yield from ([ids] for ids in self.many(texts))
            return
        for text in texts:
            yield (self.many([piece])[0] for piece in pieces(text))

    @cached_property
    def _cuts(self) -> bool:
        return cuts_between_words(self.backend)

    def _by_table(self, text: str, table: Int[np.ndarray, "256"]) -> Int[np.ndarray, "n"]:
        if not self._spelled.search(text):
            return table[np.frombuffer(text.encode(), dtype=np.uint8)]
        pieces = self._spelled.split(text)  # text, special token, text ...
        special = {token: np.array([self.backend.token_to_id(token)]) for token in pieces[1::2]}
        return np.concatenate([special[p] if i % 2 else self._by_table(p, table) for i, p in enumerate(pieces)])

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        """Special tokens spelled out in a text."""
        known = sorted((token.content for token in self.backend.get_added_tokens_decoder().values()), key=len)
        return re.compile(f"({'|'.join(map(re.escape, reversed(known))) or '(?!)'})")

    @cached_property
    def _bytes(self) -> Int[np.ndarray, "256"] | None:
        """The id of each byte; None for a tokenizer with merges."""
        backend = json.loads(self.backend.to_str())
        model, before = backend["model"], backend["pre_tokenizer"] or {}
        more = [model.get(name) for name in ("merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix")]
        more += [backend[name] for name in ("normalizer", "truncation", "padding")]
        more += [token[how] for token in backend["added_tokens"] for how in LOOSE]
        if any(more) or model["type"] != "BPE" or before.get("type") != "ByteLevel" or before["add_prefix_space"]:
            return None
        known = [backend["model"]["vocab"].get(letter) for letter in _letters_of_bytes()]
        return None if None in known else np.array(known, dtype=np.int64)

    def text(self, ids: Sequence[int]) -> str:
        """Inverse of ``ids``, with special tokens spelled out. Raises InputError for an id that is not a token."""
        outside = [i for i in ids if not 0 <= i < self.size]
        if outside:
            raise InputError(f"token {outside[0]} is outside the {self.size} tokens of tokenizer {self.name!r}.")
        return str(self.backend.decode(list(ids), skip_special_tokens=False))

    def for_transformers(self) -> PreTrainedTokenizerFast:
        """This tokenizer with begin and end token around every text, and the mask as the token after the last."""
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer.from_str(self.backend.to_str())
        backend.add_special_tokens([AddedToken(MASK, special=True)])
        begin, end = (str(backend.id_to_token(i)) for i in (self.begin, self.end))
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}", special_tokens=[(begin, self.begin), (end, self.end)]
        )
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=begin, eos_token=end, mask_token=MASK)


def _letters_of_bytes() -> list[str]:
    """The letter for each byte in a byte-level tokenizer: the byte itself if it is printable (GPT-2's table)."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(others)) for byte in range(256)]


def load_tokenizer(name: str = BUNDLED) -> TextTokenizer:
    """The bundled tokenizer, one from a ``tokenizer.json`` or a folder, or one of a hub id such as ``gpt2``.

    Raises:
        InputError: it cannot be loaded, is not a fast tokenizer, or lacks an end token.
    """
    path = asset("tokenizer") / FILE if name == BUNDLED else user_path(name)
    if path.name == FILE:
        return _from_file(name, path)
    return _from_transformers(name)


def _from_file(name: str, path: Path) -> TextTokenizer:
    """A bare ``tokenizer.json``, whose end token is the one special token that it must have."""
    if not path.is_file():
        raise InputError(f"data.tokenizer={name}: {path} does not exist.")
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise InputError(f"data.tokenizer={name}: {path} is not a tokenizer ({error}).") from None
    end = backend.token_to_id(END)
    if end is None:
        raise InputError(
            f"data.tokenizer={name}: no {END} among its tokens, and a bare {FILE} does not say which token ends a "
            "text. Give the folder with its tokenizer_config.json instead."
        )
    return TextTokenizer(name, backend, end, end, tuple(sorted(_special(backend))), _own_mask(backend))


def _special(backend: Tokenizer) -> set[int]:
    """The tokens that a tokenizer marks as special."""
    return {i for i, token in backend.get_added_tokens_decoder().items() if token.special}


def _own_mask(backend: Tokenizer) -> int | None:
    """The mask among the added tokens, by its spelling; None where there is none, or more than one."""
    found = [i for i, token in backend.get_added_tokens_decoder().items() if OWN_MASK.fullmatch(token.content)]
    return found[0] if len(found) == 1 else None


def _from_transformers(name: str) -> TextTokenizer:
    try:
        with quiet():
            found = _class_of(name).from_pretrained(name, use_fast=True, trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer can raise anything
        raise InputError(
            f"data.tokenizer={name} cannot be loaded: {as_sentence(error)} Give a folder on this machine that holds "
            f"its {FILE}, or data.tokenizer={BUNDLED}, which needs no network."
        ) from None
    if not getattr(found, "is_fast", False):
        raise InputError(f"data.tokenizer={name} has no fast version ({FILE}); only fast tokenizers can be used.")
    end = _first_id(found, END_NAMES)
    begin = _first_id(found, BEGIN_NAMES)
    if end is None:
        raise InputError(
            f"data.tokenizer={name} has neither {' nor '.join(END_NAMES)}: without one nothing marks the end of a "
            "document. Set one in its tokenizer_config.json, or choose another tokenizer."
        )
    backend: Tokenizer = found.backend_tokenizer
    own = _first_id(found, ("mask_token",))
    special = {*found.all_special_ids, *_special(backend)}
    mask = _own_mask(backend) if own is None else own
    return TextTokenizer(name, backend, end if begin is None else begin, end, tuple(sorted(special)), mask, found)


def _class_of(name: str) -> Any:
    """The class of transformers that reads a tokenizer: by its folder, or the one that remote code is a copy of."""
    import transformers
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    named = get_tokenizer_config(name, trust_remote_code=False).get("tokenizer_class")
    return getattr(transformers, COPIES.get(str(named), "AutoTokenizer"))


def _first_id(tokenizer: object, names: Iterable[str]) -> int | None:
    ids = (getattr(tokenizer, f"{name}_id", None) for name in names)
    return next((int(i) for i in ids if i is not None), None)


def as_sentence(error: Exception) -> str:
    """The first line of a library's message, as a sentence."""
    line = first_line(error)
    return line if line.endswith((".", "!", "?")) else f"{line}."


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of ``size`` tokens with GPT-2's end token; any text can be written with it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    return backend
