"""Designs and known proteins from FASTA files: ids that are unique and say where a design comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from didi_core.errors import InputError
from didi_core.types import Sample

from ..fasta import read_fasta

SHOWN = 20  # designs that are left out, each with its reason: more than of a reference, as these are the user's own


def read_designs(
    files: Sequence[Path], labels: Sequence[str], on_bad: str, say: Callable[[str], None]
) -> list[Sample]:
    """The designs of all files. Ids that several files share get the name of their file in front.

    Args:
        labels: who wrote each file: the column ``model``. on_bad: see ``read_fasta``; what is skipped is told.

    Raises:
        InputError: whatever ``read_fasta`` refuses; an id that a file has twice.
    """
    read = []
    for number, path in enumerate(files):
        found = read_fasta(path, on_bad=on_bad, repeated="error")
        if found.skipped:
            say(f"{path}: {found.summary(SHOWN)}")
        label = {"model": labels[number]} if labels else {}
        read.append([replace(design, info={**design.info, **label}) for design in found.samples])
    counts = Counter(design.id for designs in read for design in designs)
    if max(counts.values()) == 1:
        return [design for designs in read for design in designs]
    names = _file_names(files)
    return [replace(d, id=f"{name}_{d.id}") for name, designs in zip(names, read, strict=True) for d in designs]


def _file_names(files: Sequence[Path]) -> list[str]:
    """A short name for each file: without its suffixes, its folder in front where that is needed."""
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
    """All known proteins of the files; records that are no proteins of the 20 amino acids are left out and told.

    Raises:
        InputError: a file that cannot be read, or a reference that is the designs themselves.
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
