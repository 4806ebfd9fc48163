"""What a domain may offer beside the ``Domain`` protocol: whoever has the members has the ability.

===========================  =====================================================================================
ability                      what the core does with it
===========================  =====================================================================================
``HasConditioning``          ``sample`` takes keys of the domain's own: a contig, a prompt
``ReadsTemplates``           ``template`` is read in the domain's own notation
``ScoresDesigns``            ``score`` and ``filter`` work on samples one by one
``HasControls``              reports show these negative controls in place of the generic ones
``HasTrainingSet``           reports warn where a reference holds training data
``HasReferenceStatistics``   reports compare with statistics where the held-out data themselves cannot be shipped
``HasSampleCache``           ``distill`` takes samples of the bundled teacher from there and draws none
``ReportsData``              commands say what became of the user's data, on screen, in run.json and in card.json
===========================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from didi_core.types import Sample

if TYPE_CHECKING:
    from didi_core.domain.conditioning import Conditioning, Request
    from didi_core.domain.data_report import DataReport
    from didi_core.domain.scoring import Job


@runtime_checkable
class HasConditioning(Protocol):
    """A domain with keys of its own for what a sample must hold, declared in ``configs/conditioning/<domain>.yaml``."""

    free_letters: str  # letters that mark a position to fill in a template, beside "_"

    def condition(self, wishes: Mapping[str, Any], request: Request) -> Conditioning:
        """Templates and bias for the keys given. Raises InputError, also for a key that it does not know."""
        ...


@runtime_checkable
class ReadsTemplates(Protocol):
    """A domain that reads ``template`` in a notation of its own."""

    def read_template(self, text: str) -> list[int]:
        """Token ids with the mask at the positions to fill. Raises InputError."""
        ...


@runtime_checkable
class ScoresDesigns(Protocol):
    """A domain whose samples can be scored one by one. Its keys are in ``configs/scoring/<domain>.yaml`` and
    ``configs/filtering/<domain>.yaml``."""

    name: str

    def read_designs(self, files: Sequence[Path], labels: Sequence[str]) -> list[Sample]:
        """The designs of some files, ids unique. ``labels``: who wrote each file, or none. Raises InputError."""
        ...

    def score(self, designs: Sequence[Sample], wishes: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
        """Score designs that were not scored before, write everything, and return all rows, the best first."""
        ...

    def shortlist(self, folder: Path, wishes: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
        """Write the designs of a score folder that pass; returns their rows, the best first."""
        ...


@runtime_checkable
class HasControls(Protocol):
    """A domain that knows better controls than the generic ones."""

    def controls(self, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
        """Named degraded copies of the samples."""
        ...


@runtime_checkable
class HasTrainingSet(Protocol):
    """A domain that can list what its models are trained on."""

    def training_set(self) -> Sequence[str]:
        """Texts; none where it has no data."""
        ...


@runtime_checkable
class HasReferenceStatistics(Protocol):
    """A domain that carries statistics of held-out data instead of the data, whose licence may not let it."""

    def reference_statistics(self) -> Mapping[str, Mapping[str, np.ndarray]] | None:
        """Statistics [n, k] by set and metric name, held-out data first; None where it has the data itself."""
        ...


@runtime_checkable
class HasSampleCache(Protocol):
    """A domain that carries samples of its bundled teacher in a cache folder, so that a run need not draw them."""

    sample_cache: Path


@runtime_checkable
class ReportsData(Protocol):
    """A domain that counts what became of the records of its data."""

    def data_report(self) -> DataReport | None:
        """The counts, the data read where they were not; None where none are the user's. Raises InputError."""
        ...
