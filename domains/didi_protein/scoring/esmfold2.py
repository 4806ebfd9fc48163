"""ESMFold2 through transformers: a diffusion model of structures, one design at a time, as a second opinion.

Its numbers are not those of ESMFold: compare only within one predictor. Seeded per design, so a design has the same
structure whatever is scored beside it. It knows chains, so complexes need no linker: their features are laid out as
EvolutionaryScale's package esm does, and the network is transformers', whose own features are of one chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from didi_core.errors import InputError
from didi_core.streams import derive_seed

from ..fasta import CHAINS
from .folding import Folded
from .models import config_of, load_strictly

ATOMS_AT_ONCE = 32  # the number of atoms is a multiple of it, for attention in windows
OF_ATOMS = ("ref_pos", "ref_element", "ref_charge", "ref_atom_name_chars", "atom_attention_mask")
OF_MSA = ("msa", "msa_attention_mask", "has_deletion", "deletion_value")
SHARE = 0.8  # of ipTM in the rank of a complex, AlphaFold-Multimer's; pTM is the rest


class EsmFold2:
    """An ESMFold2 on a device. recycles: loops of the trunk, None its own.

    The best of its samples is kept: by pTM, of a complex by 0.8 ipTM + 0.2 pTM (Evans et al. 2021).
    """

    def __init__(
        self, model: Any, device: torch.device, recycles: int | None = None, chunk: int = 64, seed: int = 0
    ) -> None:
        self.name = "esmfold2"
        self.model = model.eval().to(device)
        self.device, self.seed = device, seed
        self._loops = {} if recycles is None else {"num_loops": recycles}
        self.chunk = chunk

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, recycles: int | None = None, chunk: int = 64, seed: int = 0
    ) -> EsmFold2:
        """From a folder in the hub's layout. Raises InputError for weights of another model."""
        from transformers import EsmFold2Model

        check(folder)
        return cls(load_strictly(EsmFold2Model, folder, ("inv_freq",)), device, recycles, chunk, seed)

    @property
    def passes(self) -> int:
        """Loops through the trunk."""
        return int(self._loops.get("num_loops", self.model.config.num_loops))

    @property
    def chunk(self) -> int:
        """Rows of the pair representation that are computed at a time."""
        return self._chunk

    @chunk.setter
    def chunk(self, size: int) -> None:
        self._chunk = size
        self.model.config.chunk_size = size
        for module in self.model.modules():
            if hasattr(module, "chunk_size"):
                module.chunk_size = size

    def fold(self, sequences: Sequence[str]) -> list[Folded]:
        """Structures, one after the other."""
        return [self._one(sequence) for sequence in sequences]

    def _one(self, sequence: str) -> Folded:
        from transformers.models.esmfold2.protein_utils import output_to_pdb

        features = {name: value.to(self.device) for name, value in features_of(sequence).items()}
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, "esmfold2", sequence))
            made = self.model.fold(**features, **self._loops)
        several = CHAINS in sequence
        best = int((SHARE * made["iptm"] + (1 - SHARE) * made["ptm"] if several else made["ptm"]).argmax())
        ca = 100 * made["plddt_ca"][best].float()
        # The writer puts what it is given into the B-factor column: the scale of 0 to 100 there too.
        made["plddt"] = 100 * made["plddt"].float()
        pae = made["pae"][best].float().cpu().numpy()
        chain = features["asym_id"][0].cpu().numpy()
        return Folded(
            plddt=float(100 * made["plddt_per_atom"][best].float().mean()),
            plddt_ca=float(ca.mean()),
            ptm=float(made["ptm"][best]),
            residues=made["plddt"][best].cpu().numpy().astype(np.float64),
            pae=pae,
            pdb=output_to_pdb(made, features, sample_idx=best),
            iptm=float(made["iptm"][best]) if several else None,
            ipae=float(pae[chain[:, None] != chain].mean()) if several else None,
        )


def features_of(design: str) -> dict[str, Tensor]:
    """What the network is given of a design, a leading axis of 1 before each; chains have ``:`` between them.

    Chains are numbered from 0 in ``asym_id``, equal ones share ``entity_id`` and are counted in ``sym_id``; residues
    are numbered from 0 in each.
    """
    from transformers.models.esmfold2.protein_utils import prepare_protein_features

    chains = design.split(CHAINS)
    parts = [prepare_protein_features(chain) for chain in chains]
    if len(parts) == 1:
        return parts[0]
    kinds = list(dict.fromkeys(chains))
    tokens = atoms = 0
    for i, (chain, part) in enumerate(zip(chains, parts, strict=True)):
        real = part["atom_attention_mask"][0]
        for name in (*OF_ATOMS, "atom_to_token", "ref_space_uid"):
            part[name] = part[name][:, real]
        for name in ("token_index", "atom_to_token", "ref_space_uid"):
            part[name] += tokens
        part["distogram_atom_idx"] += atoms
        for name, value in (("asym_id", i), ("entity_id", kinds.index(chain)), ("sym_id", chains[:i].count(chain))):
            part[name].fill_(value)
        tokens, atoms = tokens + len(chain), atoms + int(real.sum())
    joined = {
        name: torch.cat([part[name] for part in parts], dim=2 if name in OF_MSA else 1)
        for name in parts[0]
        if name != "token_bonds"
    }
    for name in (*OF_ATOMS, "atom_to_token", "ref_space_uid"):
        pad = [0, 0] * (joined[name].dim() - 2) + [0, -atoms % ATOMS_AT_ONCE]
        joined[name] = functional.pad(joined[name], pad)
    joined["token_bonds"] = torch.zeros(1, tokens, tokens, 1)
    return joined


def check(folder: Path) -> None:
    """Refuse a folder that is not an ESMFold2, by its configuration."""
    found = config_of(folder, "fold_model").get("model_type")
    if found != "esmfold2":
        raise InputError(f"fold_model={folder} is not an ESMFold2: its config.json says model_type={found}.")
