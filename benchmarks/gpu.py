"""Everything there is to do on a GPU that is lent for minutes, in one command: checks, measurements, training.

    python benchmarks/gpu.py --seconds 480 --train DATA_FOLDER [--out FOLDER] [--only checks,measure,train] [--quick]

Checks run at the same time, measurements one after another, and what time is left goes to the training of the bundled
networks (``gpu_train.py``). Every part is a process of its own with its own limit: one that fails or hangs is recorded,
and the rest still runs. ``gpu.json`` is rewritten every few seconds, and the table comes last. ``--quick`` goes through
everything in tiny sizes on any machine. Exit code 0: all parts did; 1: one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKS = ("attention", "distill", "sampling", "draw", "shard", "adapters")
# Limits in seconds, by what is wanted most: where time does not suffice, the last are left out.
MEASURES = {
    "update": 70.0,
    "hosts": 50.0,
    "large": 125.0,
    "folding": 60.0,
    "graphs": 65.0,
    "protein": 45.0,
    "language": 45.0,
    "compile": 60.0,
    "card": 20.0,
}
LARGE = "large"  # a script of its own, which knows no turn, and is left out where it has less than LEAST seconds
LEAST = 60.0
GROUPS = ("checks", "measure", "train")
BUDGET = {"checks": 60.0, "measure": 150.0}  # where training follows; without it, measurements take what is left
CLOSING = 6.0  # seconds kept for the table and the logs


@dataclass
class Part:
    """A process, where its results go, and how it ended."""

    name: str
    limit: float
    child: subprocess.Popen
    result: Path
    log: Path
    started: float = field(default_factory=time.monotonic)
    turn: Path | None = None  # a part that was started ahead of its turn waits for this file
    status: str = "running"
    seconds: float = 0.0

    def look(self) -> bool:
        """Whether it is over; past its limit it and all its children are killed."""
        self.seconds = round(time.monotonic() - self.started, 1)
        code = self.child.poll()
        if code is None and self.seconds > self.limit:
            self.kill()
            self.status = f"stopped after {self.limit:.0f} s"
            return True
        if code is not None:
            self.status = "ok" if code == 0 else f"exit code {code}"
        return code is not None

    def go(self, limit: float) -> None:
        """It is this part's turn: its clock begins."""
        self.limit, self.started = limit, time.monotonic()
        if self.turn is not None:
            self.turn.touch()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def record(self) -> dict[str, Any]:
        """Status, time, results so far, and the end of the log where something went wrong."""
        record: dict[str, Any] = {"status": self.status, "seconds": self.seconds}
        with contextlib.suppress(OSError, ValueError):
            record["result"] = json.loads(self.result.read_text())
        if self.status not in ("ok", "running"):
            with contextlib.suppress(OSError):
                record["log"] = self.log.read_text(errors="replace")[-3000:]
        return record


