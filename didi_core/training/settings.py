"""The keys of ``training``: length, batch, learning rate and intervals of a run."""

from __future__ import annotations

from dataclasses import dataclass

from didi_core.errors import InputError, at_least, counted, positive
from didi_core.training.optimiser import OptimiserSettings, checked


@dataclass(frozen=True)
class TrainingSettings:
    """The keys of ``training``, shared by ``pretrain`` and ``distill``.

    steps: updates of the network that is the result.
    seconds: the run ends after so much time in training, warm-up and earlier parts of a resumed run included, or after
        ``steps`` updates, whichever comes first; 0 for no such limit. Learning rates follow ``steps``.
    batch_size: sequences per update, over all processes.
    accumulate: slices into which a process cuts its rows; their gradients add up to those of the whole.
    activation_checkpointing: blocks keep their inputs only, and are computed again in the backward pass.
    timeout: minutes without a sign of life of another process after which all end.
    ema: decay of the moving average of the weights, which is the result at the end.
    """

    steps: int = 1000
    seconds: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    activation_checkpointing: bool = False
    timeout: float = 10.0
    lr: float = 1e-3
    warmup: int = 100
    final: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    log_every: int = 10
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every")
        at_least(1, "training.", **{name: getattr(self, name) for name in counts})
        if not 0 <= self.seconds < float("inf"):
            raise InputError(
                f"training.seconds={self.seconds} is out of range: a time in seconds, or 0 to train for training.steps."
            )
        positive("training.", timeout=self.timeout)
        if self.batch_size % self.accumulate:
            raise InputError(
                f"training.accumulate={self.accumulate} must divide training.batch_size={self.batch_size}."
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"training.ema={self.ema} is out of range: it must be in [0, 1).")
        checked("training", lambda: self.optimiser)

    def cautions(self) -> list[str]:
        """What these settings hardly mean, in sentences: a warm-up that is longer than the run, a rate that falls to an
        end which the time may not reach.

        An average longer than the run is not one: its decay grows with the number of updates (``EMA``).
        """
        found = []
        if self.warmup >= self.steps > 1:
            found.append(
                f"training.warmup={self.warmup} does not end before the {self.steps} steps do: the learning rate "
                "rises through the whole run."
            )
        if self.seconds and self.final < 1:
            found.append(
                f"training.seconds={self.seconds:g} may end the run anywhere on the way to training.final="
                f"{self.final:g}, which {self.steps} steps would reach. Set training.final=1 for a rate that does not "
                "depend on it."
            )
        return found

    def slice_size(self, processes: int = 1) -> int:
        """Sequences that a process holds at one time. Raises InputError where the batch cannot be cut evenly."""
        slices = processes * self.accumulate
        if self.batch_size % slices:
            raise InputError(
                f"training.batch_size={self.batch_size} cannot be shared evenly by {processes} processes in "
                f"{counted(self.accumulate, 'slice')} each: "
                f"choose a multiple of {slices}. It is the batch of all of them."
            )
        return self.batch_size // slices

    @property
    def optimiser(self) -> OptimiserSettings:
        return OptimiserSettings(
            lr=self.lr, warmup=self.warmup, final=self.final, weight_decay=self.weight_decay, clip=self.clip
        )
