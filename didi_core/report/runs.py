"""Reports of several runs, read back and shown side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.config import build
from didi_core.errors import InputError, counted
from didi_core.evaluation.frontier import NEAR
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.rows import Method
from didi_core.evaluation.wording import figure
from didi_core.report.side_tables import Table
from didi_core.report.tables import estimate
from didi_core.report.to_json import SCHEMA
from didi_core.storage.files import read_json
from didi_core.storage.run_dir import RECORD, read_record
from didi_core.storage.shape import NUMBER, Each, Maybe, misfit

INTERVAL = {"value": (None, *NUMBER), "low": (None, *NUMBER), "high": (None, *NUMBER), "n": int}
METHOD = {"sampler": str, "law": str, "grid": str, "steps": (None, int), "top_p": NUMBER}
NFE = {"denoiser": NUMBER, "scorer": NUMBER}
MODEL_ROW = {"kind": str, "model": str, "method": METHOD, "temperature": NUMBER, "nfe": (None, NFE), "n": int,
             "values": Each((None, INTERVAL), dict)}  # fmt: skip
# What the comparisons here use of a report; docs/report_schema.md has all of it.
SHAPE = {
    "domain": str, "provenance": dict, "reference_entropy": Maybe((None, *NUMBER)),
    "metrics": Each({"name": str, "label": str, "better": str}),
    "rows": Each({"kind": str, "model": str}),
    "matched": Each({"model": str, "method": METHOD, "status": str, "quality": (None, INTERVAL)}),
}  # fmt: skip

NOT_REACHED = "No {} reached the entropy of the data; see the values as sampled."


@dataclass(frozen=True)
class RunReport:
    """A run's report.json, and the configuration of the run."""

    path: Path
    report: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def objective(self) -> str:
        """Name of the trained objective."""
        found = self.config.get("objective")
        return str(found.get("name", "")) if isinstance(found, Mapping) else ""

    def table(self, model: str | None = None) -> list[Mapping[str, Any]]:
        """Rows of models (of one model) at the temperature nearest to 1 of each method."""
        rows = [row for row in self.report["rows"] if row["kind"] == "model" and model in (None, row["model"])]
        best: dict[str, Mapping[str, Any]] = {}
        for row in rows:
            key = json.dumps([row["model"], row["method"]])
            if key not in best or abs(row["temperature"] - 1) < abs(best[key]["temperature"] - 1):
                best[key] = row
        return list(best.values())

    def matched(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The value of the row's method at the entropy of the data, if its sweep reached it."""
        for found in self.report["matched"]:
            same = (found["model"], found["method"]) == (row["model"], row["method"])
            if same and found["status"] != "not reached":
                return dict(found)
        return None


def read_run(path: Path) -> RunReport:
    """The report of a run directory.

    Raises:
        InputError: there is no report, it is damaged, or another version of this program wrote it.
    """
    file = path / "report.json"
    if not file.is_file():
        raise InputError(
            f"{path} has no report.json. Give a run that was evaluated, or the directory that evaluate wrote."
        )
    report = read_json(file, "Evaluate the run again.")
    if report.get("schema") != SCHEMA:
        raise InputError(f"{file} has the schema {report.get('schema')!r}, not {SCHEMA!r}: evaluate the run again.")
    if wrong := _damage(report):
        raise InputError(f"{file} is damaged: {wrong}. Evaluate the run again.")
    record = path / RECORD
    return RunReport(path, report, read_record(record)["config"] if record.is_file() else {})


def _damage(report: Mapping[str, Any]) -> str:
    """What is wrong with the content of a report; '' where nothing is."""
    if wrong := misfit(report, SHAPE):
        return wrong
    if len(report["metrics"]) < 2:
        return f"its metrics are {len(report['metrics'])}, and quality and entropy are needed"
    models = ((number, row) for number, row in enumerate(report["rows"]) if row["kind"] == "model")
    return next(filter(None, (misfit(row, MODEL_ROW, f"rows[{number}]") for number, row in models)), "")


def side_by_side(runs: Sequence[RunReport]) -> tuple[str, list[str], list[Table]]:
    """The content of a comparison of runs.

    Returns:
        a sentence; caveats; and a table with the rows of all runs.

    Raises:
        InputError: there are fewer than two runs, or runs of different domains.
    """
    if len(runs) < 2:
        raise InputError("compare=[...] needs at least two run directories.")
    places = [run.path.resolve() for run in runs]
    if twice := [run.path for run, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"compare=[...] names {twice[0]} more than once. Name each run once.")
    check_domains(runs)
    quality = runs[0].report["metrics"][0]
    entropy = runs[0].report["metrics"][1]
    names = _named(runs)
    cells = []
    for run, name in zip(runs, names, strict=True):
        for row in run.table():
            found = run.matched(row)
            nfe = row["nfe"]["denoiser"] + row["nfe"]["scorer"] if row["nfe"] else None
            cells.append(
                (
                    name,
                    row["model"],
                    _method(row["method"]),
                    str(row["method"]["steps"] or ""),
                    f"{nfe:.4g}" if nfe is not None else "",
                    shown(row["values"].get(quality["name"])),
                    shown(row["values"].get(entropy["name"])),
                    shown(found["quality"]) if found else "–",
                )
            )
    headers = (
        "run", "model", "method", "steps", "NFE", quality["label"], entropy["label"], f"{quality['label']}, matched"
    )  # fmt: skip
    about = "As sampled at the temperature nearest to 1, and at matched entropy; 95 % intervals over samples."
    return (
        _best_sentence(runs, names, quality),
        comparability(runs, names),
        [Table("Runs side by side", about, headers, tuple(cells), words=(0, 1, 2))],
    )


def check_domains(runs: Sequence[RunReport]) -> None:
    """Raise InputError for runs of different domains, which have no number in common."""
    domains = {run.report["domain"]: run for run in runs}
    if len(domains) > 1:
        listed = ", ".join(f"{run.path}: {name}" for name, run in domains.items())
        raise InputError(f"runs of different domains do not compare ({listed}). Give those of one.")


def _best_sentence(runs: Sequence[RunReport], names: Sequence[str], quality: Mapping[str, Any]) -> str:
    """A sentence on the best student of all runs, or the best model where none has a student.

    A quality of which more is better is compared as sampled.
    """
    if len(judges(runs)) > 1:
        return "No best student: the runs have different judges, so their qualities do not compare."
    if not _close(_entropies(runs)):
        return "No best student: the runs are matched at different entropies, so their qualities do not compare."
    plain = quality["better"] == "higher"
    model = "student" if any(run.table("student") for run in runs) else None  # None: runs of pretrain and the like
    found = [
        (value, name, row["method"]["steps"])
        for run, name in zip(runs, names, strict=True)
        for row in run.table(model)
        if (value := _quality(run, row, quality["name"] if plain else None)) is not None
    ]
    if not found:
        return f"No run has rows of a {model or 'model'}." if plain else NOT_REACHED.format(model or "model")
    where = "as sampled" if plain else "at matched entropy"
    value, name, steps = (max if plain else min)(found, key=lambda one: one[0])
    at = f" at {counted(steps, 'step')}" if steps is not None else ""
    return f"Best {quality['label']} of a {model or 'model'} {where}: {figure(value)}, {name}{at}."


def _quality(run: RunReport, row: Mapping[str, Any], sampled: str | None) -> float | None:
    """The quality of a row at matched entropy, or the metric ``sampled`` of it as it was sampled."""
    found = row["values"].get(sampled) if sampled is not None else (run.matched(row) or {}).get("quality")
    value: float | None = found["value"] if found else None
    return value


def judges(runs: Sequence[RunReport]) -> dict[str, RunReport]:
    """The first run of each judge, by what its report says of the quality."""
    found: dict[str, RunReport] = {}
    for run in runs:
        found.setdefault(json.dumps(run.report["metrics"][0]), run)
    return found


def _entropies(runs: Sequence[RunReport]) -> list[float]:
    """Entropies of the held-out data at which the runs are matched."""
    return sorted({round(at, 4) for run in runs if (at := run.report.get("reference_entropy")) is not None})


def _close(entropies: Sequence[float]) -> bool:
    """Whether entropies lie as near to each other as a point may lie to the one at which it counts as matched."""
    return not entropies or entropies[-1] - entropies[0] <= NEAR * entropies[-1]


def comparability(runs: Sequence[RunReport], names: Sequence[str]) -> list[str]:
    """Reasons why numbers of the runs cannot be compared."""
    notes = []
    if len(judges(runs)) > 1:
        notes.append("The runs have different judges: their qualities do not compare.")
    entropies = _entropies(runs)
    if len(entropies) > 1:
        notes.append(f"The runs are compared at different entropies ({', '.join(map(str, entropies))}).")
    sizes = {name: min(r["n"] for r in run.table()) for run, name in zip(runs, names, strict=True) if run.table()}
    if len(set(sizes.values())) > 1:
        notes.append(f"Samples per row differ: {', '.join(f'{name} {n:,}' for name, n in sizes.items())}.")
    return notes


def _named(runs: Sequence[RunReport]) -> list[str]:
    """What a comparison calls each run: its path, and its objective where the runs have several and paths name none."""
    names = short_names([run.path for run in runs])
    if len({run.objective for run in runs}) < 2:
        return names
    pairs = zip(names, (run.objective for run in runs), strict=True)
    return [name if objective in name else f"{name} ({objective})" for name, objective in pairs]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or whole paths where two end alike."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def shown(value: Mapping[str, Any] | None) -> str:
    """An interval of a report as text; a dash for None."""
    if value is None or value["value"] is None:
        return "–"
    low, high = (float("nan") if value[end] is None else value[end] for end in ("low", "high"))
    return estimate(Interval(value["value"], low, high, value["n"]))


def _method(method: Mapping[str, Any]) -> str:
    return build(Method, method, "method").label
