"""What a claim about training rests on: students of several training seeds against their teacher.

    python benchmarks/training_claim.py runs/0 runs/1 runs/2 --num 350 --laws stratified --grids power

Each run directory is one training seed, which is also its sampling seed; samples are read from the run's ``evaluation``
folder where an ``evaluate`` with the same settings has left them, and drawn otherwise. Three intervals are printed for
each number of steps, all of the student's quality over the teacher's at matched entropy: each seed's own (bootstrap
over its samples), the pooled one (bootstrap over the samples of all seeds), and Student's t over the seeds. Where the
domain has a metric of variety that models are matched at, the pooled interval is printed for that too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from didi_core.checkpoints.card import load_denoiser, model_folder, read_card
from didi_core.commands.common import load_teacher, make_domain
from didi_core.evaluation.cache import StatisticsCache
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.drawing import Drawing
from didi_core.evaluation.evaluate import sweep
from didi_core.evaluation.frontier import SweepPoint, common_value, frontier, matched, matched_difference
from didi_core.evaluation.held_out import reference_rows
from didi_core.evaluation.intervals import Interval, over_runs
from didi_core.evaluation.measure import variety_metric
from didi_core.evaluation.wording import change
from didi_core.progress import Bar
from didi_core.run import Run
from didi_core.sampling.generate import SamplerSettings
from didi_core.storage.files import write_json
from didi_core.types import Domain, Metric


@dataclass(frozen=True)
class Seed:
    """One training seed: where its run is, and the two networks."""

    run: Path
    seed: int
    student: nn.Module
    teacher: nn.Module


def points(
    metrics: Sequence[Metric],
    domain: Domain,
    one: Seed,
    model: nn.Module,
    plan: Sequence[SamplerSettings],
    num: int,
    batch_size: int,
) -> list[list[SweepPoint]]:
    """Statistics of the quality and of each other metric, of a model's samples at each temperature."""
    cache = StatisticsCache(one.run / "evaluation")
    bar, contender = Bar(), Contender(model, plan)
    how = Measuring(num, seeds=(one.seed,), batch_size=batch_size, cache_dir=one.run / "evaluation")
    drawing = Drawing(Run(domain, reporter=bar), how)
    bar.start(f"{one.run.name}, {plan[0].steps} steps (denoiser calls)", sum(map(drawing.cost, plan)))
    found: list[list[SweepPoint]] = [[] for _ in metrics[1:]]
    for settings in plan:
        made = drawing.all_seeds(contender, settings)
        quality, *others = (cache.statistics(metric, made.samples) for metric in metrics)
        for sweeps, other in zip(found, others, strict=True):
            sweeps.append(SweepPoint(settings.temperature, quality, other))
    bar.stop()
    return found


def pooled(sweeps: Sequence[Sequence[SweepPoint]]) -> list[SweepPoint]:
    """The samples of all seeds as one set, temperature by temperature."""
    return [
        replace(
            same[0],
            quality=np.concatenate([p.quality for p in same]),
            entropy=np.concatenate([p.entropy for p in same]),
        )
        for same in zip(*sweeps, strict=True)
    ]


def ratio(metrics: Sequence[Metric], student: list[SweepPoint], teacher: list[SweepPoint], at: float) -> Interval:
    """Log quality of the student minus the teacher's at the entropy ``at``."""
    read = [matched(frontier(metrics[0], metrics[1], each), at) for each in (student, teacher)]
    found = matched_difference(*read)
    if found is None:
        raise SystemExit(f"a sweep does not reach the entropy {at:.3f}: give other --temperatures.")
    return found


def at_variety(
    quality: Metric, variety: Metric, student: list[SweepPoint], teacher: list[SweepPoint], wanted: float
) -> str:
    """The same where both have one variety, the nearest to that of the data."""
    curves = [frontier(quality, variety, each) for each in (student, teacher)]
    at = common_value(*curves, wanted)
    found = None if at is None else matched_difference(*(matched(curve, at) for curve in curves))
    return "the sweeps do not meet" if found is None else f"{percent(found)} at {at:.3f}"


def percent(found: Interval) -> str:
    """A difference of logarithms as a change in per cent."""
    return change(Interval(*map(math.exp, (found.value, found.low, found.high)), n=found.n))


def main() -> None:
    """Print the table, and write it where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories of distill, one per training seed")
    parser.add_argument("--num", type=int, default=350, help="samples of each model, seed, temperature and steps")
    parser.add_argument("--batch-size", type=int, default=64, help="samples depend on it, as in evaluate")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.8, 1.0])
    parser.add_argument("--laws", default="stratified")
    parser.add_argument("--grids", default="uniform")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    cards = [read_card(model_folder(run)) for run in given.runs]
    domain = make_domain(cards[0]["domain"], cards[0].get("data", {}))
    teachers = [load_teacher(domain, card["teacher"]["name"]) for card in cards]
    seeds = [
        Seed(run, card["training"]["seed"], load_denoiser(model_folder(run)), teacher)
        for run, card, teacher in zip(given.runs, cards, teachers, strict=True)
    ]
    variety = variety_metric(domain.metrics())
    metrics = [*domain.metrics()[:2], *([variety] if variety else [])]
    data = reference_rows(domain, metrics, given.num)[0][0].values
    at = data[metrics[1].name].value
    table: dict[str, dict[str, str]] = {}
    for steps in given.steps:
        plan = sweep(SamplerSettings(law=given.laws, grid=given.grids), [steps], given.temperatures)
        size = given.num, given.batch_size
        both = [[points(metrics, domain, s, m.eval(), plan, *size) for m in (s.student, s.teacher)] for s in seeds]
        students, taught = ([found[i][0] for found in both] for i in (0, 1))
        own = [ratio(metrics, s, t, at) for s, t in zip(students, taught, strict=True)]
        row = {f"seed {one.seed}": percent(found) for one, found in zip(seeds, own, strict=True)}
        row["pooled"] = percent(ratio(metrics, pooled(students), pooled(taught), at))
        if len(own) > 1:
            row["t over seeds"] = percent(over_runs([found.value for found in own]))
        if variety:
            wanted = data[variety.name].value if variety.name in data else math.inf
            more = [pooled([found[i][1] for found in both]) for i in (0, 1)]
            row[f"at matched {variety.label}"] = at_variety(metrics[0], variety, *more, wanted)
        table[str(steps)] = row
        print(f"{steps} steps: {row}")
    if given.out:
        write_json(given.out, {"domain": domain.name, "entropy": at, "samples": given.num, "by_steps": table})


if __name__ == "__main__":
    main()
