"""How predictors name their files: which design a structure is of, and where its confidences are.

The layouts are those of the programs' documentation: Boltz 1 and 2, Chai-1, Protenix, OpenFold3, ColabFold, AlphaFold 3
and its server. A file of any other program is named after its design.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "<folder>"  # the design is named by the folder that the file is in


@dataclass(frozen=True)
class Layout:
    """File names of one predictor; in the names beside it, ``{...}`` are groups of the structure's name.

    stem: what the structure's name without suffix matches; groups ``id`` and ``sample``.
    scores: file of pTM, ipTM and the score that samples are ranked by (``rank``; more is better).
    details, plddt, pae: file and keys of confidences of atoms, tokens or residues, and of the matrix of errors.
    """

    predictor: str
    stem: re.Pattern[str]
    scores: str
    rank: str = ""
    details: str = ""
    plddt: str = ""
    pae_file: str = ""
    pae: str = ""


LAYOUTS = (
    Layout(
        "colabfold", re.compile(r"(?P<id>.+)_(?:un)?relaxed_(?P<rest>rank_0*(?P<sample>\d+)_.+)"),
        "{id}_scores_{rest}.json", "", "{id}_scores_{rest}.json", "plddt", "{id}_scores_{rest}.json", "pae",
    ),
    Layout(
        "chai", re.compile(r"pred\.(?P<kind>model_idx|rank)_(?P<sample>\d+)"),
        "scores.{kind}_{sample}.npz", "aggregate_score",
    ),
    Layout(
        "openfold3", re.compile(r"(?P<id>.+)_seed_(?P<seed>\d+)_sample_(?P<sample>\d+)_model"),
        "{id}_seed_{seed}_sample_{sample}_confidences_aggregated.json", "sample_ranking_score",
        "{id}_seed_{seed}_sample_{sample}_confidences.json", "plddt",
        "{id}_seed_{seed}_sample_{sample}_confidences.json", "pae",
    ),
    Layout(
        "protenix", re.compile(r"(?P<id>.+?)(?P<seed>(?:_seed)?_\d+)?_sample_(?P<sample>\d+)"),
        "{id}{seed}_summary_confidence_sample_{sample}.json", "ranking_score",
        "{id}{seed}_full_data_sample_{sample}.json", "atom_plddt",
        "{id}{seed}_full_data_sample_{sample}.json", "token_pair_pae",
    ),
    Layout(
        "protenix", re.compile(r"(?P<id>.+)_sample_(?P<sample>\d+)"),
        "{id}_summary_confidence_sample_{sample}.json", "ranking_score",
        "{id}_full_data_sample_{sample}.json", "atom_plddt", "{id}_full_data_sample_{sample}.json", "token_pair_pae",
    ),
    Layout(
        "alphafold3", re.compile(r"fold_(?P<id>.+)_model_(?P<sample>\d+)"),
        "fold_{id}_summary_confidences_{sample}.json", "ranking_score",
        "fold_{id}_full_data_{sample}.json", "atom_plddts", "fold_{id}_full_data_{sample}.json", "pae",
    ),
    Layout(
        "boltz", re.compile(r"(?P<id>.+)_model_(?P<sample>\d+)"),
        "confidence_{id}_model_{sample}.json", "confidence_score",
        "plddt_{id}_model_{sample}.npz", "plddt", "pae_{id}_model_{sample}.npz", "pae",
    ),
    Layout(
        "alphafold3", re.compile(r"(?P<id>.+?)(?P<run>_seed-\d+_sample-(?P<sample>\d+))?_model"),
        "{id}{run}_summary_confidences.json", "ranking_score",
        "{id}{run}_confidences.json", "atom_plddts", "{id}{run}_confidences.json", "pae",
    ),
)  # fmt: skip
PLAIN = Layout("structures", re.compile(r"(?P<id>.+)"), "{id}.json", "", "{id}.json", "plddt", "{id}.json", "pae")
SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")


@dataclass(frozen=True)
class Found:
    """A structure file as one predictor would have named it, for the design ``name``."""

    path: Path
    layout: Layout
    name: str
    sample: int
    groups: tuple[tuple[str, str], ...]

    def beside(self, pattern: str) -> Path | None:
        """A file of confidences beside the structure, where it is there."""
        path = self.path.parent / pattern.format(**dict(self.groups)) if pattern else None
        return path if path is not None and path.is_file() else None


def stem(path: Path) -> str:
    """A structure's file name without its suffix; '' for other files."""
    name = path.name.removesuffix(".gz")
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    return "" if suffix is None or name.startswith(".") else name[: -len(suffix)]


def readings(path: Path) -> Iterator[Found]:
    """What a file could be: the structure of a design of its own name first, then by each layout."""
    name = stem(path)
    for layout in (PLAIN, *LAYOUTS):
        match = layout.stem.fullmatch(name)
        if match is not None:
            groups = {key: value or "" for key, value in match.groupdict().items()}
            design = groups.get("id") or path.parent.name
            yield Found(path, layout, design, int(groups.get("sample") or 0), tuple(groups.items()))


def plain_key(name: str) -> str:
    """An id as predictors write it into file names: lower case, anything else than letters and digits as ``_``."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())
