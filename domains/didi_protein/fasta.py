"""Proteins from FASTA files: the core's reader, and the check of residues."""

from __future__ import annotations

from pathlib import Path

from didi_core.errors import InputError
from didi_core.storage.fasta import write_fasta
from didi_core.storage.records import Reading, Skipped
from didi_core.storage.sample_files import read_file

from .vocabulary import describe_letter, first_other_letter

__all__ = ["Reading", "Skipped", "chains", "protein", "read_fasta", "without_breaks", "write_fasta"]

EMPTY = "the record has no sequence"
ADVICE = "Repair or remove the record."
CHAINS = ":"  # between the chains of a complex
ADVICE_DATA = "Repair or remove the record, or set data.on_bad=skip to leave such records out."


def protein(text: str) -> str:
    """The residues, upper case. A ``*`` at the end, where translated genes have their stop, is cut.

    Raises InputError for any letter but the 20 amino acids.
    """
    text = text.rstrip("*")
    bad = first_other_letter(text)
    if bad is not None:
        raise InputError(describe_letter(*bad))
    return text if text.isupper() else text.upper()


def chains(text: str) -> str:
    """Chains with ``:`` between them, each as ``protein`` reads it; ProteinMPNN's ``/`` between chains is the same."""
    parts = [protein(part) for part in text.replace("/", CHAINS).split(CHAINS)]
    if not all(parts) and len(parts) > 1:
        raise InputError(f"chain {parts.index('') + 1} of {len(parts)} is empty")
    return CHAINS.join(parts)


def without_breaks(text: str) -> str:
    """The residues of all chains."""
    return text.replace(CHAINS, "")


def read_fasta(
    path: str | Path,
    *,
    on_bad: str = "error",
    repeated: str = "rename",
    advice: str = ADVICE,
    complexes: bool = False,
) -> Reading:
    """Proteins of a file, plain or gzip; see ``didi_core.storage.sample_files.read_file``.

    Lower case is read as upper case. A record without a sequence or with a letter outside the 20 amino acids is skipped
    and listed, or raises, as ``on_bad`` says. ``key=value`` words of the header become ``Sample.info`` (numbers are
    converted). A repeated id is kept with a suffix, and counted, or raises, as ``repeated`` says. ``complexes``: chains
    with ``:`` or ``/`` between them are read too.
    """
    check = chains if complexes else protein
    return read_file(path, check, on_bad=on_bad, repeated=repeated, empty=EMPTY, advice=advice)
