"""Costs of objectives, and their results over those of one of them, as of the control, plain training for as long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import Any

import numpy as np

from didi_core.evaluation.intervals import over_runs
from didi_core.report.record import read_training
from didi_core.report.runs import RunReport
from didi_core.report.side_tables import Table
from didi_core.report.tables import estimate
from didi_core.storage.run_dir import RECORD, read_record

CONTROL, BASELINE = "cross_entropy", "didi"
Reading = Callable[[RunReport, str, int], Mapping[str, Any] | None]


def spent(run: RunReport) -> tuple[int, float] | None:
    """Number of updates of a run's student, and their seconds; None if the record does not have them."""
    record = run.path / RECORD
    updates = read_record(record).get("updates") if record.is_file() else None
    lines = read_training(run.path)
    seconds = lines[-1].get("seconds", 0.0) if lines else 0.0
    return (updates, float(seconds)) if isinstance(updates, int) and updates > 0 and 0 < seconds < 1e12 else None


def costs(by_row: Mapping[str, Sequence[RunReport]]) -> list[Table]:
    """A table of updates per second and their ratio to those of ``didi``; empty if no run recorded them."""
    found = {name: [known for run in runs if (known := spent(run))] for name, runs in by_row.items()}
    rates = {name: over_runs([n / s for n, s in known], geometric=True) for name, known in found.items() if known}
    if not rates:
        return []
    base = rates[BASELINE].value if BASELINE in rates else None
    cells = []
    for name, rate in rates.items():
        updates, seconds = (sum(column) / len(found[name]) for column in zip(*found[name], strict=True))
        ratio = f"{rate.value / base:.2f}" if base else "–"
        cells.append((name, str(len(found[name])), f"{updates:.0f}", f"{seconds:.0f}", estimate(rate), ratio))
    headers = ("", "seeds", "updates", "seconds", "updates a second", f"over {BASELINE}'s")
    return [Table("Cost", "Means over training seeds, warm-up of critics included.", headers, tuple(cells), words=(0,))]


def over_same_seed(others: Sequence[RunReport], read: Reading) -> Reading:
    """The value that ``read`` gives for a run, over its value for that of the others with the same seed."""
    by_seed = {run.config.get("seed"): run for run in others}

    def ratio(run: RunReport, model: str, steps: int) -> Mapping[str, Any] | None:
        other = by_seed.get(run.config.get("seed"))
        if model != "student" or other is None:
            return None
        values = [one["value"] for each in (run, other) if (one := read(each, model, steps)) and one["value"]]
        positive = len(values) == 2 and min(values) > 0
        return {"value": values[0] / values[1]} if positive else None

    return ratio


def over_at_one_variety(others: Sequence[RunReport], quality: str, variety: str) -> Reading:
    """The quality of a run over that of the others' run of the same seed, both at one value of a metric of variety.

    It is the value nearest to that of held-out data which both sweeps of temperature reach; None where they have none
    in common. Between temperatures the logarithm of the quality is linear in the variety.
    """
    by_seed = {run.config.get("seed"): run for run in others}

    def ratio(run: RunReport, model: str, steps: int) -> Mapping[str, Any] | None:
        other = by_seed.get(run.config.get("seed"))
        wanted = _of_data(run, variety)
        if model != "student" or other is None or wanted is None:
            return None
        both = [_sweep(each, model, steps, quality, variety) for each in (run, other)]
        if not all(both):
            return None
        low, high = (end(end_of(x for x, _ in sweep) for sweep in both) for end, end_of in ((max, min), (min, max)))
        at = min(max(wanted, low), high)
        ours, theirs = (float(np.interp(at, *np.array(sweep).T)) for sweep in both)
        return {"value": exp(ours - theirs)} if low <= high else None

    return ratio


def _of_data(run: RunReport, metric: str) -> float | None:
    """A metric's value of held-out data."""
    found = (row["values"].get(metric) for row in run.report["rows"] if row["kind"] == "data")
    return next((float(one["value"]) for one in found if one and one["value"] is not None), None)


def _sweep(run: RunReport, model: str, steps: int, quality: str, variety: str) -> list[tuple[float, float]]:
    """(variety, log quality) at every temperature, by rising variety."""
    rows = [row["values"] for row in run.report["rows"] if row["kind"] == "model" and row["model"] == model
            and row["method"]["steps"] == steps]  # fmt: skip
    pairs = [(row[variety]["value"], row[quality]["value"]) for row in rows if row.get(variety) and row.get(quality)]
    return sorted((float(x), log(y)) for x, y in pairs if x is not None and y)
