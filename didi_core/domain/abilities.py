"""Optional abilities of a domain, beside the ``Domain`` protocol. A domain with the members of one has that ability.

===========================  =====================================================================================
ability                      what the core does with it
===========================  =====================================================================================
``HasConditioning``          ``sample`` takes keys of the domain's own: a contig, a prompt
``ReadsTemplates``           ``template`` is read in the domain's notation
``HasForm``                  ``demo`` asks for these keys of the domain on its page
``DrawsTemplates``           rollouts, references, samples and evaluations complete templates of the domain's own
``ScoresDesigns``            ``score`` and ``filter`` work on samples one by one
``HasControls``              reports show these negative controls in place of the generic ones
``HasTrainingSet``           reports warn where a reference holds training data
``HasReferenceStatistics``   reports compare with statistics where the held-out data themselves cannot be shipped
``HasSampleCache``           ``distill`` takes samples of the bundled teacher from there and draws none
``HasBundledStudent``        ``sample`` without a run writes with it, where else it would with the bundled teacher
``GroupsLetters``            ``demo`` and the films of reports colour letters by these groups
``HasTokenizer``             ``push`` puts a tokenizer of transformers beside the model
``ReportsData``              commands say what became of the user's data, on screen, in run.json and in card.json
===========================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from didi_core.domain.conditioning import DrawsTemplates, HasConditioning, HasForm, ReadsTemplates
from didi_core.domain.data_report import ReportsData
from didi_core.domain.scoring import ScoresDesigns
from didi_core.types import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "DrawsTemplates",
    "GroupsLetters",
    "HasBundledStudent",
    "HasConditioning",
    "HasControls",
    "HasForm",
    "HasReferenceStatistics",
    "HasSampleCache",
    "HasTokenizer",
    "HasTrainingSet",
    "ReadsTemplates",
    "ReportsData",
    "ScoresDesigns",
]


@runtime_checkable
class HasControls(Protocol):
    """A domain with better controls than the generic ones."""

    def controls(self, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
        """Named degraded copies of the samples."""
        ...


@runtime_checkable
class HasTrainingSet(Protocol):
    """A domain that can list the training data of its models."""

    def training_set(self) -> Sequence[str]:
        """Texts of the training data; an empty list without data."""
        ...


@runtime_checkable
class HasReferenceStatistics(Protocol):
    """A domain that ships statistics of held-out data instead of the data, whose licence may forbid that."""

    def reference_statistics(self) -> Mapping[str, Mapping[str, np.ndarray]] | None:
        """Statistics [n, k] by set and metric name, held-out data first; None if the domain has the data itself."""
        ...


@runtime_checkable
class HasSampleCache(Protocol):
    """A domain that ships samples of its bundled teacher in a cache folder, so a run need not draw them."""

    sample_cache: Path


@runtime_checkable
class HasBundledStudent(Protocol):
    """A domain that carries a distilled student: a folder with card.json and weights.

    None where the domain's settings are not those that the student was made for (another tokenizer, another chain).
    """

    @property
    def bundled_student(self) -> Path | None: ...


@runtime_checkable
class GroupsLetters(Protocol):
    """A domain whose letters have properties that a picture shows by colour."""

    letter_groups: Mapping[str, Sequence[str]]  # name of each group, and its letters


@runtime_checkable
class HasTokenizer(Protocol):
    """A domain whose texts transformers can tokenise too."""

    def transformers_tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer that gives a text the ids of ``encode``, with the vocabulary's mask as its mask token."""
        ...
