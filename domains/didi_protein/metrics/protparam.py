"""Physical properties as ExPASy's ProtParam computes them, through Biopython.

They do not distinguish natural from shuffled sequences, and the instability index does not rank designs. They serve to
find absurd values (a pI of 3, the hydrophobicity of a membrane), not to filter.
"""

from __future__ import annotations

from collections.abc import Callable

from Bio.SeqUtils.ProtParam import ProteinAnalysis

from didi_core.metrics import Mean

PROPERTIES: dict[str, tuple[str, Callable[[ProteinAnalysis], float]]] = {
    "molecular_weight": ("weight (Da)", lambda protein: protein.molecular_weight()),
    "isoelectric_point": ("pI", lambda protein: protein.isoelectric_point()),
    "gravy": ("GRAVY", lambda protein: protein.gravy()),
    "aromaticity": ("aromaticity", lambda protein: protein.aromaticity()),
    "instability": ("instability", lambda protein: protein.instability_index()),
}


def properties(sequence: str) -> dict[str, float]:
    """Molecular weight (Da), isoelectric point, grand average of hydropathy, aromaticity, instability index."""
    protein = ProteinAnalysis(sequence)
    return {name: float(compute(protein)) for name, (_, compute) in PROPERTIES.items()}


def protparam_metrics() -> list[Mean]:
    """One mean per property."""
    return [Mean(name, label, _property(compute)) for name, (label, compute) in PROPERTIES.items()]


def _property(compute: Callable[[ProteinAnalysis], float]) -> Callable[[str], float]:
    return lambda sequence: float(compute(ProteinAnalysis(sequence)))