@dataclass
class Session:
    """All parts, the clock, and gpu.json."""

    out: Path
    work: Path
    ends: float
    quick: bool
    device: str
    parts: dict[str, Part] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.ends - CLOSING - time.monotonic()

    def start(self, name: str, limit: float, *words: str, result: Path | None = None, ahead: bool = False) -> None:
        """Begin a part; it gets no more than what is left. One that is ``ahead`` imports, and waits for its turn."""
        limit = min(limit, self.left)
        target = result or self.work / f"{name}.json"
        target.unlink(missing_ok=True)
        log = self.work / f"{name}.log"
        full = [sys.executable, *words] + ([] if result else ["--out", str(target)])
        full += ["--quick"] if self.quick else []
        threads = "1" if self.quick else "4"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads}
        if "PYTHONPATH" in environment:  # parts of a part run in other folders
            paths = [str(Path(part).resolve()) for part in environment["PYTHONPATH"].split(os.pathsep) if part]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        turn = self.work / f"{name}.turn" if ahead else None
        if turn is not None:
            turn.unlink(missing_ok=True)
            environment["GPU_TURN"] = str(turn)
        with log.open("ab") as file:
            child = subprocess.Popen(full, stdout=file, stderr=file, start_new_session=True, env=environment)
        self.parts[name] = Part(name, limit, child, target, log, turn=turn)

    def wait(self, *names: str) -> None:
        """Until these parts are over."""
        open_, saved = set(names), 0.0
        while open_:
            open_ = {name for name in open_ if not self.parts[name].look()}
            if time.monotonic() - saved > 3:
                saved = time.monotonic()
                self.save()
            time.sleep(0.1)
        for name in names:
            part = self.parts[name]
            print(f"{name}: {part.status} in {part.seconds} s", flush=True)
        self.save()

    def save(self) -> None:
        """gpu.json, complete or as before."""
        record = {**self.about, "parts": {name: part.record() for name, part in self.parts.items()}}
        partial = self.out / ".gpu.part"
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.replace(self.out / "gpu.json")

    def close(self) -> None:
        """Kill what is left, pack all logs into one file."""
        for part in self.parts.values():
            if part.child.poll() is None:
                part.kill()
                part.status = "stopped at the end"
        self.save()
        with tarfile.open(self.out / "logs.tar.gz", "w:gz") as tar:
            for path in sorted(self.work.rglob("*")):
                small = path.is_file() and path.stat().st_size < 2**20
                if small and path.suffix in (".log", ".json", ".jsonl") and "calibrate" not in path.parts:
                    tar.add(path, path.relative_to(self.work))


def run(
    session: Session, groups: Sequence[str], measures: Sequence[str], data: Path | None, train_words: Sequence[str]
) -> None:
    """The groups in order."""
    device = ("--device", session.device)
    patience = 3 if session.quick else 1  # a CPU that others use too
    training = [str(HERE / "gpu_train.py"), "--work", str(session.work / "train"), "--out", str(session.out)]
    training += ["--data", str(data), "--device", "auto" if session.device == "cuda" else session.device]
    if "train" in groups and data is not None:  # text is packed on the CPU meanwhile
        result = session.work / "train" / "none.json"
        session.start("prepare", 90.0, *training, "--prepare-only", result=result)
    if "measure" in groups:
        _start_measure(session, measures[0], session.left, device)
    if "checks" in groups:
        limit = patience * BUDGET["checks"]
        names = [f"check_{name}" for name in CHECKS]
        for name in CHECKS:
            session.start(f"check_{name}", limit, str(HERE / "gpu_checks.py"), name, *device)
            if session.quick:  # two cores: one after another
                session.wait(f"check_{name}")
        if not session.quick:
            session.wait(*names)
    if "measure" in groups:
        room = patience * BUDGET["measure"] if "train" in groups and data is not None else session.left
        measure(session, measures, time.monotonic() + room, patience, device)
    if "train" in groups and data is not None:
        session.wait("prepare")
        words = [*training, "--seconds", f"{session.left - 4:.0f}", *train_words]
        session.start("train", session.left, *words, result=session.work / "train" / "train.json")
        session.wait("train")


def measure(session: Session, names: Sequence[str], ends: float, patience: int, device: Sequence[str]) -> None:
    """The measurements, one after another. While one runs the next is imported, which takes seconds."""
    for i, name in enumerate(names):
        room = min(patience * MEASURES[name], ends - time.monotonic(), session.left)
        if room < (LEAST if name == LARGE else 10.0):
            print(f"measure_{name}: left out, no time", flush=True)
            if waiting := session.parts.pop(f"measure_{name}", None):
                waiting.kill()
            continue
        _start_measure(session, name, room, device)
        session.parts[f"measure_{name}"].go(room)
        if names[i + 1 :] and names[i + 1] != LARGE:
            _start_measure(session, names[i + 1], room, device)
        session.wait(f"measure_{name}")


