"""Which sequences of a user's data a domain uses, and in which split: by their lengths and their content alone."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from didi_core.storage.sample_store import first_of_each


@dataclass(frozen=True)
class Usable:
    """Numbers of the sequences that are used, ascending; how many others were left out by reason, and repeated."""

    numbers: Int[np.ndarray, "m"]
    left_out: Mapping[str, int]
    repeated: int


def within_limits(
    texts: Iterable[str], length: Callable[[str], int], identity: Callable[[str], str], limits: tuple[int, int]
) -> Usable:
    """The sequences of at least and at most so many letters; of those with one identity the first."""
    shortest, longest = limits
    fitting, digests = array("q"), bytearray()
    left_out: Counter[str] = Counter()
    for number, text in enumerate(texts):
        size = length(text)
        if size < shortest:
            left_out[f"shorter than data.min_length={shortest}"] += 1
        elif size > longest:
            left_out[f"longer than data.max_length={longest}"] += 1
        else:
            fitting.append(number)
            digests += hashlib.blake2b(identity(text).encode(), digest_size=16).digest()
    kept = np.array(fitting)[first_of_each(np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2))]
    return Usable(kept, left_out, len(fitting) - len(kept))


def held_out_by_content(keys: Iterable[str], count: int, share: float) -> Bool[np.ndarray, "n"]:
    """Which of ``count`` sequences are held out: a given share of all possible ones, whatever other data there are."""
    digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.fromiter((int.from_bytes(digest, "little") / 2**64 < share for digest in digests), bool, count)
