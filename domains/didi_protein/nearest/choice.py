"""``novelty=auto|exact|mmseqs|kmers``: which search, and why, in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from didi_core.errors import InputError

from . import exact, mmseqs
from .neighbour import Search
from .words import WordSearch

AUTO, EXACT, MMSEQS, KMERS = "auto", "exact", "mmseqs", "kmers"
METHODS = (AUTO, EXACT, MMSEQS, KMERS)
# Residues of the designs times those of the reference up to which novelty=auto aligns everything: five times 1,000
# designs of 200 residues against 20,000 proteins of 250. benchmarks/novelty.py measures the cells of a second.
MOST_CELLS = 5e12
CELLS_A_SECOND = 5e9  # of one core with AVX2


def check_installed(method: str) -> None:
    """Raise InputError where a search that was asked for by name is not there."""
    if method == EXACT and not exact.installed():
        raise InputError(f"novelty=exact needs the package pyopal: {exact.COMMAND}. novelty=kmers needs nothing.")
    if method == MMSEQS and not mmseqs.installed():
        raise InputError(
            "novelty=mmseqs needs the program mmseqs on the PATH (soedinglab/MMseqs2). "
            f"novelty=exact needs a package only: {exact.COMMAND}."
        )


def chosen(method: str, designs: Sequence[str], reference: Sequence[str]) -> tuple[str, str]:
    """The search to use, and the reason in one line.

    Args:
        designs: all of them, so that a run that goes on after a stop chooses as before.
    """
    if method != AUTO:
        return method, f"novelty={method}"
    cells = float(sum(map(len, designs))) * sum(map(len, reference))
    size = f"{len(designs):,} designs against {len(reference):,} proteins"
    if exact.installed() and cells <= MOST_CELLS:
        return EXACT, f"novelty=auto: exact, every protein aligned ({size})"
    if mmseqs.installed():
        why = f"too many for an exact search ({size})" if exact.installed() else "pyopal is not installed"
        return MMSEQS, f"novelty=auto: mmseqs, because {why}"
    blind = "which misses most relatives below 40 % identity"
    if exact.installed():
        minutes = cells / CELLS_A_SECOND / 60
        return KMERS, (
            f"novelty=auto: kmers, {blind}: {size} are many, and mmseqs is not on the PATH; novelty=exact would take "
            f"about {minutes:,.0f} minutes of one core"
        )
    return KMERS, f"novelty=auto: kmers, {blind}; for an exact search: {exact.COMMAND}"


def make_search(
    method: str,
    designs: Sequence[str],
    left: Sequence[str],
    reference: Sequence[str],
    log: Callable[[str], None],
    *,
    threads: int = 1,
) -> Search:
    """The search of ``novelty``, for the designs that are ``left`` to score; ready to be used in forked processes."""
    name, reason = chosen(method, designs, reference)
    log(reason)
    if name == EXACT:
        return exact.ExactSearch(reference, threads)
    if name == MMSEQS:
        return mmseqs.MmseqsSearch(reference, left, max(threads, torch.get_num_threads()))
    words = WordSearch(tuple(reference))
    words.prepare()
    return words
