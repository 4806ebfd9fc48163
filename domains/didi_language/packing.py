"""Documents as one stream of tokens on disk, and blocks of it: MDLM's recipe for OpenWebText.

Documents are joined by the end token, the stream is cut into pieces of ``length - 2``, and each piece is put between
begin and end token. The stream does not depend on the length, so one cache serves every block size.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError, warn
from didi_core.sequences.batches import shuffled_batches
from didi_core.storage.files import sha256, write_atomic, write_json
from didi_core.streams import derive_seed, generator

from .cutting import LONG
from .tokenizer import TextTokenizer

SPLITS = ("train", "validation")
CARD = "card.json"
AT_ONCE = 256  # documents tokenised together, or fewer of LONG letters together: a tokenizer holds 100 bytes a token
CHECKED = 1 << 30  # bytes of tokens up to which their hash is checked at every start: a second or two


@dataclass(frozen=True)
class Held:
    """Which documents are held out: a share of them, chosen by number and seed, or the ``last`` so many."""

    share: float = 0.0
    last: int = 0
    seed: int = 0

    def split(self, documents: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Pairs (split, document), in order within each split; at most ``last`` documents are in memory."""
        if self.last:
            waiting: deque[str] = deque()
            for text in documents:
                waiting.append(text)
                if len(waiting) > self.last:
                    yield SPLITS[0], waiting.popleft()
            yield from ((SPLITS[1], text) for text in waiting)
            return
        for number, text in enumerate(documents):
            drawn = derive_seed(self.seed, "held out document", number) / 2**63
            yield SPLITS[int(drawn < self.share)], text


@dataclass(frozen=True)
class Packed:
    """The token streams of both splits in ``folder``: ``train.bin``, ``validation.bin`` and ``card.json``."""

    folder: Path
    card: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Packed | None:
        """The packed data of a folder; None if they are absent or incomplete."""
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            width = np.dtype(card["dtype"]).itemsize
            whole = all((folder / f"{s}.bin").stat().st_size == card["tokens"][s] * width for s in SPLITS)
            changed = whole and cls(folder, card)._changed()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if changed:
            warn(f"{folder / changed} has changed since it was written: the documents are tokenised again.")
        return cls(folder, card) if whole and not changed else None

    def _changed(self) -> str:
        """The file that is not what was written; '' if there is none. Large ones are not read for it."""
        if "sha256" not in self.card:
            warn(f"{self.folder} is of an older version, without hashes: whether its tokens changed is not checked.")
            return ""
        files = {f"{split}.bin": self.card["sha256"][split] for split in SPLITS}
        small = [name for name in files if (self.folder / name).stat().st_size <= CHECKED]
        return next((name for name in small if sha256(self.folder / name) != files[name]), "")

    @classmethod
    def make(
        cls,
        folder: Path,
        documents: Iterable[str],
        tokenizer: TextTokenizer,
        held: Held,
        about: Mapping[str, Any],
        progress: Callable[[int], None] | None = None,
        finished: Callable[[], None] = lambda: None,
    ) -> Packed:
        """Tokenise all documents into ``folder``. The card is written last, so an incomplete folder is made again.

        Args:
            progress: called with the number of documents finished.
            finished: called after the last document, before the card makes the folder whole.
        """
        dtype = np.dtype(np.uint16 if tokenizer.size <= 2**16 else np.uint32)
        documents_of, tokens_of = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        hashes = {split: hashlib.sha256() for split in SPLITS}
        folder.mkdir(parents=True, exist_ok=True)

        def write(train: BinaryIO, validation: BinaryIO) -> None:
            files = dict(zip(SPLITS, (train, validation), strict=True))
            end = np.array([tokenizer.end], dtype=dtype).tobytes()
            marked = held.split(documents)
            for group in _groups(marked):
                for (split, _), parts in zip(group, tokenizer.parts([text for _, text in group]), strict=True):
                    for content in (*(ids.astype(dtype).tobytes() for ids in parts), end):
                        files[split].write(content)
                        hashes[split].update(content)
                        tokens_of[split] += len(content) // dtype.itemsize
                    documents_of[split] += 1
                if progress:
                    progress(sum(documents_of.values()))

        def both(train_path: Path) -> None:
            def inner(validation_path: Path) -> None:
                with train_path.open("wb") as train, validation_path.open("wb") as validation:
                    write(train, validation)

            write_atomic(folder / "validation.bin", inner)

        write_atomic(folder / "train.bin", both)
        finished()
        written = {split: digest.hexdigest() for split, digest in hashes.items()}
        card = {"dtype": dtype.name, "documents": documents_of, "tokens": tokens_of, "sha256": written, **about}
        write_json(folder / CARD, card)
        return cls(folder, card)

    def stream(self, split: str) -> Int[np.ndarray, "n"]:
        """All tokens of a split, mapped from disk."""
        if not self.card["tokens"][split]:
            return np.zeros(0, dtype=self.card["dtype"])
        return np.memmap(self.folder / f"{split}.bin", dtype=self.card["dtype"], mode="r")


def _groups(marked: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents that are tokenised together."""
    group: list[tuple[str, str]] = []
    letters = 0
    for one in marked:
        group.append(one)
        letters += len(one[1])
        if len(group) == AT_ONCE or letters >= LONG:
            yield group
            group, letters = [], 0
    if group:
        yield group


@dataclass(frozen=True)
class Blocks:
    """Pieces of a token stream, between begin and end token. The remainder at the end of the stream is left out."""

    stream: Int[np.ndarray, "n"]
    length: int
    begin: int
    end: int

    def __len__(self) -> int:
        return len(self.stream) // (self.length - 2)

    def rows(self, numbers: Int[Tensor, "B"]) -> Int[Tensor, "B L"]:
        """The blocks with these numbers."""
        inside = self.length - 2
        rows = np.empty((len(numbers), self.length), dtype=np.int64)
        rows[:, 0], rows[:, -1] = self.begin, self.end
        for row, number in zip(rows, numbers.tolist(), strict=True):
            row[1:-1] = self.stream[number * inside : (number + 1) * inside]
        return torch.from_numpy(rows)

    def batches(self, batch_size: int, seed: int, name: str, start: int = 0) -> Iterator[Int[Tensor, "B L"]]:
        """Endless batches, which depend on seed and number only; every epoch shows each block once, in a new order.

        The last batch of an epoch is filled up from the beginning of the epoch. ``start`` costs one permutation.
        """
        if batch_size < 1 or start < 0:
            raise InputError(f"batch_size={batch_size}, start={start}: need a positive batch size and start >= 0.")
        numbers = shuffled_batches(len(self), batch_size, partial(generator, seed, "language batches", name), start)
        return map(self.rows, numbers)
