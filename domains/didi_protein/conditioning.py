"""Conditions of a design: contigs, motifs, parents to redesign in part, excluded residues and biases.

This module turns the keys of ``configs/conditioning/protein.yaml`` into the templates and the bias of a sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from didi_core.domain.conditioning import Conditioning, Field, Request
from didi_core.errors import InputError

from .contig import Contig, Layout, either_way
from .fasta import read_fasta
from .structure_file import ResidueRange, StructureFile
from .vocabulary import RESIDUES, VOCABULARY, describe_letter, first_other_letter, residue_ids

FORM = (
    Field("contig", "Motif (contig)", "20-40/MKTAYIAK/30-50: numbers and ranges are free, letters are kept"),
    Field("pdb", "Structure file that ranges such as A12-30 of the contig come from", suffix=".pdb", upload=True),
    Field("parent", "Parent to redesign in part", "a sequence, or FASTA", suffix=".fasta", opening=">parent\n"),
    Field("mask_fraction", "Share of the parent's residues to write anew", "0.3"),
    Field("exclude", "Residues never written", "CW"),
)
Encode = Callable[[str, str], list[int]]  # text with "_" at free positions, key for messages -> token ids


@dataclass(frozen=True, kw_only=True)
class ProteinConditioning:
    """Keys of ``configs/conditioning/protein.yaml``.

    contig, pdb: layout of a design, and the structure file of its motifs; see ``contig.Contig``.
    parent, mask_fraction: FASTA file of proteins, and the share of residues written anew, positions drawn per design.
    exclude: residues never written; kept residues are not touched. bias: added to the logits, by residue.
    """

    contig: str | tuple[str, ...] | None = None
    pdb: Path | None = None
    parent: Path | None = None
    mask_fraction: float | None = None
    exclude: str | tuple[str, ...] | None = None
    bias: Mapping[str, float] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.contig is not None and self.parent is not None:
            raise InputError("contig and parent exclude each other: each lays out the whole sequence.")
        if self.pdb is not None and self.contig is None:
            raise InputError(f"pdb={self.pdb} has no effect without contig, such as contig=20-40/A12-30/30-50.")
        if (self.parent is None) != (self.mask_fraction is None):
            raise InputError("parent and mask_fraction go together: parent=wt.fasta mask_fraction=0.3.")
        if self.mask_fraction is not None and not 0 < self.mask_fraction <= 1:
            raise InputError(f"mask_fraction={self.mask_fraction} is out of range: it must be in (0, 1].")
        _residue_letters("exclude", self.excluded)
        if set(self.excluded) == set(RESIDUES):
            raise InputError(f"exclude={self.excluded} leaves no residue to write.")
        for residue, value in (self.bias or {}).items():
            _residue_letters(f"bias.{residue}", residue)
            if len(residue) != 1:
                raise InputError(f"bias.{residue}: give one residue each, such as bias.A=0.5.")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(
                    f"bias.{residue}={value!r} is not a number. To forbid a residue, use exclude={residue}."
                )

    @property
    def layout(self) -> str:
        """The contig as one text: the command line makes a list of RFdiffusion's ``[5-15/A10-25]``."""
        return self.contig if isinstance(self.contig, str) else ",".join(self.contig or ())

    @property
    def excluded(self) -> str:
        """Letters, each once, upper case."""
        return "".join(sorted(set("".join(self.exclude or "").upper())))

    def token_bias(self) -> Float[Tensor, "V"] | None:
        """The bias on the logits; None if no key sets one."""
        if not self.excluded and not self.bias:
            return None
        bias = torch.zeros(VOCABULARY.size)
        for residue, value in (self.bias or {}).items():
            bias[residue_ids(residue)] += float(value)
        bias[residue_ids(self.excluded)] = -torch.inf
        return bias

    def record(self) -> dict[str, Any]:
        """The entries of every design's header."""
        said: dict[str, Any] = {"exclude": self.excluded} if self.excluded else {}
        if self.bias:
            said["bias"] = ",".join(f"{residue.upper()}:{value:g}" for residue, value in self.bias.items())
        return said


def condition(
    wishes: ProteinConditioning, request: Request, encode: Encode, warn: Callable[[str], None] = print
) -> Conditioning:
    """Templates and bias for the given keys. Raises InputError where they do not fit together or with ``length``.

    Args:
        warn: called with warnings for the user.
    """
    said = wishes.record()
    if wishes.contig is not None:
        layouts = _contig_layouts(wishes, request, warn)
        return Conditioning(
            templates=[encode(layout.text, "contig") for layout in layouts],
            origin="contig",
            bias=wishes.token_bias(),
            info=[{"contig": layout.contig, **said} for layout in layouts],
            maps=[_map(layout, wishes.pdb) for layout in layouts],
        )
    if wishes.parent is not None and wishes.mask_fraction is not None:
        return _from_parents(wishes.parent, wishes.mask_fraction, wishes, request, encode)
    return Conditioning(bias=wishes.token_bias(), info=[said])


def _contig_layouts(wishes: ProteinConditioning, request: Request, warn: Callable[[str], None]) -> list[Layout]:
    """One drawn layout per design."""
    structure = None if wishes.pdb is None else StructureFile(wishes.pdb)

    def motif(wanted: ResidueRange) -> str:
        if structure is None:
            raise InputError(f"contig={wishes.layout}: {wanted} needs the structure file: give pdb=<file>.")
        return structure.sequence(wanted)

    contig = Contig.parse(wishes.layout, motif)
    if structure is not None and (doubt := either_way(contig.text, structure.chains())):
        warn(doubt)
    if structure is not None and not any(getattr(s, "source", None) for s in contig.segments):
        raise InputError(f"pdb={wishes.pdb} has no effect: contig={contig.text} has no range such as A12-30.")
    for low, high in request.lengths or ():
        contig.check_fits(low, high)
    allowed = request.lengths or (None,)
    return [contig.draw(allowed[i % len(allowed)], request.generator) for i in range(request.num)]


def _map(layout: Layout, pdb: Path | None) -> dict[str, Any]:
    """The index map of one design, with pairs of residue numbers (file, design) as in RFdiffusion."""
    made: dict[str, Any] = {"contig": layout.contig, "pieces": list(layout.pieces)}
    if pdb is not None:
        made["pdb"] = str(pdb)
    return made


def _from_parents(
    path: Path, fraction: float, wishes: ProteinConditioning, request: Request, encode: Encode
) -> Conditioning:
    """Parents in turn; for each design, ``fraction`` of the positions are drawn as free."""
    if request.lengths is not None:
        raise InputError("length and parent exclude each other: a parent has its own length.")
    parents = read_fasta(path, on_bad="error").samples
    templates, info, maps = [], [], []
    for number in range(request.num):
        parent = parents[number % len(parents)]
        count = max(round(fraction * len(parent.text)), 1)
        free = set(torch.randperm(len(parent.text), generator=request.generator)[:count].tolist())
        text = "".join("_" if i in free else letter for i, letter in enumerate(parent.text))
        templates.append(encode(text, "parent"))
        info.append({"parent": parent.id, "mask_fraction": fraction, "masked": count, **wishes.record()})
        maps.append({"parent": parent.id, "parent_sequence": parent.text})
    return Conditioning(templates, "parent", wishes.token_bias(), info, maps)


def _residue_letters(key: str, letters: str) -> None:
    """Raise InputError unless all letters are of the 20 amino acids."""
    bad = first_other_letter(letters)
    if bad is not None:
        raise InputError(f"{key}={letters}: {describe_letter(*bad)}.")
