"""How many plain calls of the teacher a student is worth, over several training seeds.

    python benchmarks/acceleration.py runs/0 runs/1 runs/2 --out runs/worth --law stratified --grid power --limit 3600

Three groups of rows, all read where their sweep of temperatures meets the entropy of held-out data: the teacher under
plain ancestral sampling (law iid, uniform grid) at many calls, the teacher under ``--law`` and ``--grid``, which no
training gave, and the students under the same law and grid. Samples come in sets (``--size``); set i of every row has
the same lengths. Sets are drawn in turns, those of all rows before the next ones, so that the command can be stopped at
any time (``--limit`` seconds) and repeated: what is drawn stays in ``OUT/samples``. Few sets are drawn where calls are
many (``--sets-at 128=2``), and a comparison takes the sets that both rows have. ``OUT/worth.json`` and ``worth.md`` say
how many these are.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from didi_core.checkpoints.card import load_denoiser, model_folder, read_card
from didi_core.commands.common import load_teacher, make_domain
from didi_core.device import Machine
from didi_core.evaluation.cache import StatisticsCache
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.drawing import Drawing
from didi_core.evaluation.frontier import (
    Frontier,
    Matched,
    SweepPoint,
    common_value,
    frontier,
    matched,
    matched_difference,
)
from didi_core.evaluation.held_out import reference_rows
from didi_core.evaluation.intervals import Interval, bootstrap, interval, over_runs
from didi_core.evaluation.measure import on_device, variety_metric
from didi_core.evaluation.wording import change
from didi_core.run import Run
from didi_core.sampling.generate import SamplerSettings
from didi_core.storage.files import write_atomic, write_json
from didi_core.types import Metric


@dataclass(frozen=True, eq=False)
class Line:
    """One model at one number of calls, and the statistics of its sets by temperature: of each metric, one a set."""

    label: str
    contender: Contender
    settings: SamplerSettings
    sets: int
    temperatures: Sequence[float]
    found: dict[float, list[list[np.ndarray]]] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return int(self.settings.steps)

    def complete(self) -> int:
        """Sets that all temperatures have."""
        return min((len(self.found.get(t, ())) for t in self.temperatures), default=0)

    def statistics(self, temperature: float, metric: int, sets: int) -> np.ndarray:
        """Of the first sets, one row a sample."""
        return np.concatenate([each[metric] for each in self.found[temperature][:sets]])


@dataclass(frozen=True)
class Measure:
    """The metrics (quality, entropy, and that of variety where there is one), and the entropy to read sweeps at."""

    metrics: Sequence[Metric]
    at: float
    variety: float | None = None  # of the data, where a metric of it is matched too

    def curve(self, line: Line, sets: int, other: int = 1) -> Frontier:
        """Quality against the entropy (or another metric) along a line's sweep, from its first sets."""
        sweep = [SweepPoint(t, line.statistics(t, 0, sets), line.statistics(t, other, sets)) for t in line.found]
        return frontier(self.metrics[0], self.metrics[other], sweep)

    def read(self, line: Line, sets: int) -> Matched:
        """A line at the entropy of the data, from its first sets."""
        return matched(self.curve(line, sets), self.at)

    def mean_ratio(self, ours: Sequence[Line], theirs: Line) -> dict[str, object]:
        """Log quality of students minus the teacher's, from the sets that all have; below zero a student is better.

        Each seed's own, their mean over samples, and Student's t over seeds. Rows of equal size resample the same
        indices, so the intervals are those of pairs.
        """
        sets = min([theirs.complete(), *(line.complete() for line in ours)])
        if not sets:
            return {"sets": 0}
        taught = self.read(theirs, sets)
        record = {"sets": sets, **_over_seeds([(self.read(line, sets), taught) for line in ours])}
        if self.variety is not None and all(len(line.found) > 1 for line in (theirs, *ours)):
            found = [self._at_variety(line, theirs, sets) for line in ours]
            record["at matched variety"] = _over_seeds([pair for pair in found if pair is not None], len(ours))
        return record

    def _at_variety(self, ours: Line, theirs: Line, sets: int) -> tuple[Matched, Matched] | None:
        """Both at one variety, the nearest to the data's that both sweeps reach; None where they do not meet."""
        curves = [self.curve(line, sets, 2) for line in (ours, theirs)]
        at = common_value(*curves, self.variety or 0.0)
        return None if at is None else (matched(curves[0], at), matched(curves[1], at))


