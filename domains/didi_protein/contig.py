"""Contigs: one line for kept residues and free positions, ``20-40/MKTAYIAK/A12-30/30-50``.

Segments between slashes, from the first residue to the last: a number or a range is that many free positions (the
length is drawn for each design), letters are residues that are kept (``_`` or ``X`` among them is free), and
``A12-30`` are residues 12 to 30 of chain A of a structure file. A chain whose name is not of letters alone is written
with a colon: ``1:12-30``. The notation follows RFdiffusion, whose spellings are understood (``plain``); letters are our
addition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from didi_core.errors import InputError

from .structure_file import LONGEST, ResidueRange
from .vocabulary import describe_letter, first_other_letter

FREE_LETTERS = "Xx"
_LENGTH = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?")
_MOTIF = re.compile(r"(?:([A-Za-z]+)|([^\s/:]{1,20}):)(-?[0-9]{1,12})(?:-(?:\1)?(-?[0-9]{1,12}))?")
_INSERTION = re.compile(r"[A-Za-z]+-?\d+[A-Za-z](?:--?\d+[A-Za-z]?)?|[A-Za-z]+-?\d+--?\d+[A-Za-z]")
_KEY = re.compile(r"(contigmap\.)?contigs?\s*=\s*")
_AROUND = re.compile(r"\s*([-/,:])\s*")
_DASHES = {ord(dash): "-" for dash in "\u2010\u2011\u2012\u2013\u2014\u2212"}
_SEQUENCE = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True)
class Free:
    """Between ``low`` and ``high`` positions to write."""

    low: int
    high: int


@dataclass(frozen=True)
class Kept:
    """Residues that are kept, ``_`` at free ones among them; ``source`` where they come from a structure file."""

    letters: str
    source: ResidueRange | None = None


Segment = Free | Kept


@dataclass(frozen=True)
class Layout:
    """One design before it is written: ``text`` with ``_`` at free positions, and where each kept segment is."""

    text: str
    contig: str  # with the lengths that were drawn
    pieces: tuple[dict[str, Any], ...]  # first, last (1-based, inclusive), residues, source


@dataclass(frozen=True)
class Contig:
    """A parsed contig."""

    text: str
    segments: tuple[Segment, ...]

    @classmethod
    def parse(cls, text: str, motif: Callable[[ResidueRange], str]) -> Contig:
        """From the user's text; ``motif`` gives the residues of a range of the structure file.

        Raises:
            InputError: an empty segment, one that is neither length, residues nor range, overlapping ranges,
                nothing to write, or more than ``LONGEST`` residues.
        """
        text = plain(text)
        parts = text.split("/")
        segments = tuple(_segment(part, number, text, motif) for number, part in enumerate(parts, start=1))
        sources = [s.source for s in segments if isinstance(s, Kept) and s.source is not None]
        for one, other in combinations(sources, 2):
            if one.overlaps(other):
                raise InputError(f"contig={text}: ranges {one} and {other} overlap. Keep each residue once.")
        made = cls(text, segments)
        if made.longest > LONGEST:
            raise InputError(
                f"contig={text} makes up to {made.longest:,} residues; {LONGEST:,} are the most. Shorten its ranges."
            )
        if made.longest == made.pinned:
            raise InputError(f"contig={text}: there is nothing to write. Add free positions, such as 20-40.")
        return made

    @property
    def pinned(self) -> int:
        """Residues that are kept."""
        return sum(len(s.letters) - s.letters.count("_") for s in self.segments if isinstance(s, Kept))

    @property
    def shortest(self) -> int:
        return sum(s.low if isinstance(s, Free) else len(s.letters) for s in self.segments)

    @property
    def longest(self) -> int:
        return sum(s.high if isinstance(s, Free) else len(s.letters) for s in self.segments)

    def check_fits(self, low: int, high: int) -> None:
        """Raise InputError when no design of this contig has a length in [low, high]."""
        if low > self.longest or high < max(self.shortest, self.pinned + 1):
            asked = f"{low}" if low == high else f"{low}-{high}"
            raise InputError(
                f"contig={self.text} makes {self.shortest} to {self.longest} residues, {self.pinned} of them kept; "
                f"length={asked} does not fit. Change the free ranges or length."
            )

    def draw(self, allowed: tuple[int, int] | None, stream: torch.Generator) -> Layout:
        """One layout: free lengths drawn evenly from all combinations whose total length lies in ``allowed``."""
        low, high = allowed or (0, self.longest)
        low = max(low, self.pinned + 1)  # at least one position to write
        fixed = sum(len(s.letters) for s in self.segments if isinstance(s, Kept))
        spans = [(s.low, s.high) for s in self.segments if isinstance(s, Free)]
        lengths = iter(draw_lengths(spans, low - fixed, high - fixed, stream))
        text, echo, pieces = "", [], []
        for segment in self.segments:
            if isinstance(segment, Free):
                count = next(lengths)
                echo.append(str(count))
                text += "_" * count
                continue
            echo.append(str(segment.source or segment.letters))
            piece: dict[str, Any] = {"first": len(text) + 1, "last": len(text) + len(segment.letters)}
            piece["residues"] = segment.letters
            if segment.source is not None:
                piece["source"] = str(segment.source)
            pieces.append(piece)
            text += segment.letters
        return Layout(text, "/".join(echo), tuple(pieces))


def draw_lengths(spans: Sequence[tuple[int, int]], low: int, high: int, stream: torch.Generator) -> list[int]:
    """One length from each (lowest, highest), evenly over all combinations whose sum lies in [low, high].

    Exact: the number of ways in which the remaining segments reach each total decides each draw.
    """
    ways = [np.ones(1)]  # ways[k][t]: combinations of the last k segments with total t above their lowest
    for first, last in reversed(spans):
        more = np.convolve(ways[-1], np.ones(last - first + 1))
        ways.append(more / more.max())
    base = sum(first for first, _ in spans)
    totals = np.arange(len(ways[-1])) + base
    weights = np.where((totals >= low) & (totals <= high), ways[-1], 0.0)
    left = int(torch.multinomial(torch.from_numpy(weights), 1, generator=stream))
    drawn = []
    for (first, last), rest in zip(spans, reversed(ways[:-1]), strict=True):
        extra = np.arange(min(last - first, left) + 1)
        remaining = left - extra
        weights = np.where(remaining < len(rest), rest[np.minimum(remaining, len(rest) - 1)], 0.0)
        chosen = int(torch.multinomial(torch.from_numpy(weights), 1, generator=stream))
        drawn.append(first + chosen)
        left -= chosen
    return drawn


def _segment(part: str, number: int, text: str, motif: Callable[[ResidueRange], str]) -> Segment:
    where = f"contig={text if len(text) <= 80 else text[:77] + '...'}, segment {number}"
    if len(part) > LONGEST:
        raise InputError(f"{where} has {len(part):,} characters; {LONGEST:,} residues are the most.")
    if not part:
        raise InputError(f"{where} is empty. Write segments between single slashes: 20-40/MKTAYIAK/30-50.")
    if (length := _LENGTH.fullmatch(part)) is not None:
        return _free(int(length[1]), int(length[2] or length[1]), where, part)
    if (found := _MOTIF.fullmatch(part)) is not None:
        first = int(found[3])
        wanted = ResidueRange(found[1] or found[2], first, int(found[4]) if found[4] else first)
        if wanted.last < wanted.first:
            raise InputError(f"{where}, {part!r}: the range falls. Write the lower number first.")
        if len(wanted) > LONGEST:
            raise InputError(f"{where}, {part!r} is {len(wanted):,} residues long; {LONGEST:,} are the most.")
        return Kept(motif(wanted), wanted)
    if _INSERTION.fullmatch(part):
        raise InputError(f"{where}, {part!r}: a range cannot hold insertion codes. Renumber the file.")
    if _SEQUENCE.fullmatch(part):
        letters = part.translate({ord(letter): "_" for letter in FREE_LETTERS}).upper()
        bad = first_other_letter(letters.replace("_", "A"))
        if bad is not None:
            raise InputError(f"{where}, {part!r}: {describe_letter(*bad)}.")
        return Kept(letters)
    if part.split()[0] in ("0", "/0"):
        raise InputError(f"{where}, {part!r}: a design is one chain, so there are no chain breaks. Leave them out.")
    raise InputError(
        f"{where}, {part!r} is neither a length (30, 20-40), residues (MKTAYIAK) nor a range of the structure file "
        "(A12-30, or 1:12-30 for a chain whose name is not of letters alone)."
    )


def _free(low: int, high: int, where: str, part: str) -> Free:
    if high < low:
        raise InputError(f"{where}, {part!r}: the range falls. Write the lower number first.")
    if high == 0:
        raise InputError(f"{where} is 0: a design is one chain, so there are no chain breaks. Leave it out.")
    return Free(low, high)


def plain(text: str) -> str:
    """A contig as it is parsed here, from any spelling of RFdiffusion's: ``contigmap.contigs=['5-15/A10-25/30-40']``.

    The key, brackets, quotes and spaces around its signs are dropped; commas, which RFdiffusion2 writes between
    segments, become slashes, and the dashes of text processors hyphens.
    """
    bare = _KEY.sub("", text.strip().translate(_DASHES))
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1].strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1].strip()
    return _AROUND.sub(r"\1", bare).replace(",/", "/").replace(",", "/")


def either_way(text: str, chains: Sequence[str]) -> str | None:
    """A warning where a free segment could be meant as residues of a chain whose name is a number; None without one."""
    for part in plain(text).split("/"):
        for chain in chains:
            found = _LENGTH.fullmatch(part)
            if found is not None and found[2] and chain.isdigit() and found[1].startswith(chain) and found[1] != chain:
                first = found[1].removeprefix(chain)
                last = found[2].removeprefix(chain) or found[2]
                return (
                    f"contig={text}: {part} is {found[1]} to {found[2]} free positions. The file has a chain "
                    f"{chain!r}: write {chain}:{first}-{last} where you mean its residues."
                )
    return None
