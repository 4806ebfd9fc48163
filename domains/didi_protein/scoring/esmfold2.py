"""ESMFold2 through transformers: a diffusion model of structures, one sequence at a time, as a second opinion.

Its numbers are not those of ESMFold: compare only within one predictor. Seeded per sequence, so a design has the same
structure whatever is scored beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from didi_core.errors import InputError
from didi_core.streams import derive_seed

from ..fasta import CHAINS
from .folding import Folded
from .models import config_of, load_strictly


class EsmFold2:
    """An ESMFold2 on a device; the best of its samples by pTM is kept. recycles: loops of the trunk, None its own."""

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
        """Structures, one after the other. Raises InputError for a complex."""
        if any(CHAINS in sequence for sequence in sequences):
            raise InputError(
                "fold=esmfold2 predicts single chains, and a design has several. Use fold=esmfold, or predict it with "
                "another program and give structures=<folder>."
            )
        return [self._one(sequence) for sequence in sequences]

    def _one(self, sequence: str) -> Folded:
        from transformers.models.esmfold2.protein_utils import output_to_pdb, prepare_protein_features

        features = prepare_protein_features(sequence, device=self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, "esmfold2", sequence))
            made = self.model.fold(**features, **self._loops)
        best = int(made["ptm"].argmax())
        ca = 100 * made["plddt_ca"][best].float()
        # The writer puts what it is given into the B-factor column: the scale of 0 to 100 there too.
        made["plddt"] = 100 * made["plddt"].float()
        return Folded(
            plddt=float(100 * made["plddt_per_atom"][best].float().mean()),
            plddt_ca=float(ca.mean()),
            ptm=float(made["ptm"][best]),
            residues=made["plddt"][best].cpu().numpy().astype(np.float64),
            pae=made["pae"][best].float().cpu().numpy(),
            pdb=output_to_pdb(made, features, sample_idx=best),
        )


def check(folder: Path) -> None:
    """Refuse a folder that is not an ESMFold2, by its configuration."""
    found = config_of(folder, "fold_model").get("model_type")
    if found != "esmfold2":
        raise InputError(f"fold_model={folder} is not an ESMFold2: its config.json says model_type={found}.")
