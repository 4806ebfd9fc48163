"""Keys of ``configs/scoring/protein.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from didi_core.config import user_path
from didi_core.errors import InputError, at_least, positive, unknown

from ..nearest.choice import AUTO as NOVELTY_AUTO
from ..nearest.choice import METHODS

AUTO, NONE, ESMFOLD, ESMFOLD2 = "auto", "none", "esmfold", "esmfold2"
FOLDS = (AUTO, ESMFOLD, ESMFOLD2, NONE)
LOWEST = {"recycles": 0, "linker": 1, "chunk": 1, "tokens": 1, "pppl_positions": 1, "selfconsistency_num": 1}
EVALUE = 10.0  # Foldseek's own default
MODELS = {ESMFOLD: "facebook/esmfold_v1", ESMFOLD2: "biohub/ESMFold2"}


@dataclass(frozen=True, kw_only=True)
class ProteinScoring:
    """How designs are scored; the YAML file says what each key is."""

    structures: tuple[Path, ...] | None = None
    motif: Path | None = None
    fold: str = AUTO
    fold_model: str | None = None
    recycles: int | None = None
    linker: int | None = None
    chunk: int = 128
    tokens: int = 1024
    hours: float = 1.0
    pae: bool = False
    mmcif: bool = False
    selfconsistency: str | None = None
    selfconsistency_num: int = 8
    refolded: Path | None = None
    reference: tuple[Path, ...] | None = None
    novelty: str = NOVELTY_AUTO
    foldseek: Path | None = None
    foldseek_evalue: float | None = None
    structure_clusters: bool = False
    pppl: str = NONE
    pppl_positions: int | None = None
    report: bool = True

    def __post_init__(self) -> None:
        if self.fold not in FOLDS:
            raise unknown("fold", self.fold, FOLDS)
        if self.novelty not in METHODS:
            raise unknown("novelty", self.novelty, METHODS)
        if self.novelty != NOVELTY_AUTO and not self.reference:
            raise InputError(f"novelty={self.novelty} has no effect without reference=<FASTA of known proteins>.")
        if self.fold == NONE and self.fold_model is not None:
            raise InputError(f"fold_model={self.fold_model} has no effect with fold=none.")
        if self.fold == ESMFOLD2 and self.linker is not None:
            raise InputError(f"linker={self.linker} has no effect with fold=esmfold2, which knows chains.")
        if self.pppl == NONE and self.pppl_positions is not None:
            raise InputError(f"pppl_positions={self.pppl_positions} has no effect without pppl=<model>.")
        for name, lowest in LOWEST.items():
            if (value := getattr(self, name)) is not None:
                at_least(lowest, **{name: value})
        folders = [user_path(folder).resolve() for folder in self.structures or ()]
        for number, folder in enumerate(folders):
            if folder in folders[:number]:
                raise InputError(
                    f"structures has {folder} twice. Side by side stand two predictors, each with a folder of its own."
                )
        if self.selfconsistency is not None and self.refolded is not None:
            raise InputError(
                "selfconsistency and refolded exclude each other: refolded holds structures of what an earlier "
                "selfconsistency wrote."
            )
        for name in ("selfconsistency", "refolded", "foldseek"):
            given = getattr(self, name)
            if given is not None and self.fold == NONE and not self.structures:
                raise InputError(f"{name}={given} has no effect with fold=none: no design has a structure.")
        self._check_foldseek()
        if not self.hours >= 0:
            raise InputError(f"hours={self.hours} is out of range: it must not be negative.")

    def _check_foldseek(self) -> None:
        if self.structure_clusters and self.fold == NONE and not self.structures:
            raise InputError("structure_clusters=true has no effect with fold=none: no design has a structure.")
        if self.foldseek_evalue is not None:
            positive(foldseek_evalue=self.foldseek_evalue)
            if self.foldseek is None:
                raise InputError(
                    f"foldseek_evalue={self.foldseek_evalue} has no effect without foldseek=<structures or database>."
                )
        own = [user_path(folder).resolve() for folder in self.structures or ()]
        if self.foldseek is not None and user_path(self.foldseek).resolve() in own:
            raise InputError(
                f"foldseek={self.foldseek} is a folder of structures=: each design would be nearest to itself."
            )

    @property
    def evalue(self) -> float:
        """The highest E-value of a structure that Foldseek compares."""
        return EVALUE if self.foldseek_evalue is None else self.foldseek_evalue

    @property
    def model(self) -> str:
        """The model that folds."""
        return self.fold_model or MODELS[ESMFOLD if self.fold == AUTO else self.fold]
