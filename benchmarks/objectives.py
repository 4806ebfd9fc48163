"""All objectives under one budget of seconds, over seeds: the runs of ``experiment=objectives``, and one report.

    python benchmarks/objectives.py toy runs/toy --seconds 40 --seeds 0 1 2
    python benchmarks/objectives.py protein runs/protein --seconds 120 training.batch_size=32 evaluate.num=200

The report (``report/`` in the folder) is that of ``didi report ablation=runs/toy``. Run the command again to go on:
what is finished stays, and ``--limit`` begins no further run after so many seconds. ``--cpu`` counts the processor's
seconds and not those on the wall, for a machine that others use at the same time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

from didi_core import cli
from didi_core.training.trainee import Clock

OBJECTIVES = (
    "cross_entropy", "didi", "dmmd", "mmd", "few_calls", "one_call", "one_call_noise", "coupled",
    "few_calls_coupled", "sdtt", "alpha", "idlm", "didi_paper",
)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", help="further settings of distill, key=value")
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--limit", type=float, default=float("inf"))
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_intermixed_args()


def finished(run: Path) -> bool:
    """Whether a run was trained and evaluated."""
    return (run / "report.json").is_file() and bool(json.loads((run / "run.json").read_text()).get("finished"))


def main() -> None:
    asked, started = arguments(), time.monotonic()
    if asked.cpu:
        Clock.now = time.process_time
    for seed, objective in itertools.product(asked.seeds, asked.objectives):
        run = asked.out / f"{objective}_{seed}"
        if finished(run):
            continue
        if time.monotonic() - started > asked.limit:
            print("there is no time left for the next run: repeat the command")
            return
        words = ["experiment=objectives", f"domain={asked.domain}", f"objective={objective}", f"seed={seed}"]
        words += [f"run_dir={run}", f"cache={asked.out / 'cache'}", f"training.seconds={asked.seconds:g}"]
        code = cli.main(["distill", *words, *asked.settings])  # a collapse is said and is a result: go on
        print(f"{run.name}: exit code {code}", flush=True)
    cli.main(["report", f"ablation={asked.out}", f"out={asked.out / 'report'}"])


if __name__ == "__main__":
    main()
