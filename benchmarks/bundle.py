"""Everything in a domain's ``assets`` from a trained teacher and judge, in one command.

    python benchmarks/bundle.py protein --data FASTA --teacher DIR --judge DIR --source WORDS [--trained WORDS]
    python benchmarks/bundle.py language --data TEXT --teacher DIR --judge DIR --source WORDS [--trained WORDS]
    python benchmarks/bundle.py protein --only samples,curves     # again, from the networks that are bundled
    python benchmarks/bundle.py toy --only student                # of each domain: what sample run=bundled writes with

networks  weights and cards, statistics of the held-out data, features (``python -m didi_<domain>.bundle``)
samples   the teacher's samples that objectives call real where there is no corpus, drawn by a ``distill`` of didi
          and, for proteins, of coupled
student   the student of the domain's main job and its quality by number of calls
curves    the teacher's quality by number of calls under the plain law, the best, and two others, into its card

Last, README.md beside every network is written again from its card (``cards.py``).
On two cores of a CPU about 25 minutes for a domain, most of it for the curves. ``WORK/curves.json`` is rewritten after
every row, and a row of the same networks is not drawn again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cards

from didi_core.checkpoints.card import amend_card, load_denoiser, read_card
from didi_core.evaluation.step_curve import STEPS, step_curve
from didi_core.plugins import registry
from didi_core.sampling.generate import SamplerSettings
from didi_core.storage.files import write_json
from didi_core.types import Domain

PARTS = ("networks", "samples", "student", "curves")
PLAIN = SamplerSettings()
BEST = {
    "toy": SamplerSettings(law="stratified", grid="uniform"),
    "protein": SamplerSettings(law="stratified", grid="power"),
    "language": SamplerSettings(law="dilated", grid="uniform"),
}
OTHERS = {
    "protein": (SamplerSettings(law="stratified"), SamplerSettings(law="dilated", grid="power")),
    "language": (SamplerSettings(law="stratified"), SamplerSettings(law="dilated", grid="power")),
}
KEPT = {"protein": ("didi", "coupled"), "language": ("didi",), "toy": ()}  # objectives that need samples of their own
ROWS = {  # calls: samples; proteins differ more among themselves, and are drawn faster
    "protein": {**STEPS, 16: 128, 32: 96, 64: 64, 128: 48, 256: 32},
    "language": STEPS,
}
OF_STUDENT = {
    "toy": {1: 300, 2: 300, 4: 300, 8: 300, 16: 300},
    "protein": {1: 256, 2: 256, 4: 256, 8: 128, 16: 128},
    "language": {1: 128, 2: 128, 4: 128, 8: 64, 16: 64},
}
FEW = {4: 96, 8: 96}  # of the others


def networks(domain: str, data: Path, teacher: Path, judge: Path, source: str) -> None:
    """The domain's own bundler."""
    words = ["--data", str(data), "--teacher", str(teacher), "--judge", str(judge), "--source", source]
    subprocess.run([sys.executable, "-m", f"didi_{domain}.bundle", *words], check=True)


def samples(domain: str, assets: Path, work: Path) -> None:
    """Those of distillations of one update: file names and content are as ``distill`` will look for them."""
    drawn: list[Path] = []
    for objective in KEPT[domain]:
        run = work / f"distill_{objective}"
        words = [f"domain={domain}", f"objective={objective}", "training.steps=1", "evaluate.enabled=false"]
        subprocess.run([sys.executable, "-m", "didi_core", "distill", *words, f"run_dir={run}"], check=True)
        drawn += sorted((run / "reference").glob("*.jsonl"))
    if not drawn:  # the bundled ones are of this teacher
        return
    shutil.rmtree(assets / "samples", ignore_errors=True)
    (assets / "samples").mkdir()
    for path in drawn:
        shutil.copyfile(path, assets / "samples" / path.name)


