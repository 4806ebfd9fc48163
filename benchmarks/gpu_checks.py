"""Correctness on a GPU, one check a call.

    python benchmarks/gpu_checks.py attention|distill|sampling|draw|shard|adapters --out FILE [--device cuda] [--quick]

attention   every backend that runs, forward and backward on ragged lengths, against explicit softmax in fp64
draw        frequencies of rare tokens in draws from a vocabulary of 50,257
sampling    the bundled protein teacher in fp32 and bf16, perplexity under the bundled judge
distill     a short distillation of the toy domain ends with exit code 0, the same again gives the same weights, and
            one that is killed and resumed gives them too (the last two are reported, not demanded)
shard       two updates sharded in a group of one process (NCCL) equal those without; shards are read again
adapters    three steps of ``adapter=lora`` on the bundled protein teacher; the merged student loads and runs

The file holds ``ok`` and the figures; exit code 1 where a check failed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Result = dict[str, Any]


def attention(device: str, quick: bool, work: Path) -> Result:
    import torch
    from gpu_attention import agreements, ragged

    lengths = ragged(4, 3, 9) if quick else ragged(16, 30, 700)
    rows = agreements(torch.device(device), lengths, 2 if quick else 12, 16 if quick else 64)
    bad = [f"{row.backend} in {row.dtype}" for row in rows if not row.ok]
    ran = [f"{row.backend} {row.dtype}" for row in rows if row.forward is not None]
    return {"ok": not bad, "differing": bad, "ran": ran, "rows": [asdict(row) for row in rows]}


def draw(device: str, quick: bool, work: Path) -> Result:
    """Tokens of probability 1e-9 to 1e-6, 64 of each, beside common ones: counts against their expectation."""
    import torch

    from didi_core.diffusion.draws import draw as draw_one
    from didi_core.streams import generator

    size, rows, rounds = (2000, 512, 4) if quick else (50_257, 2048, 1000)
    place = torch.device(device)
    rare = (1e-4, 1e-3) if quick else (1e-8, 1e-7, 1e-6)
    p = torch.full((size,), 1.0, dtype=torch.float64)
    for i, value in enumerate(rare):
        p[64 * i : 64 * (i + 1)] = value * size
    p[64 * len(rare) :] *= (size - p[: 64 * len(rare)].sum()) / p[64 * len(rare) :].sum()
    log_p = (p / p.sum()).log().float().to(place).expand(rows, size)
    counts = torch.zeros(size, dtype=torch.int64, device=place)
    stream, started, made = generator(0, "check", device=place), time.monotonic(), 0
    while made < rounds and time.monotonic() - started < 25:
        counts += torch.bincount(draw_one(log_p, stream), minlength=size)
        made += 1
    found = {}
    for i, value in enumerate(rare):
        seen, expected = int(counts[64 * i : 64 * (i + 1)].sum()), 64 * value * rows * made
        found[f"{value:g}"] = {"seen": seen, "expected": expected, "z": (seen - expected) / math.sqrt(expected)}
    ok = all(abs(row["z"]) < 5 for row in found.values())
    return {"ok": ok, "draws": rows * made, "seconds": time.monotonic() - started, "rare": found}


def sampling(device: str, quick: bool, work: Path) -> Result:
    import torch

    from didi_core.device import Machine, autocast
    from didi_core.evaluation.measure import evaluate_samples
    from didi_core.sampling.generate import SamplerSettings, generate
    from didi_protein.domain import ProteinDomain, asset

    domain, found = ProteinDomain(), {}
    machine = Machine.of(device, "fp32")
    teacher = domain.teacher().to(machine.device).eval()
    metrics = domain.metrics()[:2]
    for precision in ("fp32", "bf16"):
        with autocast(machine.device, precision), torch.no_grad():
            made = generate(domain, teacher, settings=SamplerSettings(steps=16), num=4 if quick else 192, seed=0)
        values = evaluate_samples(metrics, made.samples).values
        found[precision] = {name: [x.value, x.low, x.high] for name, x in values.items()}
        found[precision]["samples_per_second"] = len(made.samples) / made.seconds
    low, high = found["fp32"]["perplexity"][1:]
    near = low * 0.8 <= found["bf16"]["perplexity"][0] <= high * 1.25
    card = json.loads((asset("teacher") / "card.json").read_text())
    curve = next(row for row in card["steps_matter"] if row["law"] == "iid")
    return {"ok": bool(near), "in the card": curve["by_steps"]["16"], **found}


def environment() -> dict[str, str]:
    """Of a command that runs in another folder: PYTHONPATH may be relative to this one."""
    paths = [str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)} if paths else dict(os.environ)


def shard(device: str, quick: bool, work: Path) -> Result:
    """``gpu_sharding.py``."""
    import gpu_sharding

    return gpu_sharding.check(device, quick, work)


def adapters(device: str, quick: bool, work: Path) -> Result:
    """A short distillation with adapters, and what it leaves."""
    if importlib.util.find_spec("peft") is None:
        return {"ok": True, "not run": "peft is not installed"}
    steps, empty = 1 if quick else 3, tempfile.mkdtemp(prefix="didi_check_")
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    words = [sys.executable, "-m", "didi_core", "distill", "domain=protein", "adapter=lora", f"device={device}"]
    words += [f"training.steps={steps}", "training.log_every=1", f"training.batch_size={2 if quick else 32}"]
    words += ["objective.states.samples=16", "objective.states.steps=4", "evaluate.enabled=false", f"run_dir={run}"]
    started = time.monotonic()
    done = subprocess.run(words, cwd=empty, env=environment(), capture_output=True, text=True, check=False)
    found: Result = {"ok": False, "exit code": done.returncode, "seconds": time.monotonic() - started}
    if done.returncode:
        return found | {"log": (done.stdout + done.stderr)[-1500:]}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return found | _merged(device, run) | {"scalars": lines}


def _merged(device: str, run: Path) -> Result:
    """Whether the student of a run with adapters is a plain network that has moved from its teacher, and runs."""
    import torch

    from didi_core.api import load_student
    from didi_protein.domain import ProteinDomain

    domain = ProteinDomain()
    student, before = load_student(run).to(device), domain.teacher().state_dict()
    after = {name: value.cpu() for name, value in student.state_dict().items()}
    plain = after.keys() == before.keys()
    moved = plain and max(float((after[name] - value).abs().max()) for name, value in before.items())
    with torch.no_grad():
        hidden = student.trunk(domain.template([20, 40]).to(device))
    finite = bool(hidden.isfinite().all())
    return {"ok": bool(plain and moved and finite), "plain": plain, "largest move of a weight": moved, "finite": finite}


def distill(device: str, quick: bool, work: Path) -> Result:
    """Two whole runs and one that is killed and resumed, at the same time."""
    steps = 4 if quick else 40
    words = [
        sys.executable,
        "-m",
        "didi_core",
        "distill",
        "domain=toy",
        "objective=didi",
        f"device={device}",
        "evaluate.enabled=false",
    ]
    words += [f"training.steps={steps}", "training.log_every=1", f"training.checkpoint_every={max(steps // 4, 1)}"]
    words += ["objective.reference_samples=64", "objective.reference_steps=4", "objective.critic.warmup=1"]
    words += ["training.batch_size=16"] if quick else []

    def start(name: str) -> subprocess.Popen:
        with (work / f"{name}.log").open("ab") as log:  # from an empty folder: -m would prefer a package beside it
            full = [*words, f"run_dir={work / name}"]
            return subprocess.Popen(full, stdout=log, stderr=log, cwd=empty, env=environment())

    shutil.rmtree(work, ignore_errors=True)  # runs of an earlier call would be continued
    work.mkdir(parents=True)
    empty = tempfile.mkdtemp(prefix="didi_check_")
    started = time.monotonic()
    children = {name: start(name) for name in ("whole", "again", "killed")}
    journal, killed_at = work / "killed" / "metrics.jsonl", None
    while children["killed"].poll() is None:
        lines = journal.read_text().splitlines() if journal.exists() else []
        if len(lines) > steps // 2:
            os.kill(children["killed"].pid, signal.SIGKILL)
            killed_at = len(lines)
            break
        time.sleep(0.02)
    children["killed"].wait()
    resumed = start("killed")
    codes = {name: child.wait() for name, child in children.items() if name != "killed"}
    codes["resumed"] = resumed.wait()
    hashes = {name: _digest(work / name / "student" / "model.safetensors") for name in children}
    return {
        "ok": all(code == 0 for code in codes.values()),
        "exit codes": codes,
        "killed at step": killed_at,
        "repeated run has the same weights": hashes["whole"] == hashes["again"],
        "resumed run has the same weights": hashes["whole"] == hashes["killed"],
        "hashes": hashes,
        "seconds": time.monotonic() - started,
        "log": (work / "whole.log").read_text()[-1500:] if any(codes.values()) else "",
    }


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else None


CHECKS: dict[str, Callable[[str, bool, Path], Result]] = {
    "attention": attention,
    "distill": distill,
    "sampling": sampling,
    "draw": draw,
    "shard": shard,
    "adapters": adapters,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """One check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CHECKS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    found = CHECKS[given.name](given.device, given.quick, given.out.parent.resolve() / f"check_{given.name}")
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