def _over_seeds(pairs: Sequence[tuple[Matched, Matched]], seeds: int | None = None) -> dict[str, object]:
    """The differences of pairs (student, teacher), one a seed."""
    found = [matched_difference(ours, theirs) for ours, theirs in pairs]
    usable = [one for one in found if one is not None]
    if len(usable) < (seeds or len(pairs)):
        return {"no claim": f"{len(usable)} of {seeds or len(pairs)} sweeps reach it"}
    mean = float(np.mean([one.value for one in usable]))
    draws = np.mean([ours.draws - theirs.draws for ours, theirs in pairs], axis=0)
    record: dict[str, object] = {"read at": [ours.entropy for ours, _ in pairs]}
    record |= {"seeds": [_numbers(one) for one in usable], "mean": _numbers(interval(mean, draws, usable[0].n))}
    if len(usable) > 1:
        record["t over seeds"] = _numbers(over_runs([one.value for one in usable]))
    return record


def draw(lines: Sequence[Line], run: Run, measure: Measure, given: argparse.Namespace) -> None:
    """Draw sets in turns until all are there, or there is no time left; then take what was drawn before."""
    started, cache = time.monotonic(), StatisticsCache(given.out / "samples")
    for number in range(max(line.sets for line in lines)):
        how = Measuring(given.size, seeds=(number,), batch_size=given.size, cache_dir=given.out / "samples")
        drawing = Drawing(run, how)
        for place in range(max(len(line.temperatures) for line in lines)):
            for line in lines:
                if number >= line.sets or place >= len(line.temperatures):
                    continue
                temperature = line.temperatures[place]
                settings = replace(line.settings, temperature=temperature)
                here = line.found.setdefault(temperature, [])
                if len(here) < number:
                    continue
                late = time.monotonic() - started > given.limit
                if late and not drawing.kept(line.contender, settings):
                    continue
                made = drawing.all_seeds(line.contender, settings).samples
                here.append([cache.statistics(metric, made) for metric in measure.metrics])
                if not late:
                    print(f"{line.label}, {line.calls} calls, {temperature:g}, set {number}", flush=True)


def described(line: Line, measure: Measure, size: int) -> dict[str, object]:
    """One row: samples, the metrics as sampled at temperature 1, and the quality at matched entropy."""
    sets, sweep = line.complete(), line.temperatures
    record: dict[str, object] = {"model": line.label, "law": line.settings.law, "grid": line.settings.grid}
    record |= {"calls": line.calls, "samples": sets * size, "temperatures": list(sweep)}
    if not sets:
        return record
    plain = min(sweep, key=lambda t: abs(t - 1))
    for i, metric in enumerate(measure.metrics):
        record[metric.name] = _numbers(bootstrap(metric, line.statistics(plain, i, sets)))
    read = measure.read(line, sets)
    record["matched"] = {"status": read.status, "entropy": read.entropy, "quality": _numbers(read.quality)}
    return record


