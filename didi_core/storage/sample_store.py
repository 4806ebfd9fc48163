"""Many samples in a few long arrays: a million Python objects with their dictionaries take a gigabyte, their letters a
quarter of it."""

from __future__ import annotations

import pickle
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Generic, Protocol, TypeVar, overload, runtime_checkable

import numpy as np

from didi_core.storage.records import unique
from didi_core.types import Sample

T = TypeVar("T")
AT_ONCE = 10_000  # numbers that are Python objects at one time
UNNAMED = "seq_"  # and the number of the record, from 1: the id of a record without one


class Listed(Sequence[T], Generic[T]):
    """A sequence that makes its elements when they are asked for.

    A slice is such a sequence too, and whatever sequence has equal elements is equal.
    """

    __hash__ = None  # type: ignore[assignment]

    def at(self, number: int) -> T:
        """The element of a number from 0 to ``len(self) - 1``."""
        raise NotImplementedError

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[T]: ...
    def __getitem__(self, number: int | slice) -> T | Sequence[T]:
        if isinstance(number, slice):
            return Chosen(self, np.arange(*number.indices(len(self))))
        whole = int(number)
        if not -len(self) <= whole < len(self):
            raise IndexError(f"number {whole} of {len(self)}")
        return self.at(whole % len(self))

    def __iter__(self) -> Iterator[T]:
        return map(self.at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} elements)"


class Chosen(Listed[T]):
    """Some elements of a sequence, by their numbers in it, [n]."""

    def __init__(self, source: Sequence[T], numbers: np.ndarray) -> None:
        numbers = np.asarray(numbers, dtype=np.int64)
        self.source: Sequence[T] = source.source if isinstance(source, Chosen) else source
        self.numbers: np.ndarray = source.numbers[numbers] if isinstance(source, Chosen) else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, number: int) -> T:
        """The element of a number."""
        return self.source[int(self.numbers[number])]

    def __iter__(self) -> Iterator[T]:
        get = self.source.at if isinstance(self.source, Listed) else self.source.__getitem__
        for start in range(0, len(self), AT_ONCE):
            yield from map(get, self.numbers[start : start + AT_ONCE].tolist())


class Joined(Listed[T]):
    """Several sequences, one after the other."""

    def __init__(self, parts: Iterable[Sequence[T]]) -> None:
        self.parts = tuple(parts)
        self._starts = [0, *accumulate(map(len, self.parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def at(self, number: int) -> T:
        """The element of a number."""
        part = bisect_right(self._starts, number) - 1
        return self.parts[part][number - self._starts[part]]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.parts)


class Strings(Listed[str]):
    """Texts, kept as bytes in one array. They can be added to, not changed."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, text: str) -> None:
        """Put a text at the end."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def at(self, number: int) -> str:
        """The text of a number."""
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogatepass")

    def joined(self, numbers: np.ndarray) -> tuple[bytes, np.ndarray]:
        """The texts of some numbers as UTF-8, one after the other, and how many bytes each has."""
        ends = np.frombuffer(self._ends, dtype=np.int64)
        first, last = ends[numbers], ends[numbers + 1]
        if len(numbers) and (first[1:] == last[:-1]).all():
            return bytes(self._bytes[first[0] : last[-1]]), last - first
        return b"".join(self._bytes[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)), last - first


class SampleStore(Listed[Sample]):
    """Samples that a reader adds one after the other; afterwards an ordinary sequence of samples.

    typed: turns a word of a sample's info, by its key, into a value when it is asked for; by default values are as they
    were added.
    """

    def __init__(self, typed: Callable[[str, Any], Any] | None = None) -> None:
        self._typed = typed
        self._texts, self._ids = Strings(), Strings()
        self._keys: list[tuple[str, ...]] = []  # every combination of keys that some info has
        self._number_of: dict[tuple[str, ...], int] = {}
        self._which = array("i")  # of these combinations each sample has
        self._values, self._value_ends = bytearray(), array("q", [0])
        self._hashes = array("q")  # of the ids that records have

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def texts(self) -> Sequence[str]:
        """The texts alone."""
        return self._texts

    def add(self, text: str, name: str, tokens: tuple[int, ...] | None, info: Mapping[str, Any]) -> None:
        """Put a sample at the end; without a name it gets its number."""
        self._texts.add(text)
        self._ids.add(name)
        if name:
            self._hashes.append(hash(name))
        if info or tokens is not None:
            self._values += pickle.dumps((tokens, *info.values()))
        self._value_ends.append(len(self._values))
        keys = tuple(info)
        if keys not in self._number_of:
            self._number_of[keys] = len(self._keys)
            self._keys.append(keys)
        self._which.append(self._number_of[keys])

    def number_repeated(self) -> int:
        """Give repeated ids a number, so that all differ.

        Returns:
            how many samples have another id than their record.
        """
        named = len(self._hashes)
        hashes, self._hashes = np.sort(np.array(self._hashes)), array("q")
        repeated = bool((hashes[1:] == hashes[:-1]).any())
        if not repeated and (named == len(self) or not any(name.startswith(UNNAMED) for name in self._ids)):
            return len(self) - named
        used: dict[str, int] = {}
        written, renamed = Strings(), 0
        for number, name in enumerate(self._ids, start=1):
            made = unique(name or f"{UNNAMED}{number}", used)
            renamed += made != name
            written.add(made)
        self._ids = written
        return renamed

    def at(self, number: int) -> Sample:
        """The sample of a number."""
        kept = self._values[self._value_ends[number] : self._value_ends[number + 1]]
        tokens, *values = pickle.loads(kept) if kept else (None,)
        keys = self._keys[self._which[number]]
        if self._typed is not None:
            values = [self._typed(key, value) for key, value in zip(keys, values, strict=True)]
        name = self._ids.at(number) or f"{UNNAMED}{number + 1}"
        return Sample(self._texts.at(number), name, tokens, dict(zip(keys, values, strict=True)))


@runtime_checkable
class HasTexts(Protocol):
    """Samples whose texts can be had without the rest."""

    @property
    def texts(self) -> Sequence[str]: ...


def texts_of(samples: Sequence[Sample]) -> Sequence[str]:
    """The texts of some samples; nothing is copied where they are kept in a ``SampleStore``."""
    if isinstance(samples, HasTexts):
        return samples.texts
    if isinstance(samples, Chosen):
        return Chosen(texts_of(samples.source), samples.numbers)
    if isinstance(samples, Joined):
        return Joined(map(texts_of, samples.parts))
    return [sample.text for sample in samples]


def joined(texts: Sequence[str]) -> tuple[bytes, np.ndarray]:
    """The texts as UTF-8, one after the other, and how many bytes each has; quick for what ``Strings`` keep."""
    if isinstance(texts, Strings):
        return texts.joined(np.arange(len(texts)))
    if isinstance(texts, Chosen) and isinstance(texts.source, Strings):
        return texts.source.joined(texts.numbers)
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(encoded))


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """Numbers of the rows that are not in an earlier row, ascending; keys [n, 2]."""
    order = np.lexsort(keys.T)  # stable, so the first of equal rows comes first
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[new])
