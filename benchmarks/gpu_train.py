"""Train the bundled teachers and judges of protein and text, all at once on one GPU.

    python benchmarks/gpu_train.py --data FOLDER --seconds 330 --work WORK --out OUT [--pace FILE] [--models A,B]

Networks this small wait for kernel launches, so several processes share the card. Each is the project's own command,
``python -m didi_core pretrain ...``, and its card is written by it. Nobody knows the pace in advance: unless ``--pace``
names the figures of an earlier call, all are first run together for some seconds, and the number of steps follows, so
that every schedule comes to its end. ``WORK/train.json`` is rewritten after every event; a finished model is packed
into ``OUT/NAME.tar`` at once. What is not finished in time is stopped, and its last checkpoint is packed. Quality by
calls follows for each teacher as soon as its judge is there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_models import MODELS, Model, Session, command, write

HERE = Path(__file__).resolve().parent
MARGIN = 0.85  # of the measured pace
STARTUP = 16.0  # seconds until a command's first step
CURVES = 45.0  # at most kept for quality by calls
CLOSING = 8.0  # kept for packing


def prepare(session: Session) -> None:
    """Data into the work folder, text packed once, and an attention backend that trains in both precisions."""
    for path in sorted(session.data.glob("*")):
        packed = path.suffix == ".gz"
        target = session.work / (path.stem if packed else path.name)
        if not path.is_file() or target.exists():
            continue
        partial = target.with_name(f".{target.name}.part")
        with gzip.open(path) if packed else path.open("rb") as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file)
        partial.replace(target)
    found = session.work / "prepare.json"
    if not (found.exists() and json.loads(found.read_text()).get("complete")):
        child = session.start("prepare", [sys.executable, str(HERE / "gpu_curves.py"), "--prepare", str(found)])
        try:
            child.wait(timeout=max(min(90.0, session.left), 1))
        except subprocess.TimeoutExpired:
            child.kill()
    prepared = json.loads(found.read_text()) if found.exists() else {}
    session.attention = prepared.get("attention", "auto")
    session.record["prepare"] = prepared
    session.note(f"prepared ({'whole' if prepared.get('complete') else 'NOT WHOLE'}), attention {session.attention}")


def metrics(folder: Path) -> list[dict[str, float]]:
    """Whole lines of a run's metrics."""
    path, lines = folder / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def calibrate(session: Session, models: Sequence[Model], seconds: float) -> dict[str, float]:
    """Steps a second of each, all running at once: of the last half of what each one ran."""
    shutil.rmtree(session.work / "calibrate", ignore_errors=True)
    children = {
        model.name: session.start(
            f"calibrate/{model.name}", command(session, model, 100_000, f"calibrate/{model.name}", calibrating=True)
        )
        for model in models
    }
    ends, enough = time.monotonic() + seconds, 8.0 if not session.quick else 1.0
    while time.monotonic() < ends:
        time.sleep(0.25)
        ran = [metrics(session.work / "calibrate" / name) for name in children]
        if all(lines and lines[-1]["seconds"] - lines[0]["seconds"] > enough for lines in ran):
            break
        if all(child.poll() is not None for child in children.values()):
            break
    for child in children.values():
        child.kill()
    for child in children.values():
        child.wait()
    paces = {}
    for name in children:
        lines = metrics(session.work / "calibrate" / name)
        late = lines[len(lines) // 2 :] if len(lines) > 3 else lines
        if len(late) >= 2 and late[-1]["seconds"] > late[0]["seconds"]:
            paces[name] = (late[-1]["step"] - late[0]["step"]) / (late[-1]["seconds"] - late[0]["seconds"])
    session.record["pace"] = paces
    write(session.work / "pace.json", paces)
    shown = ", ".join(f"{name} {pace:.1f}" for name, pace in paces.items())
    session.note(f"steps a second, all at once: {shown or 'none ran'}")
    return paces


def pack(session: Session, model: Model) -> None:
    """``OUT/NAME.tar`` with card, weights and metrics, and the figures into the record."""
    run = session.work / model.name
    folder = run / model.kind
    entry = session.record["models"][model.name]
    lines = metrics(run)
    entry["metrics"] = {"last": lines[-1] if lines else None, "validation": _validation(lines)}
    files: list[tuple[Path, str]]
    if (folder / "card.json").exists():
        card = json.loads((folder / "card.json").read_text())
        if card.get("git_commit") is None and session.commit:
            card["git_commit"] = session.commit
            write(folder / "card.json", card)
        entry |= {"finished": True, "validation": card["validation"]}
        files = [(path, f"{model.name}/{path.name}") for path in sorted(folder.iterdir()) if path.is_file()]
    else:
        entry["finished"] = False
        kept = sorted((run / "checkpoints").glob("step_*"))[-1:]
        files = [
            (path, f"{model.name}/{place.name}/{path.name}")
            for place in kept
            for path in (place / "average.safetensors", place / "manifest.json")
            if path.exists()
        ]
    files += [(p, f"{model.name}/{p.name}") for p in (run / "metrics.jsonl", run / "run.json") if p.exists()]
    if files:
        partial = session.out / f".{model.name}.part"
        with tarfile.open(partial, "w") as tar:
            for path, name in files:
                tar.add(path, name)
        partial.replace(session.out / f"{model.name}.tar")
    last = list(entry.get("validation", entry["metrics"]["validation"]).values())[-1:]
    session.note(f"{model.name}: {'finished' if entry['finished'] else 'STOPPED'}, validation {last}")


def _validation(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    return {str(int(line["step"])): line["validation_loss"] for line in lines if "validation_loss" in line}


def train(session: Session, models: Sequence[Model], paces: dict[str, float]) -> None:
    """All at once; each is packed when it ends, and curves start when a teacher and its judge are there."""
    judged = {model.judge for model in models} & {model.name for model in models}
    curves_take = min(CURVES, 0.15 * session.left) if judged else 0.0
    loop = session.left - STARTUP - curves_take - CLOSING
    running, steps = {}, {}
    careful = 0.8 * min(paces.values(), default=10.0)
    for model in models:
        if model.name not in paces:
            session.note(f"{model.name}: no pace measured, {careful:.1f} steps a second assumed")
        pace = paces.get(model.name, careful)
        steps[model.name] = max(min(math.floor(MARGIN * loop * pace), model.most), 4)
        if session.quick:
            steps[model.name] = 4
        shutil.rmtree(session.work / model.name, ignore_errors=True)
        words = command(session, model, steps[model.name], model.name)
        session.record["models"][model.name] = {
            "steps": steps[model.name],
            "sequences": steps[model.name] * model.batch,
            "command": shlex.join(["python", *words[1:]]),
        }
        running[model.name] = (model, session.start(model.name, words))
    session.note("training: " + ", ".join(f"{name} {count} steps" for name, count in steps.items()))
    began, curves = time.monotonic(), {}
    while running or any(child.poll() is None for child in curves.values()):
        time.sleep(0.25)
        for name, (model, child) in list(running.items()):
            late = session.left < CLOSING
            if child.poll() is None and not late:
                continue
            if child.poll() is None:
                child.kill()
                child.wait()
            del running[name]
            entry = session.record["models"][name]
            entry |= {"seconds": round(time.monotonic() - began, 1), "exit_code": child.returncode}
            try:
                pack(session, model)
            except (OSError, ValueError, KeyError, tarfile.TarError) as error:
                session.note(f"{name}: not packed: {error!r}")
        curves |= start_curves(session, models, curves)
        if session.left < CLOSING / 2:
            for child in curves.values():
                child.kill()
            break
    gather_curves(session)


def start_curves(session: Session, models: Sequence[Model], begun: dict[str, Any]) -> dict[str, Any]:
    """Processes for the teachers that are finished, whose judges are, and that have none yet."""
    fresh = {}
    for model in models:
        if not model.judge or model.name in begun:
            continue
        teacher, judge = session.work / model.name / "model", session.work / model.judge / "judge"
        if not ((teacher / "card.json").exists() and (judge / "card.json").exists()):
            continue
        if not all(session.record["models"].get(n, {}).get("finished") for n in (model.name, model.judge)):
            continue
        words = [sys.executable, str(HERE / "gpu_curves.py"), "--teacher", str(teacher), "--judge", str(judge)]
        words += ["--domain", model.domain, "--out", str(session.work / f"curve_{model.name}.json")]
        words += ["--device", session.device, "--num", "4" if session.quick else "256"]
        words += ["--steps", "1", "2"] if session.quick else []
        fresh[model.name] = session.start(f"curve_{model.name}", words)
        session.note(f"{model.name}: quality by calls begins")
    return fresh


def gather_curves(session: Session) -> None:
    """Put what the curves' processes have written into the record."""
    for path in sorted(session.work.glob("curve_*.json")):
        try:
            session.record["curves"][path.stem.removeprefix("curve_")] = json.loads(path.read_text())
        except ValueError:
            continue
    session.note(f"curves: {sorted(session.record['curves'])}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, calibrate, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with peps_train.txt and the FASTA file")
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pace", type=Path, help="pace.json of an earlier call: no calibration")
    parser.add_argument("--models", help="names, with commas between them; default all")
    parser.add_argument("--commit", default="", help="commit of the code, for cards written outside a checkout")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--prepare-only", action="store_true")
    given = parser.parse_args(arguments)
    work, out = given.work.resolve(), given.out.resolve()
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + given.seconds
    session = Session(given.data.resolve(), work, out, ends, given.quick, given.device, given.commit)
    names = given.models.split(",") if given.models else [model.name for model in MODELS]
    unknown = set(names) - {model.name for model in MODELS}
    if unknown:
        parser.error(f"--models: {sorted(unknown)} not known, only {[model.name for model in MODELS]}")
    models = [model for model in MODELS if model.name in names]
    for stale in work.glob("curve_*.json"):
        stale.unlink()
    prepare(session)
    if given.prepare_only:
        return 0
    paces = json.loads(given.pace.read_text()) if given.pace and given.pace.exists() else {}
    if not all(model.name in paces for model in models):
        paces = calibrate(session, models, 60.0 if given.quick else min(40.0, max(25.0, session.left / 4)))
    train(session, models, paces)
    done = session.record["models"]
    return 0 if done and all(entry.get("finished") for entry in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
