"""What a training run is told: frozen, validated once, and nothing below the commands reads any other configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from didi_core.errors import InputError
from didi_core.training.optimiser import OptimiserSettings, checked


@dataclass(frozen=True)
class TrainingSettings:
    """Length and rhythm of a run, shared by ``pretrain`` and ``distill``.

    steps: optimiser updates of the denoiser.
    batch_size: sequences per update, over all processes.
    accumulate: parts that a process cuts its share into; gradients add up to those of the whole.
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

    def part(self, processes: int = 1) -> int:
        """Sequences that a process holds at a time. Raises InputError where the batch cannot be shared evenly."""
        parts = processes * self.accumulate
        if self.batch_size % parts:
            raise InputError(
                f"training.batch_size={self.batch_size} cannot be shared evenly by {processes} processes in "
                f"{self.accumulate} part(s) each: choose a multiple of {parts}. It is the batch of all of them."
            )
        return self.batch_size // parts

    @property
    def optimiser(self) -> OptimiserSettings:
        return OptimiserSettings(
            lr=self.lr, warmup=self.warmup, final=self.final, weight_decay=self.weight_decay, clip=self.clip
        )


@dataclass(frozen=True)
class PretrainSettings:
    """A teacher (objective ``nelbo``) or a judge (``autoregressive``) trained from data.

    weight_clip: bound on the NELBO's weight -dalpha/(1 - alpha) in training; small times otherwise make most of the
        gradient's noise. Validation is always the unclipped NELBO.
    validate_every: steps between estimates of the validation loss, on ``validation_batches`` fixed batches at fixed
    times.
    """

    objective: str = "nelbo"
    schedule: str = "log_linear"
    weight_clip: float = 1000.0
    training: TrainingSettings = field(default_factory=TrainingSettings)
    validate_every: int = 200
    validation_batches: int = 8

    def __post_init__(self) -> None:
        if self.objective not in ("nelbo", "autoregressive"):
            raise InputError(f"objective={self.objective!r} cannot pretrain. Known: autoregressive, nelbo.")
        if self.weight_clip <= 0:
            raise InputError(f"weight_clip={self.weight_clip} is out of range: it must be positive.")
        if self.validate_every < 1 or self.validation_batches < 1:
            raise InputError("validate_every and validation_batches must be at least 1.")
