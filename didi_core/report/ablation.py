"""The report of an ablation, or of any multirun over training seeds: means over seeds, beside the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError, unknown
from didi_core.evaluation.intervals import Interval, over_runs
from didi_core.evaluation.wording import figure, headed
from didi_core.report.budget import CONTROL, Reading, costs, over_at_one_variety, over_same_seed
from didi_core.report.runs import RunReport, check_domains, comparability, judges, read_run, short_names, shown
from didi_core.report.settings_of_runs import by_settings
from didi_core.report.side_tables import Table
from didi_core.report.tables import estimate
from didi_core.storage.run_dir import RECORD

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
OVER_SEEDS = "Mean over training seeds with Student's t 95 % interval; the teacher's over samples."


@dataclass(frozen=True)
class Ablation:
    """Runs by objective and settings, the numbers of steps of their students, and a run with the teacher's rows.

    A run whose sampler needs a scorer has no rows of the teacher.
    """

    by_row: Mapping[str, Sequence[RunReport]]
    steps: Sequence[int]
    teacher: RunReport | None

    @classmethod
    def of(cls, runs: Sequence[RunReport]) -> Ablation:
        found = by_settings(runs)
        order = [name for name in ROWS if name in found] + sorted(found.keys() - ROWS.keys())
        rows = [row["method"]["steps"] for run in runs for row in run.table("student")]
        teacher = next((run for run in runs if run.table("teacher")), None)
        return cls({name: found[name] for name in order}, sorted({k for k in rows if k}), teacher)

    def over_seeds(
        self,
        title: str,
        about: str,
        read: Reading,
        geometric: bool = False,
        published: bool = False,
        lowest: float | None = None,
    ) -> Table:
        """A row for the teacher and one for each objective, a column for each number of steps.

        lowest: what no such value can be below.
        """
        teacher = [shown(read(self.teacher, "teacher", k)) if self.teacher else "–" for k in self.steps]
        extra = [f"published, {k}" for k in self.steps] if published else []
        cells = [("teacher", "", *teacher, *("" for _ in extra))] if set(teacher) != {"–"} else []
        for name, runs in self.by_row.items():
            found = [over_runs(_known(runs, read, k), geometric, lowest) for k in self.steps]
            known = [figure(PUBLISHED.get(name, {}).get(k)) for k in self.steps] if published else []
            values = (_over(value, len(runs)) for value in found)
            cells.append((ROWS.get(name, name), str(len(runs)), *values, *known))
        headers = ("", "seeds", *(f"{k} steps" for k in self.steps), *extra)
        return Table(headed(title), about, headers, tuple(cells), words=(0,))


def ablation(runs: Sequence[RunReport], reference: str | None = None) -> tuple[str, list[str], list[Table]]:
    """The content of an ablation's report.

    Args:
        reference: the objective that the others are compared with, seed by seed; by default the control, where there
            are runs of it.

    Returns:
        a sentence about the order; caveats; and tables over seeds: quality as sampled, at matched entropy and against
        the teacher, entropy, every other metric with a direction, then differences from the reference, and costs.

    Raises:
        InputError: no run has a student's row, none is of the reference, or the runs have no number in common: they
            are of different domains, or their judges differ.
    """
    found = _comparable(runs, reference)
    quality, entropy, *others = runs[0].report["metrics"]
    tables = _quality_tables(found, quality)
    tables.append(found.over_seeds(entropy["label"], OVER_SEEDS, _sampled(entropy["name"]), lowest=0.0))
    tables += [
        found.over_seeds(
            metric["label"],
            f"Better: {metric['better']}. {OVER_SEEDS}",
            _sampled(metric["name"]),
            lowest=_lowest(runs, metric),
        )
        for metric in others
        if metric["better"] != "neither"
    ]
    tables += _beside(reference or CONTROL, found, quality, others) + costs(found.by_row)
    notes = _seeds_notes(found.by_row) + comparability(runs, short_names([run.path for run in runs]))
    return _sentence(found, quality), notes, tables


def _comparable(runs: Sequence[RunReport], reference: str | None) -> Ablation:
    """The runs by objective. Raises InputError where they have no number in common, or none is of the reference."""
    check_domains(runs)
    if len(judged := judges(runs)) > 1:
        one, other, *_ = short_names([run.path for run in judged.values()])
        raise InputError(
            f"the judges of runs {one} and {other} differ, and qualities of two judges have no mean. Evaluate all runs "
            "with one judge, or give the runs of each judge a folder of their own."
        )
    found = Ablation.of(runs)
    if reference is not None and reference not in found.by_row:
        raise unknown("objective", reference, list(found.by_row), "reference")
    if not found.steps:
        raise InputError("none of the runs has a student's row in its report: distil with evaluate.enabled=true.")
    return found


def _quality_tables(found: Ablation, quality: Mapping[str, Any]) -> list[Table]:
    """Quality as sampled, at matched entropy, and at matched entropy over the teacher's."""
    label, about = quality["label"], OVER_SEEDS.replace("Mean", "Geometric mean")
    published = any(k in PUBLISHED.get(name, {}) for name in found.by_row for k in found.steps)
    return [
        found.over_seeds(
            f"{label}, as sampled",
            f"{about} Published: perplexity on OpenWebText." if published else about,
            _sampled(quality["name"]),
            geometric=True,
            published=published,
        ),
        found.over_seeds(f"{label} at matched entropy", about, _matched, geometric=True),
        found.over_seeds(
            f"{label} at matched entropy, over the teacher's",
            f"Below 1 is better than the teacher. {about}",
            _ratio(found.teacher),
            geometric=True,
        ),
    ]


