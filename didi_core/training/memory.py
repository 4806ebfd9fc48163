"""What to change where a training run does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from didi_core.device import Machine, out_of_memory
from didi_core.errors import DidiError, InputError, counted, first_line
from didi_core.training.settings import TrainingSettings


class TooLarge(DidiError):
    """A step does not fit into memory."""


@contextmanager
def memory_advice(
    training: TrainingSettings,
    machine: Machine,
    processes: int,
    check: Callable[[TrainingSettings, int], None],
    lighter: str = "",
) -> Iterator[None]:
    """Say what to change where memory runs out inside.

    Args:
        check: raises InputError for settings of training that the objective cannot be run with.
        lighter: a sentence on what makes the networks themselves smaller.

    Raises:
        TooLarge: in place of the error of torch or Python.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        what = f"{advice(training, machine, processes, check)} {lighter}".rstrip()
        raise TooLarge(
            f"out of memory on {machine.label}: {first_line(error).rstrip('.')}. {what} A checkpoint that was saved is "
            "intact. dry_run=true measures what a run takes."
        ) from error


def advice(
    training: TrainingSettings, machine: Machine, processes: int, check: Callable[[TrainingSettings, int], None]
) -> str:
    """The next smaller slices that the objective can be run with; where there are none, a smaller batch."""
    rows = training.slice_size(processes)
    for cut in range(training.accumulate + 1, training.batch_size // processes + 1):
        with suppress(InputError):  # a cut that does not divide the batch, or not into whole groups
            smaller = replace(training, accumulate=cut)
            check(smaller, processes)
            size = smaller.slice_size(processes)
            text = (
                f"A slice of {counted(rows, 'sequence')} is too large: set training.accumulate={cut}. Slices of {size} "
                f"add up to the same batch, with about {size / rows:.0%} of what is not weights, gradients and AdamW."
            )
            break
    else:
        text = (
            f"A slice of {counted(rows, 'sequence')} is too large, and training.batch_size={training.batch_size} "
            "cannot be cut further: choose shorter sequences (data.max_length or the domain's own key) or a smaller "
            "model."
        )
    wide = machine.device.type == "cuda" and machine.precision == "fp32"
    return f"{text} precision=bf16 halves activations." if wide else text
