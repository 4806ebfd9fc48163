"""Length and rhythm of a training run: the keys of ``training``."""

from __future__ import annotations

from dataclasses import dataclass

from didi_core.errors import InputError
from didi_core.training.optimiser import OptimiserSettings, checked


@dataclass(frozen=True)
class TrainingSettings:
    """Length and rhythm of a run, shared by ``pretrain`` and ``distill``.

    steps: updates of the network that is the result.
    batch_size: sequences per update, over all processes.
    accumulate: slices that a process cuts its rows into; their gradients add up to those of the whole.
    ema: decay of the weights' moving average, which is what is kept at the end.
    """

    steps: int = 1000
    batch_size: int = 32
    accumulate: int = 1
    lr: float = 1e-3
    warmup: int = 100
    final: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    log_every: int = 10
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"training.{name}={getattr(self, name)} is out of range: it must be at least 1.")
        if self.batch_size % self.accumulate:
            raise InputError(
                f"training.accumulate={self.accumulate} must divide training.batch_size={self.batch_size}."
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"training.ema={self.ema} is out of range: it must be in [0, 1).")
        checked("training", lambda: self.optimiser)

    def cautions(self) -> list[str]:
        """What these settings hardly mean, in sentences: a warm-up that is longer than the run.

        An average longer than the run is not among them: its decay grows with the number of updates (``EMA``).
        """
        if not self.warmup >= self.steps > 1:
            return []
        return [
            f"training.warmup={self.warmup} is not over when the {self.steps} steps are: the learning rate never "
            f"reaches training.lr={self.lr:g}."
        ]

    def slice_size(self, processes: int = 1) -> int:
        """Sequences that a process holds at a time. Raises InputError where the batch cannot be cut evenly."""
        slices = processes * self.accumulate
        if self.batch_size % slices:
            raise InputError(
                f"training.batch_size={self.batch_size} cannot be shared evenly by {processes} processes in "
                f"{self.accumulate} slice(s) each: choose a multiple of {slices}. It is the batch of all of them."
            )
        return self.batch_size // slices

    @property
    def optimiser(self) -> OptimiserSettings:
        return OptimiserSettings(
            lr=self.lr, warmup=self.warmup, final=self.final, weight_decay=self.weight_decay, clip=self.clip
        )