def student(domain: Domain, assets: Path, work: Path, steps: Mapping[int, int]) -> None:
    """That of the main job with seed 0, and the curve of its quality in its card."""
    run = work / "main"
    words = [f"domain={domain.name}", "evaluate.enabled=false", f"run_dir={run}"]
    if not (run / "student").is_dir():
        subprocess.run([sys.executable, "-m", "didi_core", "distill", *words], check=True)
    folder = assets / "student"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "student", folder)
    found = step_curve(domain, load_denoiser(folder), domain.metrics()[:2], steps=steps, settings=BEST[domain.name])
    amend_card(folder, steps_matter=[found], command=f"didi distill domain={domain.name}", licence="Apache-2.0")


def curves(domain: Domain, assets: Path, work: Path, steps: Mapping[int, int], few: Mapping[int, int]) -> None:
    """Quality by calls of the bundled teacher under the bundled judge, into its card."""
    weights = {name: read_card(assets / name)["sha256"]["model.safetensors"] for name in ("teacher", "judge")}
    file = work / "curves.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    found: dict[str, Any] = kept["curves"] if kept.get("weights") == weights else {}
    teacher, metrics = domain.teacher(), domain.metrics()[:2]
    plan = [(PLAIN, steps), (BEST[domain.name], steps), *((how, few) for how in OTHERS[domain.name])]
    for settings, rows in plan:
        name = f"{settings.law}, {settings.grid}"

        def keep(curve: dict[str, Any], name: str = name) -> None:
            found[name] = curve
            write_json(file, {"weights": weights, "curves": found})
            calls, row = [*curve["by_steps"].items()][-1]
            print(f"{name}, {calls} calls: {row}", flush=True)

        found[name] = step_curve(
            domain, teacher, metrics, steps=rows, settings=settings, known=found.get(name), keep=keep
        )
    amend_card(assets / "teacher", steps_matter=[found[f"{how.law}, {how.grid}"] for how, _ in plan])


def main(arguments: Sequence[str] | None = None) -> int:
    """The parts that are asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=BEST)
    parser.add_argument("--data", type=Path, help="what teacher and judge were trained on")
    parser.add_argument("--teacher", type=Path, help="folder with model.safetensors and card.json")
    parser.add_argument("--judge", type=Path, help="folder with model.safetensors and card.json")
    parser.add_argument("--source", help="attribution of the data, for the cards")
    parser.add_argument("--trained", help="on what and how both were trained, for the cards")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--work", type=Path, help="default bundle_DOMAIN")
    parser.add_argument("--quick", action="store_true", help="two samples a row: shows that it runs")
    given = parser.parse_args(arguments)
    parts, work = given.only.split(","), (given.work or Path(f"bundle_{given.domain}")).resolve()
    if set(parts) - set(PARTS):
        parser.error(f"--only {given.only}: choose from {', '.join(PARTS)}.")
    if given.domain not in ROWS and parts != ["student"]:
        parser.error(f"{given.domain}: give --only student; python -m didi_{given.domain}.bundle makes the rest.")
    work.mkdir(parents=True, exist_ok=True)
    assets = Path(importlib.import_module(f"didi_{given.domain}").__file__ or "").parent / "assets"
    if "networks" in parts:
        if not (given.data and given.teacher and given.judge and given.source):
            parser.error("networks need --data, --teacher, --judge and --source.")
        networks(given.domain, given.data, given.teacher, given.judge, given.source)
        for name in ("teacher", "judge") if given.trained else ():
            amend_card(assets / name, trained=given.trained)
    if "samples" in parts:
        samples(given.domain, assets, work)
    if "student" in parts:
        of_student = {1: 2, 2: 2} if given.quick else OF_STUDENT[given.domain]
        student(registry().domain(given.domain, {}), assets, work, of_student)
    if "curves" in parts:
        steps, few = ({1: 2, 2: 2}, {2: 2}) if given.quick else (ROWS[given.domain], FEW)
        curves(registry().domain(given.domain, {}), assets, work, steps, few)
    return cards.main([])


if __name__ == "__main__":
    sys.exit(main())