def page(report: dict[str, object], quality: str) -> str:
    """The report as two tables."""
    rows: list[dict[str, object]] = report["rows"]  # type: ignore[assignment]
    lines = [f"| model | law, grid | calls | samples | {quality} | entropy | {quality} at matched entropy |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        matched_at: dict[str, object] = row.get("matched", {})  # type: ignore[assignment]
        cells = [row["model"], f"{row['law']}, {row['grid']}", row["calls"], row["samples"]]
        cells += [_cell(row.get(quality)), _cell(row.get("entropy"))]
        lines.append(f"| {' | '.join(map(str, [*cells, _cell(matched_at.get('quality'))]))} |")
    size = report["samples of a set"]
    titles = {"student over plain teacher": "student", "law and grid alone over plain teacher": "law and grid alone"}
    for title, what in titles.items():
        compared: dict[str, dict[str, dict[str, object]]] = report[title]  # type: ignore[assignment]
        lines += [line for calls, against in compared.items() for line in _against(what, calls, against, size)]
    return "\n".join(lines) + "\n"


def _against(what: str, calls: str, against: dict[str, dict[str, object]], size: object) -> list[str]:
    """One model at one number of calls beside each plain one."""
    lines = ["", f"{what}, {calls} calls, against plain calls of the teacher; mean over seeds"]
    for plain, record in against.items():
        lines.append(f"- {plain}: {_sentence(record)} ({record['sets']} sets of {size})")
        varied: dict[str, object] = record.get("at matched variety", {})  # type: ignore[assignment]
        lines += [f"  - at matched variety: {_sentence(varied)}"] if varied else []
    return lines


def _sentence(record: dict[str, object]) -> str:
    """A mean over seeds, the interval over seeds, and each seed's own."""
    seeds: list[list[float]] = record.get("seeds", [])  # type: ignore[assignment]
    mean = f"{_percent(record.get('mean'))}; t {_percent(record.get('t over seeds'))}"
    return f"{record.get('no claim', mean)}; seeds {'; '.join(map(_percent, seeds))}"


def _numbers(found: Interval) -> list[float]:
    return [found.value, found.low, found.high]


def _cell(found: object) -> str:
    return "–" if not isinstance(found, list) else f"{found[0]:.3g} [{found[1]:.3g}, {found[2]:.3g}]"


def _percent(found: object) -> str:
    if not isinstance(found, list):
        return "–"
    value, low, high = map(math.exp, found)
    return change(Interval(value, low, high, n=0), places=0)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories of distill, one per training seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--law", default="stratified")
    parser.add_argument("--grid", default="uniform")
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="under --law and --grid")
    parser.add_argument("--plain", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="of the teacher, iid")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.8])
    parser.add_argument("--student-temperatures", type=float, nargs="+", help="where they are others")
    parser.add_argument("--size", type=int, default=64, help="samples of a set")
    parser.add_argument("--sets", type=int, default=16, help="of the teacher")
    parser.add_argument("--student-sets", type=int, default=5, help="of each student")
    parser.add_argument("--sets-at", nargs="*", default=[], metavar="CALLS=SETS", help="of the plain teacher")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; in fp32")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no further set is drawn")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Draw, measure, write the two files."""
    given = arguments(words)
    cards = [read_card(model_folder(run)) for run in given.runs]
    domain, machine = make_domain(cards[0]["domain"], cards[0].get("data", {})), Machine.of(given.device, "fp32")
    teacher = Contender(load_teacher(domain, cards[0]["teacher"]["name"]).to(machine.device).eval(), ())
    students = {card["training"]["seed"]: Contender(load_denoiser(run).to(machine.device).eval(), ())
                for run, card in zip(given.runs, cards, strict=True)}  # fmt: skip
    plain, best = SamplerSettings(), SamplerSettings(law=given.law, grid=given.grid)
    at = {int(one.partition("=")[0]): int(one.partition("=")[2]) for one in given.sets_at}
    sweep, warmth = given.temperatures, given.student_temperatures or given.temperatures
    ours = {
        calls: [
            Line(f"student, seed {seed}", made, replace(best, steps=calls), given.student_sets, warmth)
            for seed, made in students.items()
        ]
        for calls in given.calls
    }
    taught = [Line("teacher", teacher, replace(best, steps=calls), given.sets, sweep) for calls in given.calls]
    many = [Line("teacher", teacher, replace(plain, steps=n), at.get(n, given.sets), sweep) for n in given.plain]
    lines = [*(line for each in ours.values() for line in each), *taught, *many]

    variety = variety_metric(domain.metrics())
    metrics = on_device([*domain.metrics()[:2], *([variety] if variety else [])], machine.device)
    data = reference_rows(domain, metrics, 1000)[0][0].values
    varied = data[variety.name].value if variety and variety.name in data else None
    measure = Measure(metrics, data[metrics[1].name].value, varied)
    draw(lines, Run(domain, machine), measure, given)
    report: dict[str, object] = {
        "domain": domain.name,
        "samples of a set": given.size,
        "entropy": measure.at,
        "held out": {name: _numbers(found) for name, found in data.items()},
        "rows": [described(line, measure, given.size) for line in lines],
        "student over plain teacher": {
            str(calls): {str(line.calls): measure.mean_ratio(each, line) for line in many}
            for calls, each in ours.items()
        },
        "law and grid alone over plain teacher": {
            str(one.calls): {str(line.calls): measure.mean_ratio([one], line) for line in many} for one in taught
        },
        "student over teacher of equal calls": {
            str(line.calls): measure.mean_ratio(ours[line.calls], line) for line in taught
        },
    }
    write_json(given.out / "worth.json", report)
    text = page(report, metrics[0].name)
    write_atomic(given.out / "worth.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