def _lowest(runs: Sequence[RunReport], metric: Mapping[str, Any]) -> float | None:
    """Zero for a metric of which less is better and no row has less than zero: a divergence, distance or error."""
    values = [row["values"].get(metric["name"]) for run in runs for row in run.report["rows"]]
    ends = [value["low"] for value in values if value and value["low"] is not None]
    return 0.0 if metric["better"] == "lower" and min(ends, default=-1.0) >= 0 else None


def _beside(
    reference: str, found: Ablation, quality: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> list[Table]:
    """Quality at matched entropy, and other metrics of which less is better, over the reference's of the same seed."""
    theirs = found.by_row.get(reference)
    if not theirs or len(found.by_row) < 2:
        return []
    whose, than = f"{reference}'s", f"{reference} of the same seed"
    if reference == CONTROL:
        whose, than = "the control's", "the teacher's own training for as long"
    about = f"Below 1 is better than {than}. Geometric mean, Student's t 95 % interval."
    readings = {f"{quality['label']} at matched entropy": _matched}
    readings |= {metric["label"]: _sampled(metric["name"]) for metric in others if metric["better"] == "lower"}
    ratios = {label: over_same_seed(theirs, read) for label, read in readings.items()}
    if variety := theirs[0].report.get("variety"):
        label = f"{quality['label']} at matched {variety['label']}"
        ratios[label] = over_at_one_variety(theirs, quality["name"], variety["name"])
    return [found.over_seeds(f"{label}, over {whose}", about, read, geometric=True) for label, read in ratios.items()]


def read_ablation(folders: Sequence[Path]) -> tuple[list[RunReport], list[str]]:
    """Read the runs of one multirun or of several.

    Returns:
        the reports, and a note on runs without one.

    Raises:
        InputError: a folder is named twice, or holds no run with a report.
    """
    places = [folder.resolve() for folder in folders]
    if twice := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"ablation=[...] names {twice[0]} more than once. Name each directory once.")
    done: list[RunReport] = []
    missing: list[Path] = []
    for folder in folders:
        found = (path for path in folder.glob("*") if (path / RECORD).is_file())
        runs = sorted(found, key=lambda path: (len(path.name), path.name))
        with_report = [path for path in runs if (path / "report.json").is_file()]
        if not with_report:
            raise InputError(f"ablation={folder} holds no run with a report.json: {_instead(folder)}.")
        done += map(read_run, with_report)
        missing += [path for path in runs if path not in with_report]
    return done, [f"Without a report, left out: runs {', '.join(short_names(missing))}."] if missing else []


