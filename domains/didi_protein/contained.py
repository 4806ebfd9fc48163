"""Which of very many sequences may be contained in another: clusters need to look up no others.

Two sequences that share a word are common among a million (20^5 5-mers, some 300 a sequence), two that share a *pair*
of words are rare. So the words are divided into m classes, and each sequence has a key for every pair of its words that
are in one class. Of n words, ``need`` shared ones spread over m classes make the fewest shared pairs where they spread
evenly, and even these are some as soon as need > m. A sequence with fewer keys in common with all others together is
contained in none: no pair of relatives is lost, and chance only adds sequences that are looked up in vain.

With m a fixed share of ``need`` there are about as many keys as words. Overlapping words, which any shared 6-mer makes,
are mostly put into different classes. Of the keys, 32 bits are kept; they are sorted in blocks that fit into a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from didi_core.progress import Reporter

from .kmers import joined_codes

WORD_BITS = 22  # of a number that holds a word and which sequence of a chunk has it; enough for 20^5
CHUNK = 1 << (31 - WORD_BITS)  # sequences whose words are sorted together
CLASSES = 0.75  # over the words that relatives of the shortest sequence share: fewer make more keys and fewer by chance
PARTS = 4  # of a section at most: the places of a pair of letters in a 5-mer
BLOCK = 1 << 19  # keys sorted together: as many as the cache of a core holds
GROUP_BITS = 3  # of the number of a block: blocks that are put in order together
MARK_BITS = 21  # of a key that say whether it may be one of several
AT_ONCE = 1 << 17  # sequences whose keys are summed together
FEWEST = 200_000  # sequences; fewer are looked up one by one, in seconds
THREADS = 4  # at most
MIX, MIX_BLOCK, MIX_FIRST = (np.uint32(x) for x in (2654435769, 2246822519, 668265263))
# Nanoseconds, measured once: they decide only from which length on this is worth while.
PER_KEY, PER_WORD, PER_LOOKUP, PER_LOOKUP_AMONG = 15.0, 60.0, 55_000.0, 0.1


@dataclass(frozen=True)
class Sieved:
    """``sizes``: distinct words of each sequence, [n]. ``members``: whether another may contain it, bool [n]."""

    sizes: np.ndarray
    members: np.ndarray


@dataclass(frozen=True)
class Classes:
    """Words in ``sections`` by a hash, and each section in ``parts`` by the place of the pair of letters that a hash
    puts first.

    The next word of a sequence has that pair one place further to the left, so it is mostly in another part.
    ``least``: sequences with fewer words have no keys.
    """

    k: int
    sections: int
    parts: int
    least: int

    @property
    def number(self) -> int:
        """Of all classes."""
        return self.sections * self.parts

    def part_of(self) -> np.ndarray:
        """The part of each word, uint8 [20^k]."""
        code = np.arange(20**self.k, dtype=np.uint32)
        if self.parts == 1:
            return np.zeros(len(code), dtype=np.uint8)
        pairs = np.stack([code // 20**place % 400 * MIX for place in reversed(range(self.k - 1))])
        return (pairs.argmax(axis=0) % self.parts).astype(np.uint8)

    def in_section(self, words: np.ndarray, section: int) -> np.ndarray:
        """Which words are in a section, bool; words uint32."""
        low, high = ((number << 32) // self.sections for number in (section, section + 1))
        return words * MIX - np.uint32(low) <= np.uint32(high - low - 1)  # below the lower end it wraps around

    def shared_keys(self, need: np.ndarray) -> np.ndarray:
        """The fewest keys that so many shared words make, [n]."""
        each, more = np.divmod(need, self.number)
        return (self.number - more) * (each * (each - 1) // 2) + more * (each * (each + 1) // 2)


def may_be_contained(
    sequences: Sequence[str], threshold: float, k: int = 5, bar: Reporter | None = None
) -> Sieved | None:
    """The sequences of which another one, with no fewer words, may have the share ``threshold`` of their words.

    False is certain. None where looking up each is no slower: for few sequences, or a low threshold. Time grows with
    the residues, and memory is about a byte a residue beside the sequences. ``bar`` gets a bar of its own.
    """
    most = np.fromiter(map(len, sequences), np.int64, len(sequences)) - k + 1  # words, were none repeated
    classes = worth_while(most, threshold, k)
    if classes is None:
        return None
    found, sizes = np.zeros(len(sequences), dtype=np.int64), np.zeros(len(sequences), dtype=np.int64)
    keyed, part_of = most >= classes.least, classes.part_of()
    threads = min(THREADS, torch.get_num_threads())
    if bar:
        bar.start(f"words of {len(sequences):,} sequences", classes.number)
    with ThreadPoolExecutor(threads) as pool:
        for section in range(classes.sections):
            cut = partial(_chunk, sequences, classes, section, part_of)
            pieces: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(classes.parts)]
            starts = range(0, len(sequences), CHUNK)
            for first in range(0, len(starts), threads):  # no more chunks at once: they take ten times their words
                for chunk in pool.map(cut, starts[first : first + threads]):
                    for part, of_part in enumerate(pieces):
                        of_part.append(chunk.words(part))
            while pieces:
                words, counts = (np.concatenate(arrays) for arrays in zip(*pieces.pop(), strict=True))
                keys = Keys(words, counts, keyed)
                sizes += keys.counts
                list(pool.map(keys.find, range(threads), [threads] * threads))
                found += keys.shared()
                del words, counts, keys  # before the next ones are made
                if bar:
                    bar.advance()
    if bar:
        bar.stop()
    need = (threshold * sizes).astype(np.int64)  # rounded down, so that no rounding loses one
    return Sieved(sizes, (sizes > 0) & ((sizes < classes.least) | (found >= classes.shared_keys(need))))


def worth_while(words: np.ndarray, threshold: float, k: int) -> Classes | None:
    """The classes with which keys and what is left to look up cost least; None if that is to look up all; words [n]."""
    if len(words) < FEWEST or 20**k > 1 << WORD_BITS:
        return None
    having = np.bincount(np.maximum(words, 0))
    length = np.arange(len(having))
    squares = np.cumsum((having * length**2)[::-1])[::-1]  # summed over those with no fewer words
    classes = np.maximum((CLASSES * threshold * length).astype(np.int64), 1)
    lookup = PER_LOOKUP + PER_LOOKUP_AMONG * len(words)
    cost = PER_KEY * squares / (2 * classes) + PER_WORD * words.sum() + lookup * (np.cumsum(having) - having)
    cost[threshold * length < 2] = np.inf  # a single word makes no pair
    least = int(cost.argmin())
    if cost[least] >= lookup * len(words):
        return None
    parts = max(min(PARTS, k - 1, int(classes[least])), 1)
    return Classes(k, int(classes[least]) // parts, parts, least)


@dataclass(frozen=True)
class Chunk:
    """Words of one section in consecutive sequences, in the order of part, sequence and word.

    numbers: the words, uint32, each with its sequence's number in the chunk above ``WORD_BITS``. cuts: where parts
    begin. sequences: how many there are.
    """

    numbers: np.ndarray
    cuts: np.ndarray
    sequences: int

    def words(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of a part, and how many of them each sequence has."""
        chosen = self.numbers[self.cuts[part] : self.cuts[part + 1]]
        counts = np.bincount(chosen >> np.uint32(WORD_BITS), minlength=self.sequences)
        return chosen & np.uint32((1 << WORD_BITS) - 1), counts.astype(np.min_scalar_type(counts.max(initial=0)))


