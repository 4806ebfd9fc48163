"""Designs and known proteins from FASTA files, with unique ids that show the origin of a design."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from didi_core.errors import InputError
from didi_core.types import Sample

from ..fasta import read_fasta
from ..structures.motif import read_map

SHOWN = 20  # designs that are left out, each with its reason: more than of a reference, as these are the user's own


def read_designs(files: Sequence[Path], labels: Sequence[str], on_bad: str, say: Callable[[str], None]) -> list[Sample]:
    """The designs of all files. Ids that several files share get the name of their file in front.

    Args:
        labels: origin of each file, for the column ``model``. on_bad: see ``read_fasta``; skipped records are reported.

    Raises:
        InputError: ``read_fasta`` refuses a file, or a file has an id twice.
    """
    read = []
    for number, path in enumerate(files):
        found = read_fasta(path, on_bad=on_bad, repeated="error", complexes=True)
        if found.skipped:
            say(f"{path}: {found.summary(SHOWN)}")
        label = {"model": labels[number]} if labels else {}
        motifs = read_map(path)
        read.append([replace(d, info={**d.info, **motifs.get(d.id, {}), **label}) for d in found.samples])
    counts = Counter(design.id for designs in read for design in designs)
    if max(counts.values()) == 1:
        return [design for designs in read for design in designs]
    names = _file_names(files)
    return [replace(d, id=f"{name}_{d.id}") for name, designs in zip(names, read, strict=True) for d in designs]


def _file_names(files: Sequence[Path]) -> list[str]:
    """A short name for each file: without suffixes, and with its folder in front if necessary."""
    stems = [path.name.removesuffix(".gz").rsplit(".", 1)[0] for path in files]
    for names in (stems, [f"{p.resolve().parent.name}_{stem}" for p, stem in zip(files, stems, strict=True)]):
        if len(set(names)) == len(names):
            return ["_".join(name.split()) for name in names]
    shared = next(name for name, count in Counter(stems).items() if count > 1)
    raise InputError(
        f"input: several files are named {shared!r} and their designs have the same ids, so they cannot be told apart. "
        "Rename the files."
    )


@dataclass(frozen=True)
class Reference:
    """Known proteins, with their ids."""

    sequences: tuple[str, ...]
    names: tuple[str, ...]


def read_reference(files: Sequence[Path], designs: Sequence[Sample], say: Callable[[str], None]) -> Reference:
    """All known proteins of the files; records that are not proteins of the 20 amino acids are left out and reported.

    Raises:
        InputError: a file cannot be read, or the reference consists of the designs themselves.
    """
    sequences, names = [], []
    own = Counter(design.text for design in designs)
    for path in files:
        found = read_fasta(path, on_bad="skip")
        if found.skipped:
            say(f"reference {path}: {found.summary()}")
        if Counter(sample.text for sample in found.samples) == own:
            raise InputError(
                f"reference={path} holds the designs themselves, so each would be its own neighbour. "
                "Give the proteins that are known."
            )
        sequences += [sample.text for sample in found.samples]
        names += [sample.id for sample in found.samples]
    return Reference(tuple(sequences), tuple(names))
