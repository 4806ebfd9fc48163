"""Which networks ``gpu_train.py`` trains, by which command, and the folders, clock and record of one call of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROTEINS = 5360  # training sequences of the bundled split

PROTEIN = ("domain=protein", "data.path=train_amr_families.fasta", "data.similarity=1.0")
TEXT = ("domain=language", "data.path=peps_train.txt")
JUDGE = ("objective=autoregressive", "model=judge")


@dataclass(frozen=True)
class Model:
    """One network to train. ``most``: steps beyond which it would only learn its data by heart."""

    name: str
    words: tuple[str, ...]
    lr: float
    ema: float = 0.999
    batch: int = 64
    most: int = 200_000
    judge: str = ""  # of a teacher: the model that judges its samples

    @property
    def kind(self) -> str:
        return "model" if self.judge else "judge"

    @property
    def domain(self) -> str:
        return self.words[0].removeprefix("domain=")


MODELS = (
    Model("text_teacher", (*TEXT, "model=text", "model.hidden=192", "model.heads=6"), 2.5e-3, judge="text_judge"),
    Model("protein_teacher", (*PROTEIN, "model=nano"), 2e-3, judge="protein_judge"),
    Model("text_judge", (*TEXT, *JUDGE, "model.hidden=256", "model.heads=8", "model.dropout=0.05"), 2e-3),
    Model("protein_judge", (*PROTEIN, *JUDGE, "model.dropout=0.15", "seed=1"), 2e-3, most=60 * PROTEINS // 64),
    Model("text_teacher_small", (*TEXT, "model=text"), 3e-3, judge="text_judge"),
    Model(
        "protein_teacher_wide",
        (*PROTEIN, "model=nano", "model.hidden=160", "model.heads=5"),
        2.5e-3,
        batch=256,
        judge="protein_judge",
    ),
)
TINY = ("training.batch_size=2", "model.hidden=16", "model.heads=2", "model.layers=1", "validation_batches=1")


class Events:
    """The clock of a call, and what happened in it: ``events`` of a record that is written after each."""

    ends: float  # time.monotonic
    started: float
    record: dict[str, Any]

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def note(self, text: str) -> None:
        """Log an event and write the record."""
        line = f"{time.monotonic() - self.started:6.1f} s  {text}"
        print(line, flush=True)
        self.record["events"].append(line)
        self.save()

    def save(self) -> None:
        """Write the record."""
        raise NotImplementedError


@dataclass
class Session(Events):
    """Folders, clock and record of one call."""

    data: Path
    work: Path
    out: Path
    ends: float  # time.monotonic
    quick: bool
    device: str
    commit: str = ""
    attention: str = "auto"
    record: dict[str, Any] = field(default_factory=lambda: {"events": [], "models": {}, "curves": {}})
    started: float = field(default_factory=time.monotonic)

    def save(self) -> None:
        write(self.work / "train.json", self.record)

    def environment(self) -> dict[str, str]:
        threads = "1" if self.quick else "2"
        return {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
            "XDG_CACHE_HOME": str(self.work / "cache"),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, name: str, words: Sequence[str]) -> subprocess.Popen:
        """A child whose output goes to ``WORK/logs/NAME.log``."""
        log = self.work / "logs" / f"{name.replace('/', '_')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return subprocess.Popen(words, cwd=self.work, stdout=file, stderr=file, env=self.environment())


def write(path: Path, value: object) -> None:
    """JSON, complete or as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def command(session: Session, model: Model, steps: int, run_dir: str, calibrating: bool = False) -> list[str]:
    """``pretrain`` of that many steps."""
    never = 10 * steps
    rhythm = {
        "validate_every": never if calibrating else max(steps // 16, 1),
        "training.log_every": 5 if calibrating else max(steps // 200, 1),
        "training.checkpoint_every": never if calibrating else max(steps // 5, 1),
    }
    training = {
        "training.steps": steps,
        "training.batch_size": model.batch,
        "training.lr": model.lr,
        "training.warmup": max(steps // 40, 1),
        "training.ema": model.ema,
        **rhythm,
    }
    words = [*model.words, *(f"{key}={value}" for key, value in training.items())]
    if session.quick:
        keys = {word.partition("=")[0] for word in TINY}
        words = [word for word in words if word.partition("=")[0] not in keys]
        words += [word for word in TINY]
    if session.attention != "auto" and model.judge:
        words.append(f"model.attention={session.attention}")
    if session.device != "auto":
        words.append(f"device={session.device}")
    return [sys.executable, "-m", "didi_core", "pretrain", *words, f"run_dir={run_dir}"]