def _chunk(sequences: Sequence[str], classes: Classes, section: int, part_of: np.ndarray, first: int) -> Chunk:
    """The chunk that begins with a sequence."""
    codes, whole, ends = joined_codes(sequences[first : first + CHUNK], classes.k)
    whole &= classes.in_section(codes, section)
    chosen = np.flatnonzero(whole)
    codes, counts = codes[chosen], np.diff(np.searchsorted(chosen, ends), prepend=0)
    owners = np.repeat(np.arange(len(ends), dtype=np.uint64) << np.uint64(WORD_BITS), counts)
    keys = part_of[codes].astype(np.uint64) << np.uint64(32) | owners | codes
    keys.sort()
    keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]
    cuts = np.searchsorted(keys, np.arange(classes.parts + 1, dtype=np.uint64) << np.uint64(32))
    return Chunk(keys.astype(np.uint32), cuts, len(ends))


class Keys:
    """Pairs of words of one class that one sequence has, for all sequences.

    They are told apart by the first word, in blocks, and a few blocks make a group. In a block, words that equally many
    others follow are treated together.

    Args:
        words: of one class, uint32, in the order of sequence and word. counts: how many each sequence has, [n].
        keyed: which sequences have keys, bool [n].
    """

    def __init__(self, words: np.ndarray, counts: np.ndarray, keyed: np.ndarray) -> None:
        self.counts = counts
        if not keyed.all():
            words, counts = words[np.repeat(keyed, counts)], np.where(keyed, counts, 0)
        self._words, self._of_each = words, counts
        self._ends = np.cumsum(counts, dtype=np.int64)
        after = np.repeat(self._ends.astype(np.int32), counts)
        after -= np.arange(1, len(after) + 1, dtype=np.int32)
        self._most = int(after.max(initial=0))
        bits = (int(after.sum(dtype=np.int64)) // BLOCK).bit_length()  # of the hash that is a block's number
        self._inner = min(bits, GROUP_BITS)
        self._outer = min(bits - self._inner, 8)
        self._after = after.astype(np.min_scalar_type(self._most))  # words of the same sequence that follow
        del after
        self._group = _top(self._words * MIX_BLOCK, self._outer).astype(np.uint8)
        self._shared = np.zeros(len(self._words), dtype=np.uint16)

    def find(self, first: int, step: int) -> None:
        """Find the keys of every ``step``-th group that several sequences have."""
        marked = np.zeros(1 << MARK_BITS, dtype=bool)
        for group in range(first, 1 << self._outer, step):
            chosen = np.flatnonzero(self._group == group)
            block = _top((self._words[chosen] * MIX_BLOCK) << np.uint32(self._outer), self._inner)
            rank = block * np.uint32(self._most + 1) + np.uint32(self._most) - self._after[chosen]
            rank = rank.astype(np.min_scalar_type((self._most + 1) << self._inner))  # 16 bits are sorted by radix
            chosen = chosen[np.argsort(rank, kind="stable")]
            having = np.bincount(rank, minlength=(self._most + 1) << self._inner).reshape(1 << self._inner, -1)
            ends = np.cumsum(having.sum(axis=1))
            for order, counts in zip(np.split(chosen, ends[:-1]), having, strict=True):
                self._find_in_block(np.split(order, np.cumsum(counts)[:-1]), marked)

    def _find_in_block(self, places: Sequence[np.ndarray], marked: np.ndarray) -> None:
        """places: of the block's words, by how many words follow, which goes down to 0. marked: all False."""
        rows = [(place, after) for place, after in zip(places, range(self._most, 0, -1), strict=False) if len(place)]
        keys = np.empty(sum(len(place) * after for place, after in rows), dtype=np.uint32)
        pieces, start = [], 0
        for place, after in rows:
            piece = keys[start : start + len(place) * after].reshape(after, -1)
            np.take(self._words, place + np.arange(1, after + 1)[:, None], out=piece, mode="clip")  # quick with a mode
            piece += self._words[place] * MIX_FIRST
            pieces.append(piece)
            start += piece.size
        ordered = np.sort(keys)
        mark = np.uint32((1 << MARK_BITS) - 1)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]] & mark
        if len(repeated):
            marked[repeated] = True
            for (place, _), piece in zip(rows, pieces, strict=True):
                self._shared[place] = marked.take(piece & mark).sum(axis=0, dtype=np.uint16)
            marked[repeated] = False

    def shared(self) -> np.ndarray:
        """How many keys of each sequence another one has, [n], or a few more."""
        found = np.zeros(len(self._of_each), dtype=np.int64)
        some = np.flatnonzero(self._of_each)
        for first in range(0, len(some), AT_ONCE):  # a copy of them all in 4 bytes each would be large
            of_each, ends = self._of_each[some[first : first + AT_ONCE]], self._ends[some[first : first + AT_ONCE]]
            start = int(ends[0]) - int(of_each[0])
            found[some[first : first + AT_ONCE]] = np.add.reduceat(
                self._shared[start : int(ends[-1])], ends - of_each - start, dtype=np.uint32
            )
        return found


def _top(hashes: np.ndarray, bits: int) -> np.ndarray:
    """The highest bits of 32, in place; uint32."""
    if bits:
        hashes >>= np.uint32(32 - bits)
    else:
        hashes[:] = 0
    return hashes
