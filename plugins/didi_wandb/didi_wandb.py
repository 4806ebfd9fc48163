"""Training curves and samples in Weights & Biases, with one wandb run for each run directory.

Nothing is sent unless ``WANDB_PROJECT`` is set; a run without it prints that once. wandb reads its other settings from
the environment too (``WANDB_MODE=offline``).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from didi_core.hookspecs import hookimpl
from didi_core.types import Sample

DIDI_INTERFACE = 2


@cache
def run(run_dir: Path) -> Any:
    """The wandb run. A resumed run directory continues in the same one, because its id follows from the path."""
    import wandb

    config = json.loads((run_dir / "run.json").read_text())["config"] if (run_dir / "run.json").is_file() else {}
    number = hashlib.sha256(str(run_dir).encode()).hexdigest()[:12]
    return wandb.init(id=number, name=run_dir.name, dir=str(run_dir), config=config, resume="allow")


def wanted() -> bool:
    """Whether anything is sent."""
    if not os.environ.get("WANDB_PROJECT"):
        warn_once()
        return False
    return True


@cache
def warn_once() -> None:
    print("didi_wandb: nothing is sent to wandb: set WANDB_PROJECT=<project>.", file=sys.stderr, flush=True)


@hookimpl
def didi_on_step(run_dir: Path, step: int, scalars: Mapping[str, float]) -> None:
    if wanted():
        run(run_dir).log(dict(scalars), step=step)


@hookimpl
def didi_on_samples(run_dir: Path, samples: Sequence[Sample]) -> None:
    if wanted():
        import wandb

        run(run_dir).log({"samples": wandb.Table(["id", "text"], [[s.id, s.text] for s in samples[:50]])})


@hookimpl
def didi_on_run_end(run_dir: Path, record: Mapping[str, object]) -> None:
    if wanted():
        run(run_dir).summary.update({"stages": record.get("stages", {})})
        run(run_dir).finish()
        run.cache_clear()
