"""Reports of several runs read back: side by side, and over the seeds of an ablation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.compare import figure, headed
from didi_core.errors import InputError
from didi_core.report import estimate
from didi_core.report_data import Table
from didi_core.report_json import SCHEMA
from didi_core.run_dir import RECORD
from didi_core.statistics import Interval, over_runs

# Perplexity on OpenWebText by number of calls, as published (arXiv 2509.25035): fp32 joint draw, 40 samples.
PUBLISHED: dict[str, dict[int, float]] = {
    "ablation_plain": {8: 803.9, 16: 311.5, 32: 174.8, 64: 113.1, 128: 96.6},
    "ablation_decomposed": {8: 667.8, 16: 289.7, 32: 165.8, 64: 105.9, 128: 89.4},
    "ablation_coupled": {8: 101.0, 16: 75.2, 32: 48.4, 64: 35.8, 128: 30.6},
    "ablation_omega": {8: 95.0, 16: 75.6, 32: 31.7, 64: 25.3, 128: 21.0},
    "ablation_density": {8: 92.1, 16: 44.0, 32: 32.3, 64: 26.1, 128: 21.4},
    "ablation_regularised": {8: 88.3, 16: 44.0, 32: 28.4, 64: 21.9, 128: 18.3},
    "ablation_full": {8: 62.2, 16: 38.2, 32: 25.0, 64: 21.9, 128: 18.4},
}
ROWS = {
    "ablation_plain": "none of it",
    "ablation_decomposed": "+ score decomposition",
    "ablation_coupled": "+ coupled time",
    "ablation_omega": "+ omega(t)",
    "ablation_density": "+ pi(t)",
    "ablation_regularised": "+ regularisation",
    "ablation_full": "full (RGAS)",
}


@dataclass(frozen=True)
class RunReport:
    """A run's report.json, and the configuration that it came from."""

    path: Path
    report: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def objective(self) -> str:
        """Name of the objective that was trained."""
        return str(self.config.get("objective", {}).get("name", ""))

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
        """What the row's method has at the data's entropy, where its sweep reached it."""
        for found in self.report["matched"]:
            same = (found["model"], found["method"]) == (row["model"], row["method"])
            if same and found["status"] != "not reached":
                return dict(found)
        return None


def read_run(path: Path) -> RunReport:
    """The report of a run directory.

    Raises:
        InputError: there is none, it is damaged, or another version of this program wrote it.
    """
    file = path / "report.json"
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} has no report.json. Give a run that was evaluated, or the directory that evaluate wrote."
        ) from None
    except (NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error.__class__.__name__}).") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        found = report.get("schema") if isinstance(report, dict) else None
        raise InputError(f"{file} has the schema {found!r}, not {SCHEMA!r}: evaluate the run again.")
    record = path / RECORD
    config = json.loads(record.read_text(encoding="utf-8")).get("config", {}) if record.is_file() else {}
    return RunReport(path, report, config)


def side_by_side(runs: Sequence[RunReport]) -> tuple[str, list[str], list[Table]]:
    """A sentence, what to know, and the rows of all runs in one table.

    Raises:
        InputError: fewer than two runs, or runs of different domains.
    """
    if len(runs) < 2:
        raise InputError("compare=[...] needs at least two run directories.")
    domains = {run.report["domain"]: run for run in runs}
    if len(domains) > 1:
        told = ", ".join(f"{run.path}: {name}" for name, run in domains.items())
        raise InputError(f"runs of different domains do not compare ({told}).")
    quality = runs[0].report["metrics"][0]
    entropy = runs[0].report["metrics"][1]
    names = _short_names([run.path for run in runs])
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
                    _estimate(row["values"].get(quality["name"])),
                    _estimate(row["values"].get(entropy["name"])),
                    _estimate(found["quality"]) if found else "–",
                )
            )
    headers = (
        "run", "model", "method", "steps", "NFE", quality["label"], entropy["label"], f"{quality['label']}, matched"
    )  # fmt: skip
    about = "As sampled at the temperature nearest to 1, and at matched entropy; 95 % intervals over samples."
    return (
        _best_sentence(runs, names, quality),
        _comparability(runs, names),
        [Table("Runs side by side", about, headers, tuple(cells), words=(0, 1, 2))],
    )


