"""An update and the sampler of the main job, proteins, at a commit and in the working tree: CPU time, in turns.

    python benchmarks/main_job.py --before 918cd4d [--repeats 3] [--quick] [--out FILE]

Both trees run the same commands in processes of their own (``baseline_sides.py``), with the bundled teacher of the tree
before. What an update costs is the difference of a run of five updates and one of two, so that start, data and the
drawn reference do not count; a batch of 32 samples is the difference of three batches and one. The streams of random
numbers may differ between commits, so samples are compared by their residues.

Exit codes: 0 measured; 1 a command failed, or the samples are not alike; 2 the call is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from baseline import ENVIRONMENT, HERE, checkout
from baseline_cases import Case, Words
from baseline_sides import Side, warm_up

ALIKE = 0.05  # total variation between the residues of both sides' samples: some 1e4 of them each


@dataclass(frozen=True)
class Part:
    """What is timed: words of the command, and those that make it short and long. per: what the long one has more."""

    name: str
    words: Words
    short: Words
    long: Words
    per: int


def parts(teacher: Path, quick: bool) -> list[Part]:
    """An update of ``objective=didi``, and a batch of the ancestral sampler."""
    fast = ("data.max_length=40", "training.batch_size=8", "objective.reference_samples=8")
    real = ("training.batch_size=16", "objective.reference_samples=16")
    few, many, batch = (1, 2, 2) if quick else (2, 5, 32)
    update: Words = (
        *("distill", "domain=protein", "objective=didi", "device=cpu", "evaluate.enabled=false", "@own reward"),
        *("objective.reference_steps=2", f"teacher={teacher}", *(fast if quick else real)),
    )
    drawn: Words = (
        *("sample", f"run={teacher}", "device=cpu", f"batch_size={batch}", "law=iid", "grid=uniform"),
        f"steps={2 if quick else 16}",
        f"length={'20' if quick else '[60,100,140,180,220,260,300]'}",
    )
    return [
        Part("batch of samples", drawn, (f"num={batch}",), (f"num={3 * batch}",), 2),
        Part("update", update, (f"training.steps={few}",), (f"training.steps={many}",), many - few),
    ]


def cpu() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(side: Side, part: Part, turn: int, more: Words) -> float:
    """CPU seconds of the command with these words more. Raises RuntimeError where it fails."""
    name = f"{part.name} {turn} {'short' if more == part.short else 'long'}"
    folder, started = side.path(name), cpu()
    place = f"out={folder}/samples.fasta" if part.words[0] == "sample" else f"run_dir={folder}/run"
    if problem := side.run(name, Case((*part.words, *more)), (place,), {}):
        raise RuntimeError(f"{side.label}, {name}: {problem}")
    return cpu() - started


def seconds(side: Side, part: Part, turn: int) -> float:
    """CPU seconds of one update, or one batch."""
    short = command(side, part, turn, part.short)
    return (command(side, part, turn, part.long) - short) / part.per


def residues(side: Side) -> Counter[str]:
    """Letters of all its samples."""
    lines = (line for path in side.folder.glob("*/samples.fasta") for line in path.read_text().splitlines())
    return Counter("".join(line for line in lines if not line.startswith(">")))


def apart(one: Counter[str], other: Counter[str]) -> float:
    """Total variation between two distributions of letters."""
    return sum(abs(one[x] / one.total() - other[x] / other.total()) for x in {*one, *other}) / 2


def measure(part: Part, before: Side, after: Side, repeats: int) -> dict[str, object]:
    """The ratio of each pair. A short command of each before them finds the words that the tree knows."""
    pairs = []
    for side in (before, after):
        command(side, part, 0, part.short)
    for turn in range(1, repeats + 1):
        sides = (before, after) if turn % 2 else (after, before)
        found = {side.label: seconds(side, part, turn) for side in sides}
        pairs.append((found["before"], found["after"]))
        print(f"{part.name}: {found['before']:.2f} and {found['after']:.2f} s of CPU", flush=True)
    ratios = [old / new for old, new in pairs]
    print(f"{part.name}: {statistics.median(ratios):.2f} times ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)
    return {"part": part.name, "ratio": statistics.median(ratios), "ratios": ratios, "seconds": pairs}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="main_job.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", required=True, metavar="REV", help="commit, or a folder that holds another tree")
    parser.add_argument("--after", type=Path, default=HERE, metavar="FOLDER", help="the other tree; default: this one")
    parser.add_argument("--repeats", type=int, default=3, help="pairs that are counted")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one pair: shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats}: at least one pair is needed.")
    with tempfile.TemporaryDirectory(prefix="main_job_") as made:
        try:
            root, called = checkout(given.before, Path(made, "tree"))
        except ValueError as error:
            parser.error(str(error))
        before = Side("before", root, Path(made, "before"))
        after = Side("after", given.after.resolve(), Path(made, "after"))
        os.environ.update(ENVIRONMENT)
        torch.set_num_threads(1)  # inherited by what is forked
        warm_up()
        repeats = 1 if given.quick else given.repeats
        todo = parts(root / "domains/didi_protein/assets/teacher", given.quick)
        try:
            rows = [measure(part, before, after, repeats) for part in todo]
        except RuntimeError as error:
            print(error)
            return 1
        distance = apart(residues(before), residues(after))
    print(f"residues of the samples: total variation {distance:.3f}")
    if given.out:
        load = round(os.getloadavg()[0], 1)
        record = {"before": called, "quick": given.quick, "load": load, "residues": distance, "rows": rows}
        given.out.write_text(json.dumps(record, indent=2) + "\n")
    if not given.quick and distance > ALIKE:
        print(f"that is more than {ALIKE}: the two sides do not draw from one law")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
