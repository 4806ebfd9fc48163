"""Training curves and samples in TensorBoard: ``tensorboard --logdir outputs``. Files lie in ``<run>/tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from didi_core.hookspecs import hookimpl
from didi_core.types import Sample

DIDI_INTERFACE = 2


@cache
def writer(run_dir: Path) -> Any:
    """The run's writer, opened when something is written for the first time."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run_dir / "tensorboard"))


@hookimpl
def didi_on_step(run_dir: Path, step: int, scalars: Mapping[str, float]) -> None:
    for name, value in scalars.items():
        writer(run_dir).add_scalar(name, value, step)


@hookimpl
def didi_on_samples(run_dir: Path, samples: Sequence[Sample]) -> None:
    writer(run_dir).add_text("samples", "\n\n".join(sample.text for sample in samples[:10]))


@hookimpl
def didi_on_run_end(run_dir: Path) -> None:
    writer(run_dir).close()
    writer.cache_clear()
