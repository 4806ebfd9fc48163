"""The loop that every training command shares: rhythm, journal, checkpoints, progress and the checks that stop a sick
run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from didi_core.errors import DidiError
from didi_core.progress import Reporter

Scalars = Mapping[str, float]


class Stateful(Protocol):
    """Anything whose state can be saved and put back: a module, an optimiser, an average."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


class Keeper(Protocol):
    """Where checkpoints and metrics go. ``didi_core.training.state.FolderKeeper`` writes them to a run directory."""

    def restore(self, parts: Mapping[str, Stateful]) -> int:
        """Put back the newest checkpoint and return its step; 0 when there is none."""
        ...

    def save(self, step: int, parts: Mapping[str, Stateful]) -> None:
        """Keep the state after ``step`` updates; complete or absent, never torn."""
        ...

    def record(self, step: int, scalars: Scalars) -> None:
        """Append one line of metrics."""
        ...






class Collapse(DidiError):
    """Training went wrong in a way that more steps do not mend."""


def check_finite(step: int, scalars: Scalars) -> None:
    """Stop at the first value that is not a number."""
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise Collapse(
                f"step {step}: {name} is {value}. The last checkpoint is intact. "
                "Lower training.lr, or use precision=fp32 if this ran in bf16; then repeat with another run_dir."
            )


def run_steps(
    one_step: Callable[[int], Scalars],
    parts: Mapping[str, Stateful],
    keeper: Keeper,
    reporter: Reporter,
    *,
    title: str,
    steps: int,
    checkpoint_every: int,
    log_every: int,
    check: Callable[[int, Scalars], None] = check_finite,
) -> None:
    """Run ``one_step(step)`` for steps 0 .. steps-1, continuing after the newest checkpoint.

    Every step must derive its randomness from its number, so that a resumed run repeats an uninterrupted one to the
    bit.
    ``check`` sees every step's scalars before they are recorded and before a checkpoint is written.
    """
    first = keeper.restore(parts)
    if first:
        reporter.message(f"{title}: continuing after step {first} of {steps}")
    reporter.start(title, steps, first)
    started = time.monotonic()
    for step in range(first, steps):
        scalars = dict(one_step(step))
        check(step, scalars)
        reporter.advance(scalars)
        done = step + 1
        if done % log_every == 0 or done == steps or step == 0:
            keeper.record(done, {**scalars, "seconds": round(time.monotonic() - started, 3)})
        if done % checkpoint_every == 0 or done == steps:
            keeper.save(done, parts)
    reporter.stop()
