"""Many distillations at once on one GPU, and what they found in one archive.

    python benchmarks/gpu_lab.py PLAN --out FOLDER --seconds 300 [--at-once 16] [--device cuda]

``PLAN`` is a JSON file: {"common": [words of every run], "stages": [[{"name": ..., "words": [...]}, ...], ...]}.
Each entry is one run of the project's command, ``python -m didi_core distill ... run_dir=WORK/NAME``, a process of its
own; or of another command ("command": "evaluate", with out=WORK/NAME); or of a script beside this one ("command":
"acceleration.py"), which finds the other runs in its working folder WORK. "common" goes to ``distill`` alone. A stage
begins when the one before it is over; an entry with "after": [names] begins as soon as those are.

Networks as small as the bundled ones wait for kernel launches, so that many processes share the card. When the time is
over what still runs is stopped. ``lab.json`` is rewritten after every event. ``runs.tar.gz`` gets report.json, run.json
and metrics.jsonl of every run and the end of the log of one that failed; ``NAME.tar`` gets the student of a run with
"keep": true.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_models import Events, write

HERE = Path(__file__).resolve().parent
CLOSING = 8.0  # seconds kept for packing
KEPT = ("report.json", "run.json", "metrics.jsonl", "worth.json", "worth.md", "log.txt")


class Lab(Events):
    """The runs, the clock, and lab.json."""

    def __init__(self, out: Path, work: Path, ends: float, device: str) -> None:
        self.out, self.work, self.ends, self.device = out, work, ends, device
        self.started, self.codes = time.monotonic(), dict[str, int | None]()
        self.record = {"events": [], "codes": self.codes}

    def save(self) -> None:
        write(self.out / "lab.json", self.record)

    def start(self, name: str, command: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        if command.endswith(".py"):
            full = [str(HERE / command), *words, "--device", self.device]
        else:
            place = "run_dir" if command == "distill" else "out"
            full = ["-m", "didi_core", command, *words, f"device={self.device}", f"{place}={self.work / name}"]
        with (self.work / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *full], cwd=self.work, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def over(self, name: str, code: int | None, keep: bool) -> None:
        """Pack what a run left."""
        self.codes[name] = code
        run = self.work / name
        if code != 0:
            log = self.work / f"{name}.log"
            run.mkdir(exist_ok=True)
            (run / "log.txt").write_text(log.read_text(errors="replace")[-6000:])
        if keep and (run / "student").is_dir():
            with tarfile.open(self.out / f"{name}.tar", "w") as tar:
                tar.add(run / "student", f"{name}/student")
        self.note(f"{name}: {'stopped' if code is None else f'exit code {code}'}; {_last(run)}")

    def pack(self) -> None:
        """The archive of all that is over."""
        with tarfile.open(self.out / "runs.tar.gz", "w:gz", compresslevel=6) as tar:
            for name in self.codes:
                for file in KEPT:
                    if (self.work / name / file).is_file():
                        tar.add(self.work / name / file, f"{name}/{file}")

    def stage(self, entries: Sequence[Mapping[str, Any]], common: Sequence[str], at_once: int) -> None:
        """Run these, so many at once."""
        waiting, running = list(entries), dict[str, tuple[subprocess.Popen[bytes], bool]]()
        while (waiting or running) and self.left > CLOSING:
            ready = [entry for entry in waiting if set(entry.get("after", ())) <= self.codes.keys()]
            for entry in ready[: at_once - len(running)]:
                waiting.remove(entry)
                command = entry.get("command", "distill")
                words = [*(common if command == "distill" else ()), *entry["words"]]
                running[entry["name"]] = self.start(entry["name"], command, words), bool(entry.get("keep"))
            if not running:
                break
            for name, (child, keep) in list(running.items()):
                if child.poll() is not None:
                    del running[name]
                    self.over(name, child.returncode, keep)
            time.sleep(0.2)
        for name, (child, keep) in running.items():
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self.over(name, None, keep)
        if waiting:
            self.note("not begun: " + ", ".join(entry["name"] for entry in waiting))


def _last(run: Path) -> str:
    """Steps, seconds and the loss of the last line of metrics."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    if not lines:
        return "no update"
    last = json.loads(lines[-1])
    return f"{last.get('step')} updates in {last.get('seconds', float('nan')):.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder of the runs; default beside --out")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args(arguments)
    out = given.out.resolve()
    work = (given.work or out.parent / f"{out.name}_runs").resolve()
    shutil.rmtree(work, ignore_errors=True)
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    plan = json.loads(given.plan.read_text())
    lab = Lab(out, work, time.monotonic() + given.seconds, given.device)
    try:
        for entries in plan["stages"]:
            lab.stage(entries, plan["common"], given.at_once)
    finally:
        lab.pack()
    lab.note(f"{sum(code == 0 for code in lab.codes.values())} of {len(lab.codes)} runs ended well")
    return 0 if all(code == 0 for code in lab.codes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
