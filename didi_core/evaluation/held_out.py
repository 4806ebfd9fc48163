"""The reference rows of every table: held-out data and its negative controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from didi_core.domain.abilities import HasReferenceStatistics, HasTrainingSet
from didi_core.domain.controls import negative_controls
from didi_core.errors import InputError
from didi_core.evaluation.cache import StatisticsCache
from didi_core.evaluation.intervals import RESAMPLES, bootstrap
from didi_core.evaluation.measure import all_metrics, evaluate_samples
from didi_core.evaluation.rows import HELD_OUT, Kind, Row
from didi_core.storage.files import write_atomic
from didi_core.streams import derive_seed
from didi_core.types import Domain, Metric, Sample


def save_reference(path: Path, domain: Domain, held_out: Sequence[Sample], seed: int = 0) -> None:
    """Write statistics of held-out samples and their controls under all metrics of the domain.

    Statistics can be published where the samples themselves cannot.
    """
    arrays = {}
    for name, samples in {HELD_OUT: held_out, **negative_controls(domain, held_out, seed)}.items():
        for metric in all_metrics(domain):
            rows = metric.statistics(samples)
            small = bool(np.isin(rows, (0, 1)).all())  # indicators
            arrays[f"{name}/{metric.name}"] = rows.astype(np.uint8 if small else np.float32)

    def save(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomic(path, save)


def load_reference(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read what ``save_reference`` wrote, in the form of ``HasReferenceStatistics``."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, metric = key.split("/")
            found.setdefault(name, {})[metric] = arrays[key].astype(np.float64)
    return found


def check_reference(domain: Domain) -> None:
    """Raise InputError before hours of training if the domain has no held-out samples to compare with."""
    if not isinstance(domain, HasReferenceStatistics) or domain.reference_statistics() is None:
        domain.held_out(1, 0)


def reference_rows(
    domain: Domain,
    metrics: Sequence[Metric],
    num: int,
    *,
    given: Sequence[Sample] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    cache: StatisticsCache | None = None,
) -> tuple[list[Row], list[Sample]]:
    """Rows of the held-out data and its negative controls. ``given`` samples replace the domain's held-out ones.

    Returns:
        the rows, and the held-out samples (empty if only their statistics are known).

    Raises:
        InputError: there are no samples to compare with.
    """
    known = domain.reference_statistics() if isinstance(domain, HasReferenceStatistics) and not given else None
    if known is not None:
        return [_known_row(name, found, metrics, resamples, seed) for name, found in known.items()], []
    held_out = list(given) or domain.held_out(num, derive_seed(seed, "held out") % 2**31)
    if not held_out:
        raise InputError(
            f"domain {domain.name!r} has no held-out samples to compare with. "
            "Give evaluate reference=<file>."
        )
    sets = {HELD_OUT: held_out, **negative_controls(domain, held_out, seed)}
    rows = []
    for name, samples in sets.items():
        measured = evaluate_samples(metrics, samples, resamples=resamples, seed=seed, cache=cache)
        rows.append(Row(name, _kind(name), len(samples), measured.values, skipped=measured.skipped))
    return rows, held_out


def _known_row(name: str, found: Mapping[str, np.ndarray], metrics: Sequence[Metric], resamples: int, seed: int) -> Row:
    """A reference row from stored statistics; a metric without stored statistics is skipped by name."""
    values = {m.name: bootstrap(m, found[m.name], resamples, seed) for m in metrics if m.name in found}
    skipped = {m.name: "not among the bundled statistics" for m in metrics if m.name not in found}
    return Row(name, _kind(name), max(map(len, found.values())), values, skipped=skipped)


def _kind(name: str) -> Kind:
    return "data" if name == HELD_OUT else "control"


def overlap_notes(domain: Domain, reference: Sequence[Sample]) -> tuple[str, ...]:
    """A warning with the number of reference sequences that are in the domain's training set."""
    known = set(domain.training_set()) if isinstance(domain, HasTrainingSet) else set()
    shared = sum(sample.text in known for sample in reference)
    if not shared:
        return ()
    return (
        f"{shared:,} of the {len(reference):,} reference sequences are in the training set: a model that copies looks "
        "as good as the data. Use a reference that is separate from the training data.",
    )