def ablation(runs: Sequence[RunReport]) -> tuple[str, list[str], list[Table]]:
    """A sentence about the order, what to know, and a table over seeds: as sampled, at matched entropy, published."""
    by_row: dict[str, list[RunReport]] = {}
    for run in runs:
        by_row.setdefault(run.objective, []).append(run)
    order = [name for name in ROWS if name in by_row] + sorted(by_row.keys() - ROWS.keys())
    steps = sorted({row["method"]["steps"] for run in runs for row in run.table("student") if row["method"]["steps"]})
    if not steps:
        raise InputError("none of the runs has a student's row in its report: distil with evaluate.enabled=true.")
    quality, entropy = runs[0].report["metrics"][:2]

    def sampled(run: RunReport, k: int, metric: str) -> float | None:
        row = _at(run, k)
        return row["values"][metric]["value"] if row and metric in row["values"] else None

    def matched(run: RunReport, k: int) -> float | None:
        row = _at(run, k)
        found = run.matched(row) if row else None
        return found["quality"]["value"] if found else None

    name, spread = quality["name"], entropy["name"]
    readings: dict[str, Callable[[RunReport, int], float | None]] = {
        f"{quality['label']}, as sampled": lambda run, k: sampled(run, k, name),
        f"{quality['label']} at matched entropy": matched,
        entropy["label"]: lambda run, k: sampled(run, k, spread),
    }
    tables = [_over_seeds(title, order, steps, by_row, read) for title, read in readings.items()]
    middle = 8 if 8 in steps else steps[len(steps) // 2]
    means = {row: over_runs(_known(by_row[row], lambda run: sampled(run, middle, name))).value for row in order}
    return _order_sentence(order, means, middle, quality["label"]), _seeds_notes(by_row), tables


def read_ablation(folder: Path) -> tuple[list[RunReport], list[str]]:
    """Reports of all runs of a multirun, and which of its runs have none."""
    runs = sorted((path for path in folder.glob("*") if (path / RECORD).is_file()), key=lambda p: (len(p.name), p.name))
    done = [read_run(path) for path in runs if (path / "report.json").is_file()]
    if not done:
        raise InputError(f"ablation={folder} holds no run with a report.json: give the directory of a multirun.")
    missing = [path.name for path in runs if not (path / "report.json").is_file()]
    return done, [f"Without a report, left out: runs {', '.join(missing)}."] if missing else []


def _over_seeds(
    title: str,
    order: Sequence[str],
    steps: Sequence[int],
    by_row: Mapping[str, Sequence[RunReport]],
    read: Callable[[RunReport, int], float | None],
) -> Table:
    cells = []
    for name in order:
        found = [over_runs(_known(by_row[name], lambda run, k=k: read(run, k))) for k in steps]  # type: ignore[misc]
        published = PUBLISHED.get(name, {})
        shown = [estimate(value) if value.n else "–" for value in found]
        seeds = max((value.n for value in found), default=0)
        cells.append((ROWS.get(name, name), str(seeds), *shown, *(figure(published.get(k)) for k in steps)))
    headers = ("", "seeds", *(f"{k} steps" for k in steps), *(f"published, {k}" for k in steps))
    about = "Mean over training seeds with Student's t 95 % interval. Published: perplexity on OpenWebText."
    return Table(headed(title), about, headers, tuple(cells), words=(0,))


def _known(runs: Sequence[RunReport], read: Callable[[RunReport], float | None]) -> list[float]:
    return [value for run in runs if (value := read(run)) is not None]


def _at(run: RunReport, steps: int) -> Mapping[str, Any] | None:
    return next((row for row in run.table("student") if row["method"]["steps"] == steps), None)


def _order_sentence(order: Sequence[str], means: Mapping[str, float], steps: int, label: str) -> str:
    """Which parts helped here, and which neighbours stand the other way round than published."""
    known = [name for name in order if means[name] == means[name]]
    best = min(known, key=lambda name: means[name])
    swapped = [
        f"{ROWS[b]} after {ROWS[a]}"
        for a, b in zip(known, known[1:], strict=False)
        if steps in PUBLISHED.get(a, {}) and steps in PUBLISHED.get(b, {})
        and (means[b] < means[a]) != (PUBLISHED[b][steps] < PUBLISHED[a][steps])
    ]  # fmt: skip
    text = f"At {steps} steps the best {label} is that of '{ROWS.get(best, best)}' ({figure(means[best])})"
    return text + (f"; other than published: {', '.join(swapped)}." if swapped else "; the order is the published one.")


def _seeds_notes(by_row: Mapping[str, Sequence[RunReport]]) -> list[str]:
    few = sorted(ROWS.get(name, name) for name, runs in by_row.items() if len(runs) < 3)
    missing = [label for name, label in ROWS.items() if name not in by_row]
    said = [f"Fewer than three seeds: {', '.join(few)}."] if few else []
    return said + ([f"Rows without a run: {', '.join(missing)}."] if missing else [])


def _best_sentence(runs: Sequence[RunReport], names: Sequence[str], quality: Mapping[str, Any]) -> str:
    """The best student of all, where a student can be told."""
    found = [
        (float(m["quality"]["value"]), name, row["method"]["steps"])
        for run, name in zip(runs, names, strict=True)
        for row in run.table("student")
        if (m := run.matched(row)) and m["quality"]["value"] is not None
    ]
    if not found:
        return "No student reached the entropy of the data; see the samples as they come."
    value, name, steps = min(found)
    return f"Best {quality['label']} of a student at matched entropy: {figure(value)}, {name} at {steps} steps."


def _comparability(runs: Sequence[RunReport], names: Sequence[str]) -> list[str]:
    """What keeps numbers of two runs from being compared."""
    said = []
    if len({json.dumps(run.report["metrics"][0]) for run in runs}) > 1:
        said.append("The runs were judged by different judges: their qualities do not compare.")
    entropies = {round(run.report["reference_entropy"] or 0.0, 4) for run in runs}
    if len(entropies) > 1:
        said.append(f"The runs are matched at different entropies ({', '.join(map(str, sorted(entropies)))}).")
    sizes = {name: min(r["n"] for r in run.table()) for run, name in zip(runs, names, strict=True) if run.table()}
    if len(set(sizes.values())) > 1:
        said.append(f"Samples per row differ: {', '.join(f'{name} {n:,}' for name, n in sizes.items())}.")
    return said


def _short_names(paths: Sequence[Path]) -> list[str]:
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _estimate(value: Mapping[str, Any] | None) -> str:
    if value is None or value["value"] is None:
        return "–"
    low, high = (float("nan") if value[end] is None else value[end] for end in ("low", "high"))
    return estimate(Interval(value["value"], low, high, value["n"]))


def _method(method: Mapping[str, Any]) -> str:
    from didi_core.rows import Method

    return Method(**method).label
