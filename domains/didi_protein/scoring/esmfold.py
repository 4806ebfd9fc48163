"""ESMFold (Lin et al. 2023) through transformers' ``EsmForProteinFolding``, unbatched numbers for every batch member.

transformers gives pLDDT from 0 to 1 and one pTM for a whole padded batch, and writes the end of a padded chain at the
wrong residue. Here every tensor is cut to its sequence first, so each number is that of the sequence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError

from .complexes import LINKER, Joined, interface_tm, split_chains
from .folding import Folded
from .models import config_of, load_strictly

ORDER = "ARNDCQEGHILKMFPSTWYV"  # AlphaFold's, which the network's ids follow
CA = 1  # of the 37 atoms
PTM_BINS, PTM_MAX = 64, 31
POSITIONS = 1026  # of ESM-2, both ends included
OF_THE_BATCH = ("aatype", "residue_index", "atom37_atom_exists", "residx_atom37_to_atom14", "residx_atom14_to_atom37")


class EsmFold:
    """An ESMFold on a device.

    recycles: passes after the first; None is the model's own number. chunk: see ``Folder``. linker: residues between
    the chains of a complex. The language model's stem runs in half precision on a GPU where its configuration says so,
    everything else in single precision.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        recycles: int | None = None,
        chunk: int = 128,
        linker: int = LINKER,
    ) -> None:
        self.name, self.linker = "esmfold", linker
        self.model = model.float().eval().to(device)
        if device.type == "cuda" and model.config.esmfold_config.fp16_esm:
            self.model.esm.half()
        self.device, self.recycles = device, recycles
        self.chunk = chunk

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        recycles: int | None = None,
        chunk: int = 128,
        linker: int = LINKER,
    ) -> EsmFold:
        """From a folder in the hub's layout. Raises InputError for weights of another model."""
        from transformers import EsmForProteinFolding

        check(folder)
        # The contact head is not read when folding; the tables are computed, and old files may lack them.
        unread = ("contact_head", "af2_to_esm", "inv_freq", "position_ids", "position_embeddings")
        return cls(load_strictly(EsmForProteinFolding, folder, unread), device, recycles, chunk, linker)

    @property
    def passes(self) -> int:
        """Passes through the trunk."""
        own = int(self.model.config.esmfold_config.trunk.max_recycles)  # which counts the first pass, unlike recycles
        return own if self.recycles is None else 1 + self.recycles

    @property
    def chunk(self) -> int:
        """Rows of the pair representation that are computed at a time."""
        return self._chunk

    @chunk.setter
    def chunk(self, size: int) -> None:
        self._chunk = size
        self.model.trunk.set_chunk_size(size)

    @torch.no_grad()
    def fold(self, sequences: Sequence[str]) -> list[Folded]:
        """Structures of a batch, in order."""
        joined = [Joined.of(sequence, self.linker) for sequence in sequences]
        longest = max(len(one.text) for one in joined)
        residues = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros_like(residues)
        positions = torch.arange(longest).repeat(len(sequences), 1)
        for i, one in enumerate(joined):
            length = len(one.text)
            residues[i, :length], mask[i, :length], positions[i, :length] = _ids(one.text), 1, one.numbers
        made = self.model(
            residues.to(self.device),
            mask.to(self.device),
            position_ids=positions.to(self.device),
            num_recycles=self.recycles,
        )
        return [self._one(made, i, one) for i, one in enumerate(joined)]

    def _one(self, made: Any, i: int, joined: Joined) -> Folded:
        """The structure of batch member i, everything cut to its residues first, without padding and linkers."""
        from transformers.models.esm.openfold_utils.loss import compute_tm

        kept, several = joined.places.to(self.device), len(joined.lengths) > 1
        exists = made["atom37_atom_exists"][i, kept].float()
        plddt = 100 * made["plddt"][i, kept].float()
        logits = made["ptm_logits"][i, kept][:, kept].float()
        pae = made["predicted_aligned_error"][i, kept][:, kept].float().cpu().numpy()
        ptm = compute_tm(logits[None], max_bin=PTM_MAX, no_bins=PTM_BINS)
        cut = {name: made[name][i : i + 1, kept] for name in OF_THE_BATCH}
        cut |= {"positions": made["positions"][-1:, i : i + 1, kept].float(), "plddt": plddt[None]}
        if several:
            cut["residue_index"] = torch.arange(len(kept), device=self.device)[None]
        pdb = self.model.output_to_pdb(cut)[0]
        return Folded(
            plddt=float((plddt * exists).sum() / exists.sum()),
            plddt_ca=float(plddt[:, CA].mean()),
            ptm=float(ptm),
            residues=plddt[:, CA].cpu().numpy().astype(np.float64),
            pae=pae,
            pdb=split_chains(pdb, joined.lengths) if several else pdb,
            iptm=interface_tm(logits, joined.chains, PTM_MAX) if several else None,
            ipae=float(pae[(joined.chains[:, None] != joined.chains).numpy()].mean()) if several else None,
        )


def _ids(sequence: str) -> Int[Tensor, "L"]:
    return torch.tensor([ORDER.index(letter) for letter in sequence])


def longest_of(folder: Path) -> int:
    """Residues that the model of a folder was made for: the positions of its language model, without the two ends."""
    return int(config_of(folder, "fold_model").get("max_position_embeddings", POSITIONS)) - 2


def check(folder: Path) -> None:
    """Refuse a folder that is not an ESMFold, by its configuration."""
    config = config_of(folder, "fold_model")
    if config.get("model_type") != "esm" or not config.get("is_folding_model"):
        kind = config.get("model_type") or "nothing"
        found = f"model_type={kind}, is_folding_model={config.get('is_folding_model', False)}"
        raise InputError(
            f"fold_model={folder} is not an ESMFold ({found} in its config.json). Give a folder like "
            "facebook/esmfold_v1, or fold=esmfold2 for an ESMFold2."
        )