def _start_measure(session: Session, name: str, room: float, device: Sequence[str]) -> None:
    if f"measure_{name}" in session.parts:  # begun ahead
        return
    if name == LARGE:
        words = [str(HERE / "gpu_large.py"), "--seconds", f"{room - 10:.0f}", *device]
    else:
        words = [str(HERE / "gpu_measure.py"), name, *device]
    session.start(f"measure_{name}", room, *words, ahead=name != LARGE)


def show(session: Session) -> None:
    """One table: checks, figures with what was predicted, then the trained models and their curves."""
    print(f"\n{json.dumps(session.about)}")
    for name, part in session.parts.items():
        record = part.record()
        result = record.get("result", {})
        print(f"\n== {name}: {part.status}, {part.seconds} s")
        if "log" in record and part.status != "ok":
            print("   " + "\n   ".join(record["log"].splitlines()[-8:]))
        for row in result.get("rows", ()) if name.startswith("measure_") else ():
            hint = f"   [{row['predicted']}]" if row["predicted"] else ""
            print(f"  {row['what']:<62} {row['value']!s:>10} {row['unit']}{hint}")
        if name.startswith("check_"):
            shown = {key: value for key, value in result.items() if key not in ("rows", "hashes", "log")}
            print("  " + json.dumps(shown)[:700])
        if name == "train":
            _show_training(result)


def _show_training(result: dict[str, Any]) -> None:
    for line in result.get("events", ()):
        print(f"  {line}")
    for name, curves in result.get("curves", {}).items():
        for how, curve in curves.items():
            rows = curve["by_steps"]
            points = "  ".join(f"{calls}:{rows[calls]['perplexity'][0]:.2f}" for calls in sorted(rows, key=int))
            print(f"  {name:<22} {how:<20} perplexity by calls  {points}")
    for name, entry in result.get("models", {}).items():
        values = list((entry.get("validation") or {}).values())
        last = f"{values[-1]:.4f}" if values else "-"
        print(f"  {name:<22} {entry.get('steps')} steps, {entry.get('sequences')} sequences, "
              f"{entry.get('seconds', '-')} s, finished {entry.get('finished')}, validation {last}")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--train", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("--out", type=Path, default=Path("gpu_out"), help="gpu.json, logs and trained models")
    parser.add_argument("--work", type=Path, help="everything else; default a folder beside --out")
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--measures", default=",".join(MEASURES), help="which of them, in this order")
    parser.add_argument("--quick", action="store_true", help="tiny sizes on the CPU: shows that it runs")
    parser.add_argument("--models", help="for gpu_train.py")
    parser.add_argument("--pace", type=Path, help="for gpu_train.py")
    parser.add_argument("--commit", default="", help="for gpu_train.py")
    given = parser.parse_args(arguments)
    groups = given.only.split(",")
    if set(groups) - set(GROUPS):
        parser.error(f"--only {given.only}: choose from {', '.join(GROUPS)}.")
    measures = given.measures.split(",")
    if set(measures) - set(MEASURES):
        parser.error(f"--measures {given.measures}: choose from {', '.join(MEASURES)}.")
    out = given.out.resolve()
    work = (given.work or out.parent / f"{out.name}_work").resolve()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    device = "cpu" if given.quick else "cuda"
    session = Session(out, work, time.monotonic() + given.seconds, given.quick, device)
    session.about = {"seconds": given.seconds, "only": given.only, "quick": given.quick, "commit": given.commit}
    with contextlib.suppress(OSError):
        session.about["card"] = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True
        ).stdout.strip()
    own = {"--models": given.models, "--pace": given.pace and given.pace.resolve(), "--commit": given.commit}
    train_words = [word for key, value in own.items() if value for word in (key, str(value))]
    try:
        run(session, groups, measures, given.train.resolve() if given.train else None, train_words)
    finally:
        session.close()
        show(session)
    return 0 if session.parts and all(part.status == "ok" for part in session.parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
