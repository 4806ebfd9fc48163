"""The interface of ``score`` and ``filter``: domains that can score designs one by one implement both commands.

A domain that ``ScoresDesigns`` has its own keys, declared in ``configs/scoring/<domain>.yaml`` and
``configs/filtering/<domain>.yaml``. It writes into a run directory, so results can be continued and have a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from didi_core.device import Machine
from didi_core.errors import InputError
from didi_core.processes import Processes
from didi_core.progress import Bar, Reporter
from didi_core.storage.frame import frame, html_table
from didi_core.storage.run_dir import RunDirectory
from didi_core.types import Domain, Sample

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Job:
    """What scoring gets beside the keys of the domain.

    run: the open run directory for results. machine: device and precision of networks. seed: seed of all draws.
    processes: those that share the work; only a domain that ``SharesScoring`` gets more than one.
    """

    run: RunDirectory
    machine: Machine
    seed: int = 0
    bar: Reporter = field(default_factory=Bar)
    processes: Processes = field(default_factory=Processes)

    def message(self, text: str) -> None:
        """Print a line for the user."""
        self.bar.message(text)


@dataclass(frozen=True, repr=False)
class Scored:
    """The result of ``score`` or ``filter``: its folder, and a row of scores per design, the best first."""

    folder: Path
    rows: Sequence[Mapping[str, Any]]

    def __repr__(self) -> str:
        return f"Scored({len(self.rows)} designs, folder={str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """The best designs, for a notebook, without long values such as a structure's residues."""
        rows = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in self.rows]
        return html_table(repr(self), rows)

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with one row per design. Raises InputError without pandas."""
        return frame(self.rows)


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
class SharesScoring(Protocol):
    """A domain whose ``score`` shares the designs among ``job.processes``. Every process calls it with all designs;
    the first returns the rows."""

    shares_scoring: bool


@runtime_checkable
class ScoresAgain(Protocol):
    """A domain that can score a folder again with other keys, and keeps the scores on which these have no effect."""

    def may_score_again(self, folder: Path, before: Mapping[str, Any], wishes: Mapping[str, Any]) -> bool:
        """Whether a folder scored with the keys ``before`` may be scored with ``wishes``.

        Raises:
            InputError: something of worth would be lost, in words of the domain.
        """
        ...


def scoring_of(domain: Domain) -> ScoresDesigns:
    """The domain, if it can score designs. Raises InputError otherwise."""
    if not isinstance(domain, ScoresDesigns):
        raise InputError(
            f"domain={domain.name} has no scores of single designs. Use evaluate, which measures sets of samples."
        )
    return domain
