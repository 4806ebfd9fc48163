"""Text of many documents to tokens on disk: what the tokenizer's library does against what is done here.

    python benchmarks/reading.py [--quick] [--out FILE]

``bytes``: a tokenizer whose tokens are bytes, by its library against a table. ``documents``: a file of text split as a
whole against pieces of 4 MB. ``packing``: both together, from the file to the stream of tokens.

``like GPT-2``: a byte-level tokenizer of 50,257 tokens, trained here on the source files of Python's library. Its own
``encode_batch`` of so many documents against the whole way to tokens on disk; and one document of the same text as a
whole against its pieces. ``python benchmarks/reading.py --grow 200`` packs 200 MB of it and prints the peak on the way.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from measure import Case, main, resident
from tokenizers import Tokenizer
from torch import Tensor

from didi_language import TextTokenizer, load_tokenizer, train_tokenizer
from didi_language.packing import AT_ONCE, Held, Packed
from didi_language.sources import BREAKS, Source, split_documents

KEPT = "DIDI_BENCHMARK_TOKENIZER"  # folder of the tokenizer that is trained here
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


@cache
def sources() -> tuple[str, ...]:
    """The source files of Python's library, 30 MB."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        with contextlib.suppress(UnicodeDecodeError):
            found.append("" if "site-packages" in path.parts else path.read_text(encoding="utf-8").strip())
    return tuple(filter(None, found))


@cache
def like_gpt2(quick: bool) -> TextTokenizer:
    """A tokenizer of GPT-2's kind and size. Kept in a folder, so that processes of one call train it once."""
    if KEPT not in os.environ:
        os.environ[KEPT] = tempfile.mkdtemp()
    path = Path(os.environ[KEPT]) / f"{quick}.json"
    if not path.exists():
        train_tokenizer(sources()[:9] if quick else sources(), 400 if quick else 50_257).save(str(path))
    return TextTokenizer("like gpt2", Tokenizer.from_file(str(path)), 0, 0, (0,))


def of_size(megabytes: float) -> Iterator[str]:
    """Source files, again and again, of so many million letters together."""
    left = megabytes * 1e6
    for text in itertools.cycle(sources()):
        yield text[: int(left)]
        left -= len(text)
        if left <= 0:
            return


def packed(documents: Iterable[str], tokenizer: TextTokenizer, tell: Callable[[int], None] | None = None) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        made = Packed.make(Path(folder), documents, tokenizer, Held(), {}, tell)
        return torch.from_numpy(made.stream("train").astype(np.int64))


def own_speed(quick: bool) -> Case:
    tokenizer, documents = like_gpt2(quick), list(of_size(0.02 if quick else 4))

    def library() -> Tensor:
        found: list[int] = []
        for start in range(0, len(documents), AT_ONCE):
            group = tokenizer.backend.encode_batch(documents[start : start + AT_ONCE], add_special_tokens=False)
            for one in group:
                found += [*one.ids, tokenizer.end]
        return torch.tensor(found)

    return Case(library, lambda: packed(documents, tokenizer), torch.equal)


def one_document(quick: bool) -> Case:
    tokenizer, text = like_gpt2(quick), "\n".join(of_size(0.02 if quick else 4))

    def whole() -> Tensor:
        return torch.tensor([*tokenizer.backend.encode(text, add_special_tokens=False).ids, tokenizer.end])

    return Case(whole, lambda: packed([text], tokenizer), torch.equal)


def grow(megabytes: float) -> None:
    """Peak above what was resident before, while so much text is packed."""
    tokenizer, done = like_gpt2(False), 0
    started, shown = time.process_time(), 0.0

    def watched() -> Iterator[str]:
        nonlocal done
        for text in of_size(megabytes):
            done += len(text)
            yield text

    def tell(documents: int) -> None:
        nonlocal shown
        if done >= shown + 1e7 or done >= megabytes * 1e6:
            shown, peak = done, (resident("VmHWM") - before) / 1e6
            spent = time.process_time() - started
            print(f"{done / 1e6:.0f} MB, {documents} documents: peak {peak:.0f} MB, {spent:.1f} s of CPU", flush=True)

    next(of_size(1))
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        Packed.make(Path(folder), watched(), tokenizer, Held(), {}, tell)


def on_file(case: Callable[[Path], Case], megabytes: float) -> Callable[[bool], Case]:
    return lambda quick: case(text_file(0.01 if quick else megabytes))


CASES = {
    "bytes to tokens, 4 MB": on_file(lambda path: tokens(path.read_text().split("\n\n\n")), 4),
    "text to documents, 100 MB": on_file(documents, 100),
    "text to tokens on disk, 4 MB": on_file(packing, 4),
    "like GPT-2, 4 MB": own_speed,
    "like GPT-2, one document": one_document,
}

if __name__ == "__main__":
    main(__file__, "as a whole, by the library / in pieces, by a table", CASES, instead={"grow": grow})
