"""The other strand."""

from __future__ import annotations

_COMPLEMENT = str.maketrans("ACGT", "TGCA")


def reverse_complement(text: str) -> str:
    """The opposite strand, read in its own direction: ``AACG`` -> ``CGTT``."""
    return text.translate(_COMPLEMENT)[::-1]
