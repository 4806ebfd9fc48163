"""Text of many documents to tokens on disk: what the tokenizer's library does against what is done here.

    python benchmarks/reading.py [--quick] [--out FILE]

``bytes``: a tokenizer whose tokens are bytes, by its library against a table. ``documents``: a file of text split as a
whole against pieces of 4 MB. ``packing``: both together, from the file to the stream of tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from measure import Case, main
from torch import Tensor

from didi_language import load_tokenizer
from didi_language.packing import AT_ONCE, Held, Packed
from didi_language.sources import BREAKS, Source, split_documents

LETTERS = np.frombuffer(b"etaoinshrdlu    ", dtype=np.uint8)


@cache
def text_file(megabytes: float) -> Path:
    """Documents of 2,000 letters, separated by empty lines."""
    folder = Path(tempfile.mkdtemp())
    text = np.random.default_rng(0).choice(LETTERS, int(megabytes * 1e6)).tobytes()
    (folder / "text.txt").write_bytes(b"\n\n\n".join(text[i : i + 2000] for i in range(0, len(text), 2000)))
    return folder / "text.txt"


def tokens(texts: list[str]) -> Case:
    tokenizer = load_tokenizer()

    def library() -> Tensor:
        groups = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))
        encoded = (one for group in groups for one in tokenizer.backend.encode_batch(group, add_special_tokens=False))
        return torch.tensor([i for one in encoded for i in one.ids])

    return Case(library, lambda: torch.from_numpy(np.concatenate(tokenizer.many(texts))), torch.equal)


def documents(path: Path) -> Case:
    """Lengths of the documents."""

    def whole() -> Tensor:
        found = BREAKS["three_breaks"].split(path.read_bytes().decode().replace("\r\n", "\n"))
        return torch.tensor([len(text.strip("\n")) for text in found])

    def pieces() -> Tensor:
        return torch.tensor([len(text) for text in Source((str(path),)).read()])

    return Case(whole, pieces, torch.equal)


def packing(path: Path) -> Case:
    tokenizer = load_tokenizer()

    def library() -> Tensor:
        groups: list[list[int]] = []
        for text in split_documents([path.read_text()], "three_breaks"):
            groups.append([*tokenizer.ids(text), tokenizer.end])
        return torch.from_numpy(np.concatenate([np.array(ids, dtype=np.uint16) for ids in groups]).astype(np.int64))

    def ours() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            made = Packed.make(Path(folder), Source((str(path),)).read(), tokenizer, Held(), {})
            return torch.from_numpy(made.stream("train").astype(np.int64))

    return Case(library, ours, torch.equal)


def on_file(case: Callable[[Path], Case], megabytes: float) -> Callable[[bool], Case]:
    return lambda quick: case(text_file(0.01 if quick else megabytes))


CASES = {
    "bytes to tokens, 4 MB": on_file(lambda path: tokens(path.read_text().split("\n\n\n")), 4),
    "text to documents, 100 MB": on_file(documents, 100),
    "text to tokens on disk, 4 MB": on_file(packing, 4),
}

if __name__ == "__main__":
    main(__file__, "as a whole, by the library / in pieces, by a table", CASES)