def _instead(folder: Path) -> str:
    """What to give in place of a folder that holds no run."""
    if (folder / RECORD).is_file():
        return "it is a single run. Give the directory of a multirun, or set single runs side by side: report compare"
    inner = sorted({path.parent.parent for path in folder.glob("*/*/report.json")})
    if inner:
        return f"give the directories of the multiruns in it, ablation=[{','.join(map(str, inner))}]"
    return "give the directory of a multirun"


def _at(run: RunReport, model: str, steps: int) -> Mapping[str, Any] | None:
    return next((row for row in run.table(model) if row["method"]["steps"] == steps), None)


def _sampled(metric: str) -> Reading:
    """A metric of the samples at the temperature nearest to 1."""

    def read(run: RunReport, model: str, steps: int) -> Mapping[str, Any] | None:
        row = _at(run, model, steps)
        return row["values"].get(metric) if row else None

    return read


def _matched(run: RunReport, model: str, steps: int) -> Mapping[str, Any] | None:
    """Quality at the entropy of the data; None if the sweep did not reach it."""
    row = _at(run, model, steps)
    found = run.matched(row) if row else None
    return found["quality"] if found else None


def _ratio(other: RunReport | None) -> Reading:
    """Student over teacher at matched entropy and equal steps; the teacher of ``other`` if a run has none."""

    def read(run: RunReport, model: str, steps: int) -> Mapping[str, Any] | None:
        if model == "teacher":
            return None
        teacher = run if run.table("teacher") else other
        pair = (_matched(run, model, steps), _matched(teacher, "teacher", steps) if teacher else None)
        values = [one["value"] for one in pair if one and one["value"]]
        return {"value": values[0] / values[1]} if len(values) == 2 else None

    return read


def _over(value: Interval, seeds: int) -> str:
    """A mean over seeds, with their number if some have no value."""
    if not value.n:
        return "–"
    return estimate(value) + (f" ({value.n} of {seeds})" if value.n < seeds else "")


def _known(runs: Sequence[RunReport], read: Reading, steps: int) -> list[float]:
    found = (read(run, "student", steps) for run in runs)
    return [one["value"] for one in found if one and one["value"] is not None]


def _sentence(found: Ablation, quality: Mapping[str, Any]) -> str:
    """Which row is best, and which neighbouring rows are in the opposite order to the published one."""
    middle, label = 8 if 8 in found.steps else found.steps[len(found.steps) // 2], quality["label"]
    known = {name: _known(runs, _sampled(quality["name"]), middle) for name, runs in found.by_row.items()}
    means = {name: over_runs(values, geometric=True).value for name, values in known.items() if values}
    if not means:
        return f"No row has a {label} at {middle} steps."
    more = 1 if quality["better"] == "lower" else -1
    best = min(means, key=lambda name: more * means[name])
    row = ROWS.get(best, best)
    text = f"At {middle} steps the best {label}, as sampled, is that of '{row}' ({figure(means[best])})"
    published = {name: PUBLISHED[name][middle] for name in means if middle in PUBLISHED.get(name, {})}
    if len(published) < 2:
        return text + "."
    swapped = [
        f"{ROWS[b]} after {ROWS[a]}"
        for a, b in zip(published, list(published)[1:], strict=False)
        if (means[b] - means[a]) * (published[b] - published[a]) < 0
    ]
    if swapped:
        return f"{text}; other than published: {', '.join(swapped)}."
    every = len(published) == len(means)
    return f"{text}; {'the order is the published one' if every else 'the rows published are in the published order'}."


def _seeds_notes(by_row: Mapping[str, Sequence[RunReport]]) -> list[str]:
    few = sorted(ROWS.get(name, name) for name, runs in by_row.items() if len(runs) < 3)
    notes = [f"Fewer than three seeds: {', '.join(few)}."] if few else []
    seeds = {name: [run.config.get("seed") for run in runs] for name, runs in by_row.items()}
    twice = sorted(ROWS.get(name, name) for name, found in seeds.items() if len(set(found)) < len(found))
    notes += [f"A seed is there more than once, and counts as often: {', '.join(twice)}."] if twice else []
    if not by_row.keys() & ROWS.keys():
        return notes
    missing = [label for name, label in ROWS.items() if name not in by_row]
    return notes + ([f"Rows without a run: {', '.join(missing)}."] if missing else [])
