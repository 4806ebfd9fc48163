"""Long texts in pieces: the ids are those of the whole, and a tokenizer sees no more than a piece."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from didi_language import TextTokenizer, cutting, load_tokenizer, packing, train_tokenizer
from didi_language import tokenizer as module
from didi_language.cutting import cuts_between_words, pieces
from didi_language.packing import Held, Packed

TEXT = (
    "Don't cut here, but there: between two words. Größe  und 3 x 4 = 12;\n"
    "\tdef f(a, b):  return a_b  # é e\u0301 <|endoftext|>"
)
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # as in Qwen


def with_words() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LETTERS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return backend


def changed(backend: Tokenizer, **parts: object) -> Tokenizer:
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


def made(backend: Tokenizer) -> TextTokenizer:
    return TextTokenizer("tiny", backend, 0, 0)


def trained(**parts: object) -> Tokenizer:
    return changed(train_tokenizer([TEXT] * 3, 300), **parts)


CUT = {"bytes": load_tokenizer, "merges": lambda: made(trained()), "words": lambda: made(with_words())}
WHOLE = {
    "a prefix": lambda: trained(pre_tokenizer=pre_tokenizers.ByteLevel(True)),
    "lower case": lambda: trained(normalizer=normalizers.Lowercase()),
    "no words": lambda: trained(pre_tokenizer=pre_tokenizers.ByteLevel(False, use_regex=False)),
    "metaspace": lambda: trained(pre_tokenizer=pre_tokenizers.Metaspace()),
    "nothing before": lambda: Tokenizer(models.BPE()),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("size", [1, 7, 40])
def test_ids_of_pieces_are_those_of_the_whole(name: str, size: int) -> None:
    tokenizer = CUT[name]()
    assert cuts_between_words(tokenizer.backend)
    found = list(pieces(TEXT * 3, size))
    assert "".join(found) == TEXT * 3 and len(found) > 3
    assert sum((tokenizer.ids(piece) for piece in found), []) == tokenizer.ids(TEXT * 3)


@pytest.mark.parametrize("name", WHOLE)
def test_other_tokenizers_get_a_text_whole(name: str) -> None:
    assert not cuts_between_words(WHOLE[name]())


def test_a_text_without_words_is_one_piece() -> None:
    assert list(pieces("x" * 50, 10)) == ["x" * 50] and list(pieces("", 10)) == [""]


@pytest.mark.parametrize("name", CUT)
def test_packed_documents_are_the_same_in_pieces_and_in_groups(name: str, tmp_path: Path) -> None:
    tokenizer, seen = CUT[name](), []
    documents = [TEXT * 4, "", TEXT, "ab", "x" * 300, TEXT * 9]
    expected = np.concatenate([[*tokenizer.ids(text), tokenizer.end] for text in documents])
    many = TextTokenizer.many

    def watched(self: TextTokenizer, texts: Iterable[str]) -> list[np.ndarray]:
        seen.append(sum(map(len, texts)))
        return many(self, list(texts))

    with (
        patch.object(TextTokenizer, "many", watched),
        patch.object(module, "LONG", 200),
        patch.object(packing, "LONG", 200),
        patch.object(module, "pieces", lambda text: pieces(text, 200)),
    ):
        packed = Packed.make(tmp_path, documents, tokenizer, Held(), {})
    assert np.array_equal(packed.stream("train"), expected) and packed.card["documents"]["train"] == len(documents)
    assert max(seen) < 450 < len(documents[-1]) and cutting.LONG > 200
