"""Complexes for a predictor of single chains: chains joined by a linker, with a gap in the numbers of residues.

The layout is that of fair-esm's ``infer`` and of ColabFold's ESMFold notebook: 25 glycines between the chains (or
another number), and 512 added to the residue numbers with every chain. The linker is in no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.errors import InputError

from ..fasta import CHAINS

LINKER, GAP = 25, 512  # glycines between two chains, and what is added to the residue numbers
GLYCINE = "G"


@dataclass(frozen=True)
class Joined:
    """A design as one chain: ``text`` with linkers of ``linker`` residues, of chains of these ``lengths``."""

    text: str
    lengths: tuple[int, ...]
    linker: int = LINKER

    @classmethod
    def of(cls, design: str, linker: int = LINKER) -> Joined:
        """From chains with ``:`` between them."""
        chains = design.split(CHAINS)
        return cls((GLYCINE * linker).join(chains), tuple(map(len, chains)), linker)

    @property
    def numbers(self) -> Int[Tensor, "L"]:
        """Residue numbers, from 0, linkers numbered with the chain before them."""
        shifts = [i * GAP for i, length in enumerate(self.lengths) for _ in range(length + self.linker)]
        return torch.arange(len(self.text)) + torch.tensor(shifts[: len(self.text)])

    @property
    def chains(self) -> Int[Tensor, "N"]:
        """The chain of every residue outside linkers."""
        return torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))

    @property
    def places(self) -> Int[Tensor, "N"]:
        """Where these residues are in ``text``."""
        return torch.arange(sum(self.lengths)) + self.linker * self.chains


def joined_length(design: str, linker: int = LINKER) -> int:
    """Residues that are predicted, linkers included."""
    return len(design) + (linker - len(CHAINS)) * design.count(CHAINS)


def check_linker(linker: int | None, designs: Sequence[str], longest: int | None) -> None:
    """Refuse a linker that nothing is joined by, or that is as long as what the predictor was made for.

    Args:
        linker: as it was given. longest: residues that the predictor was made for; None where nothing is folded.
    """
    if linker is None:
        return
    if longest is None:
        raise InputError(f"linker={linker} has no effect: nothing is folded here.")
    if not any(CHAINS in design for design in designs):
        raise InputError(f"linker={linker} has no effect: no design has several chains (A{CHAINS}B).")
    if linker >= longest:
        raise InputError(
            f"linker={linker} is longer than the model: it was made for {longest:,} residues, chains and linkers "
            f"together. ColabFold's has {LINKER}."
        )


def interface_tm(
    logits: Float[Tensor, "L L Z"], chains: Int[Tensor, "L"], largest: float = 31.0
) -> float:
    """ipTM: as pTM, each residue scored by its pairs in *other* chains alone (Evans et al. 2021).

    Args:
        logits: of the bins of aligned error, the last of which is open; ``largest``: where it begins, in angstroms.
    """
    other = (chains[:, None] != chains[None, :]).to(logits.device)
    edges = torch.linspace(0, largest, logits.shape[-1] - 1, device=logits.device)
    step = edges[1] - edges[0]
    centres = torch.cat([edges, edges[-1:] + step]) + step / 2
    scale = 1.24 * (max(len(chains), 19) - 15) ** (1 / 3) - 1.8
    expected = (logits.softmax(-1) / (1 + (centres / scale) ** 2)).sum(-1)
    return float(((expected * other).sum(-1) / other.sum(-1).clamp(min=1)).max())


def split_chains(pdb: str, lengths: Sequence[int]) -> str:
    """PDB text of residues that are numbered on and on in one chain, as chains A, B ... numbered from 1 each."""
    ends = torch.tensor(lengths).cumsum(0).tolist()
    lines: list[str] = []
    last = None
    for line in pdb.splitlines():
        if not line.startswith("ATOM"):
            if not line.startswith("TER"):
                lines += ["TER"] * (line == "END" and last is not None) + [line]
            continue
        number = int(line[22:26])
        chain = next(i for i, end in enumerate(ends) if number <= end)
        if last not in (None, chain):
            lines.append("TER")
        last = chain
        own = number - ends[chain] + lengths[chain]
        lines.append(f"{line[:21]}{ascii_uppercase[chain % 26]}{own:4d}{line[26:]}")
    return "\n".join([*lines, ""])
